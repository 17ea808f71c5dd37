"""A torch model as one flat float32 vector, and back.

The layout of a model is the list of (name, shape) of its floating-point ``state_dict()`` entries, in that
order.

- Integer and boolean entries (such as BatchNorm's ``num_batches_tracked``) are left out: they cannot be
  averaged.
- An entry that shares memory with an earlier one (tied weights) is left out: it would count twice.
- Empty entries are left out. Entries of other float widths travel as float32 and are cast back on loading.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from aggregation.errors import UsageProblem
from learning.randomness import seeded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from learning.task import Task

TensorLayout = list[tuple[str, tuple[int, ...]]]
Flat = NDArray[np.float32]
Module = nn.Module
"""For those who hand a model on and know no torch."""


def shared_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of the layout by name, sharing memory with the model."""
    chosen: dict[str, Tensor] = {}
    seen: set[tuple[int, torch.Size, tuple[int, ...]]] = set()
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.numel() == 0:
            continue
        place = (value.data_ptr(), value.shape, value.stride())
        if place not in seen:
            seen.add(place)
            chosen[name] = value
    return chosen


def layout_of(model: nn.Module) -> TensorLayout:
    """[(name, shape)] of every tensor that is learned together. A scalar parameter has the shape ()."""
    return [(name, tuple(value.shape)) for name, value in shared_tensors(model).items()]


def parameters_of(model: nn.Module) -> Flat:
    """A copy of all shared tensors as float32[P]: concatenated in layout order, each in C order."""
    parts = [
        value.detach().to("cpu", torch.float32).reshape(-1).numpy()
        for value in shared_tensors(model).values()
    ]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)


def load_parameters(model: nn.Module, flat: Flat) -> None:
    """Write float32[P] into the model, in place. Raises UsageProblem FLV-2213 if P is not the model's."""
    tensors = shared_tensors(model)
    expected = sum(value.numel() for value in tensors.values())
    if flat.ndim != 1 or len(flat) != expected or flat.dtype != np.float32:
        raise UsageProblem(
            "FLV-2213",
            f"the model takes float32[{expected}] parameters, got {flat.dtype}{list(flat.shape)}",
            hint="use the task file that the checkpoint was trained with",
        )
    source = torch.from_numpy(np.ascontiguousarray(flat) if flat.flags.writeable else flat.copy())
    start = 0
    with torch.no_grad():
        for value in tensors.values():
            value.copy_(source[start : start + value.numel()].view(value.shape))
            start += value.numel()


def model_with(task: Task, arrays: Mapping[str, Flat]) -> nn.Module:
    """The task's own model with these weights: float32 arrays by tensor name, of the model's shapes.

    Raises UsageProblem FLV-2213 when they are not this model's.
    """
    model = task.model()
    layout = layout_of(model)
    given = {name: array.shape for name, array in arrays.items()}
    if given != dict(layout):
        raise UsageProblem(
            "FLV-2213",
            f"the weights are of another model: {_difference(given, dict(layout))}",
            where=str(task.path),
            hint="use the task file that the checkpoint was trained with",
        )
    parts = [arrays[name].astype(np.float32).reshape(-1) for name, _ in layout]
    load_parameters(model, np.concatenate(parts))
    return model


def _difference(given: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> str:
    """The first tensor in which two layouts differ."""
    name = next(name for name in [*expected, *given] if given.get(name) != expected.get(name))
    return (
        f"{name} is {given.get(name, 'missing')}, the task's model has {expected.get(name, 'no such tensor')}"
    )


def initial_parameters(task: Task, seed: int) -> Flat:
    """The weights that ``task.model()`` starts from, float32[P].

    The same for the same seed and torch version; the process's own random state is left as it was.
    """
    with seeded(seed):
        return parameters_of(task.model())
