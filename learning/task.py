"""A task: one file that says what is learned. Loading it, and turning every mistake in it into a clear error.

The file holds four functions and, if it likes, some settings and functions more::

    def model() -> torch.nn.Module
    def train(model, data, config) -> dict[str, float]   in place, on one device's Examples; reports "loss"
    def evaluate(model, data) -> dict[str, float]        on held-out Examples; reports "loss"
    def data() -> Dataset                                or DATA = "digits", or another that ships
    def local_data(path) -> (x, y)                        instead of data(), or beside it: a real device's own examples
    CONFIG = {"epochs": …, "batch_size": …, "learning_rate": …, and settings of its own}
    POLICY = {…}                                           laid over the task's policy, as it is
    METRIC = "r2"  or  ("wer", "lower")                    which number of evaluate() judges a version
    NAME = "…"                                             else the file's name
    PRIVATE = ["head.*"]                                   layers that each device keeps to itself
    def cohorts(data) -> int array[n]                      a group, 0 to 99, of each example; else 10 made up
    def guide_data() -> (x, y)                             a guardian's root set; else some held-out examples
    def can_run(data) -> True, or why not in words         whether this device may take part now
"""

from __future__ import annotations

import copy
import hashlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, Final

import numpy as np

from aggregation.errors import UsageProblem
from learning.config import TrainConfig, config_from_overrides
from learning.control import asks_for_control
from learning.datasets import Dataset, Examples
from learning.guide_data import guide_data_in
from learning.kinds import kind_of
from learning.kinds.protocol import Anatomy, Kind, Model
from learning.local_data import LOCAL_DATA, has_data, local_examples, no_data
from learning.metric import declared_metric
from learning.names import check_task_name
from learning.private import private_in, without
from learning.randomness import seeded
from learning.shipped import SHIPPED
from learning.taking_part import can_run_in
from learning.userfile import call_users, import_users
from schemas.manifests import Metric

SHIPPED_TASKS_FOLDER: Final = Path(__file__).parent / "tasks"
NO_SETTINGS: Final[Mapping[str, Any]] = MappingProxyType({})
_FUNCTIONS: Final = ("model", "train", "evaluate")
_NAME_LIKE: Final = re.compile(r"[A-Za-z0-9_-]+")


class LossNotFiniteProblem(UsageProblem):
    """FLV-2208 or FLV-2209: what users' code reports has no finite loss. ``metrics``: all that it reports."""

    def __init__(
        self, metrics: Mapping[str, float], error_id: str, message: str, *, hint: str, where: str
    ) -> None:
        super().__init__(error_id, message, hint=hint, where=where)
        self.metrics = dict(metrics)


