"""How one device trains: a frozen, validated set of numbers, and a task's own settings beside them. No torch here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from difflib import SequenceMatcher
from types import MappingProxyType
from typing import Any, Final

from aggregation.errors import UsageProblem
from learning.control import ControlVariates

_BOUNDS: Final[dict[str, tuple[type, float, float]]] = {
    "seed": (int, 0, 2**63 - 1),
    "version": (int, 0, 2**53),
    "epochs": (int, 1, 10_000),
    "batch_size": (int, 1, 1_000_000),
    "learning_rate": (float, 1e-9, 1e3),
}
_A_TASK_MAY_SET: Final = ("epochs", "batch_size", "learning_rate")
_OF_THE_ROUND: Final = ("seed", "version")
_TYPO_RATIO: Final = 0.8
"""How like another key (difflib's ratio, 0 to 1) a key is that was meant to be that one."""
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """What ``train(model, data, config)`` gets.

    seed: of this device; together with ``version`` it fixes every random choice of one local round.
    version: the base version that this round starts from (0 = the genesis model).
    epochs: passes over the device's own examples, 1 … 10,000.
    batch_size: examples a step, 1 … 1,000,000.
    learning_rate: of the local SGD, 1e-9 … 1e3.
    extra: the task's own settings, every other key of its CONFIG. ``config.momentum`` is ``config.extra["momentum"]``.
    control_variates: this round's, in a task whose devices train with such (``learning.control``).

    Raises UsageProblem FLV-2207 if a value has the wrong type or is out of bounds.
    """

    seed: int = 0
    version: int = 0
    epochs: int = 5
    batch_size: int = 16
    learning_rate: float = 0.1
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    control_variates: ControlVariates | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        for name, (kind, low, high) in _BOUNDS.items():
            value = getattr(self, name)
            allowed = (int, float) if kind is float else int
            right_type = isinstance(value, allowed) and not isinstance(value, bool)
            if not (right_type and math.isfinite(value) and low <= value <= high):
                raise UsageProblem(
                    "FLV-2207",
                    f"training setting {name} must be {_article(kind)} from {low:g} to {high:g}, "
                    f"got {value!r}",
                    hint=f"set CONFIG = {{{name!r}: {_DEFAULTS.get(name, low)!r}}} in the task file"
                    if name in _A_TASK_MAY_SET
                    else f"pass another {name}",
                )

    def __getattr__(self, name: str) -> Any:
        """A setting of the task's own. AttributeError says which there are."""
        # Before ``extra`` is set, as in a copy that is being made, there is none.
        extra = _NOTHING if name == "extra" or name.startswith("__") else self.extra
        if name not in extra:
            own = f"its own settings are {', '.join(extra)}" if extra else "it has no settings of its own"
            message = f"the config has no {name!r}, {own}: give it in CONFIG, or with --set {name}=VALUE"
            raise AttributeError(message, name=name, obj=self)
        return extra[name]

    def at(self, *, seed: int, version: int) -> TrainConfig:
        """The same settings for one device (``seed``) and one base ``version``."""
        return replace(self, seed=seed, version=version)


def _article(kind: type) -> str:
    return "an integer" if kind is int else "a number"


def config_from_overrides(
    overrides: Mapping[str, object], *, where: str, given: Mapping[str, object] = _NOTHING
) -> TrainConfig:
    """The default TrainConfig with a task file's ``CONFIG`` laid over it, and over that what the user has ``given``.

    epochs, batch_size and learning_rate are Fluvial's; seed and version belong to the device and the round; any other
    key is the task's own. Raises UsageProblem FLV-2207 for a bad value, and for a key that is nearly one of Fluvial's;
    FLV-2245 for a given key that is nearly one of CONFIG's. ``where`` is the task file.
    """
    for key in overrides:
        _check_key(key, f"CONFIG has the key {key!r}", where)
    for key in given:
        _check_key(key, f"--set gives the key {key!r}", where)
        meant = _nearly(key, overrides)
        if meant and key not in overrides:
            raise UsageProblem(
                "FLV-2245",
                f"--set gives {key!r}, and CONFIG has {meant!r} and no {key!r}",
                where=where,
                hint=f"write `--set {meant}=VALUE`; if {key!r} is another setting, give it a default in CONFIG",
            )
    merged = {**overrides, **given}
    known = {key: value for key, value in merged.items() if key in _A_TASK_MAY_SET}
    extra = {key: value for key, value in merged.items() if key not in _A_TASK_MAY_SET}
    try:
        return replace(TrainConfig(), **known, extra=extra)  # type: ignore[arg-type]
    except UsageProblem as problem:
        problem.where = where
        raise


def _check_key(key: str, what: str, where: str) -> None:
    if key in _A_TASK_MAY_SET:
        return
    if key in _OF_THE_ROUND:
        raise UsageProblem(
            "FLV-2207",
            f"{what}, which belongs to the device and the round",
            where=where,
            hint=f"remove {key!r}; train() finds it in config.{key}",
        )
    if key in _TAKEN:
        raise UsageProblem(
            "FLV-2207",
            f"{what}, which is a name of the config's own",
            where=where,
            hint=f"call it another name than {key!r}",
        )
    meant = _nearly(key, _A_TASK_MAY_SET)
    if meant:
        raise UsageProblem(
            "FLV-2207",
            f"{what}; Fluvial's own are {', '.join(_A_TASK_MAY_SET)}",
            where=where,
            hint=f"did you mean {meant!r}? A setting of your own needs a name that is less like it",
        )


def _nearly(key: str, names: Iterable[str]) -> str:
    """Which of ``names`` was meant by ``key``, that is none of them; "" when none was.

    ``learning_rate_min`` is no slip of the pen: it has one of the names as a word.
    """
    folded = _fold(key)
    near = [
        (SequenceMatcher(None, folded, _fold(name)).ratio(), name)
        for name in names
        if not folded.startswith(f"{_fold(name)}_") and not folded.endswith(f"_{_fold(name)}")
    ]
    ratio, name = max(near, default=(0.0, ""))
    return name if ratio >= _TYPO_RATIO else ""


def _fold(name: str) -> str:
    return name.lower().replace("-", "_").replace(" ", "_")


_DEFAULTS: Final = {one.name: one.default for one in fields(TrainConfig) if one.default is not MISSING}
_TAKEN: Final = frozenset(dir(TrainConfig)) - frozenset(_BOUNDS)
