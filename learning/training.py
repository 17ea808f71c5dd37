"""One device's local round, and the evaluation of a version: flat parameters in, plain numbers out.

Both are pure: the same task, parameters, examples and config give the same bits, on one machine and torch
version. Each begins with a model in the state in which ``model()`` makes it and with examples of its own, so that
nothing of what ``train()`` or ``evaluate()`` does to either reaches the next.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from aggregation.codecs import Direction, direction_of
from aggregation.errors import UsageProblem
from aggregation.layout import Layout
from learning.cohorts import declared_cohort
from learning.config import TrainConfig
from learning.control import ControlVariates, delta_of, kept_of, layers_of, variates_of
from learning.datasets import Examples
from learning.kinds.protocol import Anatomy, Flat, Model
from learning.private import State, evaluator_has_none, hide, put, taken
from learning.randomness import seeded
from learning.task import LossNotFiniteProblem, Task

NUM_EXAMPLES: Final = "num_examples"
"""The number among train()'s that says how many examples it trained on."""
EXAMPLES_MAX: Final = 1 << 53


@dataclass(frozen=True, slots=True, eq=False)
class LocalResult:
    """delta: float32[P], unclipped: local − base of the weights, local values of the buffers, c_i' - c_i of variates.

    num_examples: trained on; what train() reports of that name, 1 or more, else the length of the data. loss:
    metrics["loss"].

    metrics: what train() reports, and the device's "cohort" where the task has ``cohorts``.

    private: the device's private tensors after the round, by name, its own control variates among them: they are in no
    update, and its next round needs them. Empty where the task has none.
    """

    delta: Flat
    num_examples: int
    loss: float
    metrics: dict[str, float]
    private: State = field(default_factory=dict)


def train_locally(
    task: Task, flat_parameters: Flat, data: Examples, config: TrainConfig, private: State | None = None
) -> LocalResult:
    """Train ``task`` from float32[P] on one device's examples.

    ``private``: what is the device's own, as its last round left it (``LocalResult.private``): its private layers and
    control variates. None where it has none yet. Without the control variates at its end ``flat_parameters`` has 0.

    The delta is local minus what the model held of ``flat_parameters`` when training began: a tensor in bfloat16 holds
    the nearest bfloat16 values, and a ``train()`` that does nothing gives exactly 0, whatever the dtypes.
    Buffers that it leaves as they are stay exactly the base's.

    Random draws (shuffling, dropout) follow from config.seed and config.version; threads take turns.
    UsageProblem FLV-2208 if train() fails, ends in NaN, changes the layout or what is frozen; FLV-2213 if P is not the
    model's; FLV-2220 if a value is too large for a tensor's dtype; FLV-2254 if the private layers are another model's.
    """
    whole = np.asarray(flat_parameters)
    kind, anatomy = task.kind, task.anatomy
    base = anatomy.model_of(whole)
    variates = _variates(task, whole, private)
    if variates is not None:
        config = replace(config, control_variates=variates)
    with seeded(config.seed, config.version):
        model = _model_with(task, base)
        put(task, model, layers_of(private))
        form, held = kind.form(model), kind.values(model, anatomy)
        with kind.mode(model, training=True):
            metrics = task.train(model, data.copy(), config)
        _check_form(form, kind.form(model), str(task.path))
        local = kind.values(model, anatomy)
        told = declared_cohort(task, data) | metrics
        _check_frozen(kind.moved(model, _fixed(anatomy, task.private)), str(task.path))
        own = taken(task, model)
    with np.errstate(invalid="ignore", over="ignore"):
        delta = (local - held).astype(np.float32)
    buffers = slice(anatomy.layout.trainable.parameters, None)
    delta[buffers] = np.where(local[buffers] == held[buffers], base[buffers], local[buffers])
    if not np.isfinite(delta).all():
        raise UsageProblem(
            "FLV-2208",
            f"train() left {int((~np.isfinite(delta)).sum())} of {len(delta)} parameters NaN or infinite",
            where=str(task.path),
            hint='lower CONFIG["learning_rate"], or scale the inputs to about 0 … 1',
        )
    if variates is not None:
        delta, own = _with_control(task, delta, variates, own)
    return LocalResult(
        delta=delta, num_examples=_examples(metrics, data), loss=metrics["loss"], metrics=told, private=own
    )


def _variates(task: Task, whole: Flat, private: State | None) -> ControlVariates | None:
    anatomy = task.anatomy
    if not anatomy.control:
        return None
    layout = anatomy.task_layout
    control = whole[layout.model_parameters :]
    if control.size != layout.control.parameters:  # whoever has a model alone, and no version
        control = np.zeros(layout.control.parameters, dtype=np.float32)
    return variates_of(layout, control, private, str(task.path))


def _with_control(task: Task, delta: Flat, variates: ControlVariates, private: State) -> tuple[Flat, State]:
    """The whole update, and the device's own state with its variates. UsageProblem FLV-2208 if these run away."""
    after = variates.after(str(task.path))
    control = delta_of(task.anatomy.task_layout, variates.own, after)
    if not np.isfinite(control).all():
        raise UsageProblem(
            "FLV-2208",
            "training left the device's control variates NaN or infinite",
            where=str(task.path),
            hint='lower CONFIG["learning_rate"], or scale the inputs to about 0 … 1',
        )
    return np.concatenate([delta, control]), {**private, **kept_of(after)}