@dataclass(frozen=True, eq=False)
class Task:
    """A loaded task file.

    reference: what it was loaded by, so that another process can load it again.
    source_sha256: hex digest of the file's bytes. policy_overrides: its POLICY, unchecked. metric: its METRIC.
    can_run: its ``can_run``, which says whether a device with such examples may take part now; None without one.
    """

    name: str
    reference: str
    path: Path
    source_sha256: str
    config: TrainConfig
    policy_overrides: Mapping[str, Any]
    metric: Metric | None
    can_run: Callable[[Examples], object] | None = field(repr=False)
    _module: ModuleType = field(repr=False)
    _data: list[Dataset] = field(default_factory=list, repr=False)

    def model(self) -> Model:
        """Call ``model``. Raises UsageProblem FLV-2204 if it fails or returns something unusable.

        Nothing keeps a task file from returning one and the same module each time: see ``fresh_model``.
        """
        made: Model = call_users(self.path, "model()", "FLV-2204", self._module.model)
        kind_of(made, str(self.path)).check(made, str(self.path))
        return made

    def fresh_model(self) -> Model:
        """A model in the state in which ``model`` makes it, whatever was done to earlier ones; FLV-2204, FLV-2221.

        Its numbers are the same each time. The process's random state stays as it was.
        """
        with seeded(0):
            return self._source()

    @cached_property
    def kind(self) -> Kind:
        """The library that its models are of."""
        return kind_of(self._first, str(self.path))

    @cached_property
    def anatomy(self) -> Anatomy:
        """What its models are made of."""
        return self.anatomy_of(self._first)

    @cached_property
    def private(self) -> tuple[str, ...]:
        """The tensors that each device keeps, by name: ``learning.private``. Raises UsageProblem FLV-2252."""
        return private_in(self._module, self.kind, self._first, str(self.path))

    def anatomy_of(self, model: Model) -> Anatomy:
        """What a model that ``model`` has made is made of: private tensors are frozen, as they are in it."""
        made = without(self.kind.anatomy(model), self.private, model)
        return replace(made, control=asks_for_control(self.config.extra))

    @cached_property
    def _first(self) -> Model:
        """A model that nobody touches."""
        with seeded(0):
            return self.model()

    @cached_property
    def _source(self) -> Callable[[], Model]:
        return self.kind.source(self.model, self._first, str(self.path))

    def bound_to(self, anatomy: Anatomy) -> Task:
        """The same file for a task whose models are made of ``anatomy``, as its genesis says.

        UsageProblem FLV-2213 when this file's model has a tensor more or less than that, or one of another shape.
        """
        bound = copy.copy(self)  # with what this one has made and loaded
        bound.__dict__["anatomy"] = anatomy
        try:
            _require_fit(self, anatomy)
        except UsageProblem as problem:
            problem.where = problem.where or str(self.path)
            raise
        return bound

    def train(self, model: Model, data: Examples, config: TrainConfig) -> dict[str, float]:
        """Train in place on one device's examples; its metrics. Raises UsageProblem FLV-2208."""
        got = call_users(self.path, "train()", "FLV-2208", lambda: self._module.train(model, data, config))
        return _metrics(got, "train()", "FLV-2208", str(self.path))

    def evaluate(self, model: Model, data: Examples) -> dict[str, float]:
        """Metrics on held-out examples, "loss" among them. Raises UsageProblem FLV-2209."""
        got = call_users(self.path, "evaluate()", "FLV-2209", lambda: self._module.evaluate(model, data))
        return _metrics(got, "evaluate()", "FLV-2209", str(self.path))

    def cohorts(self, examples: Examples) -> object | None:
        """What the file's ``cohorts`` says of these examples; None when it has none. Raises FLV-7040."""
        own = getattr(self._module, "cohorts", None)
        if not callable(own):
            return None
        made: object = call_users(self.path, "cohorts()", "FLV-7040", lambda: own(examples))
        return made

    def with_settings(self, settings: Mapping[str, Any]) -> Task:
        """This task with ``settings`` over its CONFIG. Raises UsageProblem FLV-2207 and FLV-2245 as ``load_task``."""
        where = str(self.path)
        overrides = _mapping(self._module, "CONFIG", where)
        return replace(self, config=config_from_overrides(overrides, where=where, given=settings))

    @property
    def shipped_data(self) -> str:
        """Which of the shipped data sets is its data, by name; "" where it has its own."""
        own = getattr(self._module, "data", None)
        return "" if callable(own) else str(getattr(self._module, "DATA", ""))

    @property
    def has_data(self) -> bool:
        """Whether it has data for all; else every device, and the evaluator, brings its own."""
        return has_data(self._module)

    def local_data(self, path: str) -> Examples:
        """The examples of whoever runs this at ``path``: what ``local_data(path)`` of the file makes of it.

        Without that function, a .npz, a .csv or a folder, as ``Examples.of`` reads it. Raises UsageProblem FLV-2234,
        FLV-2205.
        """
        return local_examples(self._module, self.path, path)

    def guide_data(self) -> Examples | None:
        """What the file's ``guide_data`` returns; None when it has none. Raises UsageProblem FLV-2250."""
        return guide_data_in(self._module, self.path)

    def held_out(self, path: str = "") -> Examples:
        """What the evaluator evaluates on: ``data().test``, or its own examples at ``path``."""
        return self.local_data(path) if path else self.data().test

    def data(self) -> Dataset:
        """The task's data, loaded once. Raises FLV-2205, FLV-2233 (usage), FLV-2206 and FLV-2214 (environment)."""
        if not self.has_data:
            raise no_data(self.name, str(self.path))
        if not self._data:
            got = call_users(self.path, "data()", "FLV-2205", lambda: _data_source(self._module)())  # noqa: PLW0108 (finding it may fail, too)
            if not isinstance(got, Dataset):
                raise UsageProblem(
                    "FLV-2205",
                    f"data() must return a learning.Dataset, got {type(got).__name__}",
                    where=str(self.path),
                    hint="return learning.Dataset(train=(x, y), test=(x, y)), with numpy arrays",
                )
            self._data.append(got)
        return self._data[0]


