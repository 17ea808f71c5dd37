"""``PRIVATE`` of a task file: layers that each device trains and keeps. No torch here.

M. Arivazhagan et al., Federated Learning with Personalization Layers, 2019 (FedPer), section 3: a base that is learned
together, and layers on it that stay where they are. L. Collins et al., Exploiting Shared Representations for
Personalized Federated Learning, 2021 (FedRep): the same, the head trained first. X. Li et al., FedBN: Federated
Learning on Non-IID Features via Local Batch Normalization, 2021, section 4: batch normalization stays. ::

    PRIVATE = ["head.*"]            names as state_dict() has them, with * for anything
    PRIVATE = [nn.BatchNorm2d]      or classes of layers

Private tensors are in no update and in no version. To the genesis document they are frozen, as ``model()`` makes them:
what a device begins with that has none yet. An evaluator has nobody's, so they are NaN to ``evaluate()``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Final, Protocol

from aggregation.errors import UsageProblem
from aggregation.layout import WEIGHTS
from learning.kinds.protocol import Anatomy, Kind, Model
from schemas.tensor_files import RawTensor

PRIVATE: Final = "PRIVATE"
State = Mapping[str, RawTensor]
"""A device's private tensors by name."""
TORCH: Final = "torch"
NAMES_SHOWN: Final = 4


class Task(Protocol):
    """What is asked of a task: ``learning.task.Task`` is one."""

    @property
    def private(self) -> tuple[str, ...]:
        """The names of its private tensors."""
        ...

    @property
    def path(self) -> Path:
        """Its file."""
        ...


def private_in(module: ModuleType, kind: Kind, model: Model, where: str) -> tuple[str, ...]:
    """The names of the tensors that a task file keeps private, in the state's order; none without ``PRIVATE``.

    Raises UsageProblem FLV-2252: PRIVATE is no list of names and classes, one of them means no tensor, nothing is left
    to be learned together, or the model is not torch's.
    """
    wanted: object = getattr(module, PRIVATE, ())
    wanted = [wanted] if isinstance(wanted, str | type) else wanted
    if not isinstance(wanted, list | tuple) or not all(isinstance(one, str | type) for one in wanted):
        raise UsageProblem(
            "FLV-2252",
            f"PRIVATE must be a list of names of tensors or classes of layers, got {wanted!r}",
            where=where,
            hint='PRIVATE = ["head.*"], or PRIVATE = [nn.BatchNorm2d]',
        )
    if not wanted:
        return ()
    if kind.name != TORCH:
        raise UsageProblem(
            "FLV-2252",
            f"PRIVATE needs a torch model, and this task's is of the kind {kind.name}",
            where=where,
            hint="leave PRIVATE out, or write the model in torch",
        )
    from learning.kinds.torch_private import names_of

    names = tuple(names_of(model, wanted, where))
    if not any(spec.section == WEIGHTS for spec in without(kind.anatomy(model), names, model).tensors):
        raise UsageProblem(
            "FLV-2252",
            "PRIVATE has every trained parameter: nothing would be learned together",
            where=where,
            hint="leave out the layers that devices learn together",
        )
    return names


def without(anatomy: Anatomy, names: tuple[str, ...], model: Model) -> Anatomy:
    """The anatomy in which these tensors are frozen, as ``model`` has them."""
    if not names:
        return anatomy
    from learning.kinds.torch_private import read

    hidden = set(names)
    own = [name for name in names if name not in anatomy.tied]
    return replace(
        anatomy,
        tensors=tuple(tensor for tensor in anatomy.tensors if tensor.name not in hidden),
        frozen={**anatomy.frozen, **read(model, own)},
    )


def put(task: Task, model: Model, state: State | None) -> None:
    """Write a device's private tensors into the model; None leaves them as a new device has them.

    Raises UsageProblem FLV-2254 where they are not this task's.
    """
    if not task.private or state is None:
        return
    from learning.kinds.torch_private import read, write

    wanted = read(model, task.private)
    for name in dict.fromkeys([*wanted, *state]):
        mine, given = wanted.get(name), state.get(name)
        if mine is None or given is None or (mine.shape, mine.dtype) != (given.shape, given.dtype):
            raise UsageProblem(
                "FLV-2254",
                f"the private layers are of another model: {name} is {given or 'missing'}, the task's is "
                f"{mine or 'not private'}",
                where=str(task.path),
                hint="begin anew without them, or use those that this task's rounds gave",
            )
    write(model, state)


def taken(task: Task, model: Model) -> State:
    """A copy of the model's private tensors. Raises UsageProblem FLV-2208 where one is NaN or infinite."""
    if not task.private:
        return {}
    from learning.kinds.torch_private import broken, read

    name = broken(model, task.private)
    if name:
        raise UsageProblem(
            "FLV-2208",
            f"train() left {name}, which is private, NaN or infinite",
            where=str(task.path),
            hint='lower CONFIG["learning_rate"], or scale the inputs to about 0 … 1',
        )
    return read(model, task.private)


def hide(task: Task, model: Model) -> None:
    """Make the private tensors NaN: nobody who evaluates for all has them."""
    if task.private:
        from learning.kinds import torch_private

        torch_private.hide(model, task.private)


def in_words(names: tuple[str, ...]) -> str:
    """``head.weight, head.bias and 3 more``."""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more


def evaluator_has_none(task: Task) -> UsageProblem:
    """Somebody evaluates for all, and ``evaluate()`` cannot go without the private layers."""
    return UsageProblem(
        "FLV-2253",
        f"evaluate() uses {in_words(task.private)}, which no evaluator has: they are private, and NaN to it",
        where=str(task.path),
        hint="evaluate what is shared, or what a new device makes of it: "
        "`return fluvial.personal_score(model, data, PRIVATE)`; devices report their own with "
        "`fluvial.fit(..., private=PRIVATE, held_out=0.2)`",
    )