def _examples(metrics: Mapping[str, float], data: Examples) -> int:
    """How many examples a round counts: a task whose data are elsewhere says it itself, in ``NUM_EXAMPLES``."""
    said = metrics.get(NUM_EXAMPLES, 0.0)
    return round(min(said, EXAMPLES_MAX)) if said >= 1.0 else len(data)


def evaluate_parameters(
    task: Task, flat: Flat, dataset: Examples, private: State | None = None
) -> dict[str, float]:
    """The metrics of the model float32[P] on held-out examples: "loss", and what else the task reports.

    ``private``: the layers of the device that evaluates for itself. Without, whoever evaluates for all has nobody's,
    and they are NaN: what is said is said of what is shared, or FLV-2253 where evaluate() cannot go without them.

    Raises UsageProblem FLV-2209 if evaluate() fails, FLV-2213 if P is not the model's, FLV-2220 as in training,
    FLV-2253 and FLV-2254 of private layers.
    """
    with seeded(0):
        model = _model_with(task, np.asarray(flat))
        put(task, model, layers_of(private))
        if private is None:
            hide(task, model)
        with task.kind.mode(model, training=False):
            try:
                return task.evaluate(model, dataset.copy())
            except LossNotFiniteProblem:
                if task.private and private is None:
                    _blame_private(task, np.asarray(flat), dataset)
                raise


def _blame_private(task: Task, flat: Flat, dataset: Examples) -> None:
    """UsageProblem FLV-2253 if the loss is finite once private layers hold anything: then these are what it lacks."""
    model = _model_with(task, flat)
    with task.kind.mode(model, training=False):
        try:
            task.evaluate(model, dataset.copy())
        except LossNotFiniteProblem:
            return
    raise evaluator_has_none(task)


def _model_with(task: Task, flat: Flat) -> Model:
    """A fresh model of ``task``, holding ``flat``."""
    model = task.fresh_model()
    task.kind.load(model, task.anatomy, task.anatomy.model_of(flat))
    return model


def _fixed(anatomy: Anatomy, private: tuple[str, ...]) -> Anatomy:
    """What training may not change of what is frozen: private layers are frozen to others only."""
    if not private:
        return anatomy
    kept = {name: raw for name, raw in anatomy.frozen.items() if name not in private}
    return replace(anatomy, frozen=kept)


def local_of(flat_parameters: Flat, delta: Flat, layout: Layout) -> Flat:
    """The local model float32[P] that a ``LocalResult``'s ``delta`` is of, to float32's digits."""
    local = flat_parameters + delta
    buffers = slice(layout.trainable.parameters, layout.model_parameters)
    local[buffers] = delta[buffers]
    return local


def _check_frozen(name: str, where: str) -> None:
    """UsageProblem FLV-2208 when training changed ``name``, which no device can send."""
    if name:
        raise UsageProblem(
            "FLV-2208",
            f"train() changed {name}, which is frozen in this task: the change would be lost",
            where=where,
            hint="leave its requires_grad as model() sets it; what shall be trained requires gradients in model()",
        )


def _check_form(before: Mapping[str, Hashable], after: Mapping[str, Hashable], where: str) -> None:
    """UsageProblem FLV-2208 unless training left the tensors' names, shapes and dtypes as they were."""
    changed = [name for name in before if after.get(name) != before[name]]
    new = [name for name in after if name not in before]
    if not changed and not new:
        return
    name = [*changed, *new][0]
    if name not in before:
        problem, hint = f"{name} ({after[name]}) is new", "make it in model(), or take it off before the end"
    elif name in after:
        problem = f"{name} was {before[name]} and is {after[name]}"
        hint = "change a copy (copy.deepcopy(model)) and copy its weights back, or change it in model()"
    else:
        instead = next((other for other in new if other.startswith(name.rpartition(".")[0])), "")
        problem = f"{name} ({before[name]}) is gone" + (f", {instead} is new" if instead else "")
        hint = (
            "undo it before the end of train(): torch.nn.utils.prune.remove for pruning, "
            "torch.nn.utils.parametrize.remove_parametrizations for a parametrization; or do it in model()"
        )
    raise UsageProblem("FLV-2208", f"train() changed the model's layout: {problem}", where=where, hint=hint)


def guide_of(task: Task, flat_parameters: Flat, root_set: Examples, config: TrainConfig) -> Direction:
    """The direction that a root set gives at float32[P]: local − base of the weights, of one round as a device trains.

    Raises what ``train_locally`` raises.
    """
    layout = task.anatomy.layout.trainable
    # Without the version's variates: who has none of its own would add what others' data have, step after step.
    result = train_locally(task, task.anatomy.model_of(flat_parameters), root_set, config)
    return direction_of(result.delta[: layout.parameters].astype(np.float64), layout)