def load_task(reference: str, settings: Mapping[str, Any] = NO_SETTINGS) -> Task:
    """The task named ``reference``: a shipped one ("digits", "fashion", …) or the path of a .py file.

    ``settings`` are laid over its CONFIG: what was given by ``--set``, as its task.json has it.
    The file is imported and model() is called once; data() waits until it is needed.
    Raises UsageProblem: FLV-2200 no such task, FLV-2201 bad name, FLV-2202 the file fails on import,
    FLV-2203 a function is missing, FLV-2204 an unusable model, FLV-2205 an unknown DATA,
    FLV-2207 bad CONFIG or POLICY, FLV-2252 bad PRIVATE, FLV-2240 and FLV-2241 bad METRIC,
    FLV-2245 a setting that is nearly one of CONFIG's.
    """
    path = _find(reference)
    source = path.read_bytes()
    module = import_users(path, source)
    where = str(path)
    _check_functions(module, where)
    task = Task(
        name=check_task_name(getattr(module, "NAME", path.stem), where),
        reference=reference,
        path=path,
        source_sha256=hashlib.sha256(source).hexdigest(),
        config=config_from_overrides(_mapping(module, "CONFIG", where), where=where, given=settings),
        policy_overrides=_mapping(module, "POLICY", where),
        metric=declared_metric(module, where),
        can_run=can_run_in(module, path),
        _module=module,
    )
    _ = task.private  # which makes a model, once
    return task


def shipped_tasks() -> list[str]:
    """The names of the tasks that ship, sorted."""
    return sorted(path.stem for path in SHIPPED_TASKS_FOLDER.glob("*.py") if path.stem != "__init__")


def _find(reference: str) -> Path:
    shipped = shipped_tasks()
    if reference in shipped:
        return SHIPPED_TASKS_FOLDER / f"{reference}.py"
    path = Path(reference)
    if path.suffix == ".py" and path.is_file():
        return path
    neighbours = [str(file) for file in path.parent.glob("*.py")] if path.parent.is_dir() else []
    close = get_close_matches(reference, shipped + neighbours, n=1)
    with_suffix = path.with_suffix(".py")
    if not path.suffix and path.name and with_suffix.is_file():
        close = [str(with_suffix)]
    if path.is_dir():
        problem = f"{reference} is a folder; a task is one .py file"
    elif path.is_file():
        problem = f"{reference} is not a Python file; a task is one .py file"
    else:
        problem = f"no task {reference!r}: no such file, and the shipped tasks are {', '.join(shipped)}"
    can_make = _NAME_LIKE.fullmatch(path.stem) is not None
    hint = (
        f"did you mean {close[0]}?" if close else f"fluvial new {path.stem.lower() if can_make else 'mine'}"
    )
    raise UsageProblem("FLV-2200", problem, hint=hint)


def _check_functions(module: ModuleType, where: str) -> None:
    missing = [name for name in _FUNCTIONS if not callable(getattr(module, name, None))]
    missing += [] if has_data(module) or callable(getattr(module, LOCAL_DATA, None)) else ["data"]
    if missing:
        own = [
            name
            for name, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", None) == module.__name__
        ]
        close = [(name, get_close_matches(name, own, n=1, cutoff=0.5)) for name in missing]
        lacking = ", ".join(f"{name}()" for name in missing)
        guesses = [f"{found[0]} → {name}" for name, found in close if found]
        raise UsageProblem(
            "FLV-2203",
            f"the task file lacks {lacking}; it defines {', '.join(own) or 'no function'}",
            where=where,
            hint=f"rename {', '.join(guesses)}"
            if guesses
            else "`fluvial new example` writes a whole one to copy",
        )
    if has_data(module):
        _data_source(module, where)


def _require_fit(task: Task, anatomy: Anatomy) -> None:
    shared = next((name for name in task.private if name in anatomy.layout.names), "")
    if shared:
        raise UsageProblem(
            "FLV-2252",
            f"PRIVATE has {shared}, which the task's devices learn together: its genesis has it in the layout",
            hint="use the task file that the task was created with, or make a new task: `fluvial run --fresh`",
        )
    model = task.fresh_model()
    known = {*anatomy.layout.names, *anatomy.frozen, *task.anatomy.tied}
    strange = next((name for name in task.kind.form(model) if name not in known), "")
    if strange:
        raise UsageProblem(
            "FLV-2213",
            f"the weights are of another model: they have no {strange}, the task file's model has",
            hint="use the task file that the task was created with",
        )
    task.kind.load(model, anatomy, np.zeros(anatomy.layout.parameters, np.float32))


def _data_source(module: ModuleType, where: str = "") -> Callable[[], object]:
    own = getattr(module, "data", None)
    if callable(own):
        return own  # type: ignore[no-any-return]
    name = module.DATA
    if not isinstance(name, str) or name not in SHIPPED:
        close = get_close_matches(str(name), SHIPPED, n=1)
        raise UsageProblem(
            "FLV-2205",
            f"DATA is {name!r}; the shipped data sets are {', '.join(sorted(SHIPPED))}",
            where=where,
            hint=f"did you mean DATA = {close[0]!r}?" if close else "define data() to use data of your own",
        )
    return SHIPPED[name]


def _mapping(module: ModuleType, name: str, where: str) -> dict[str, Any]:
    value = getattr(module, name, {})
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise UsageProblem(
            "FLV-2207",
            f"{name} must be a dict with text keys, got {value!r}",
            where=where,
            hint=f'for example {name} = {{"epochs": 5}}'
            if name == "CONFIG"
            else "see docs/policy.md for its keys",
        )
    return dict(value)


def _metrics(got: object, function: str, error_id: str, where: str) -> dict[str, float]:
    """``got`` as {name: float}; numbers, numpy scalars and one-element tensors are welcome."""
    wanted = 'a dict of numbers with a "loss", such as {"loss": 0.3}'
    if not isinstance(got, Mapping) or "loss" not in got:
        shown = sorted(map(str, got)) if isinstance(got, Mapping) else type(got).__name__
        raise UsageProblem(
            error_id,
            f"{function} must return {wanted}; got {shown}",
            where=where,
            hint=f"end {function} with `return {{...}}`, a dict with the loss in it",
        )
    metrics: dict[str, float] = {}
    for name, value in got.items():
        try:
            metrics[str(name)] = float(value)
        except (TypeError, ValueError, RuntimeError) as error:
            message = f"{function} must return {wanted}; {name!r} is {type(value).__name__}"
            raise UsageProblem(error_id, message, where=where, hint="turn it into a float") from error
    if not math.isfinite(metrics["loss"]):
        raise LossNotFiniteProblem(
            metrics,
            error_id,
            f"{function} reports the loss {metrics['loss']}: the model's numbers ran away",
            where=where,
            hint='lower CONFIG["learning_rate"], or scale the inputs to about 0 … 1',
        )
    return metrics
