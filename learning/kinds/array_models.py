"""What kinds share whose models are numpy arrays by name: one function finds them, all else follows."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import numpy as np
from numpy.typing import NDArray

from aggregation.errors import UsageProblem
from aggregation.layout import BUFFERS
from learning.kinds.protocol import Anatomy, Flat, Model, ModelTensor, Values
from schemas.tensor_files import FLOATS, RawTensor, float32_of

LEARNED: tuple[str, ...] = ("float32", "float64", "float16")
"""Dtypes of numpy that a device may train."""
_RIGHT_FILE = "use the task file that the checkpoint was trained with"

Array = NDArray[np.floating]


class ArrayKind(ABC):
    """A kind whose models hold their state in numpy arrays, which training changes in place or replaces."""

    name: str

    @abstractmethod
    def arrays(self, model: Model) -> Mapping[str, Array]:
        """The floating-point arrays that devices learn together, by name, in a fixed order; the model's own memory."""

    @abstractmethod
    def nothing_to_learn(self, made: Model) -> tuple[str, str]:
        """What is wrong with a model that has no such array, and what to do about it."""

    def check(self, made: Model, where: str) -> None:
        """Refuse a model without learned arrays, of other dtypes, or with NaN in them: FLV-2204."""
        arrays = self.arrays(made)
        if not any(array.size for array in arrays.values()):
            problem, hint = self.nothing_to_learn(made)
            raise UsageProblem("FLV-2204", problem, where=where, hint=hint)
        for name, array in arrays.items():
            if str(array.dtype) not in LEARNED or not array.dtype.isnative:
                raise UsageProblem(
                    "FLV-2204",
                    f"{name} is {array.dtype}; devices train {', '.join(LEARNED)}",
                    where=where,
                    hint=f"convert it in model(): {name}.astype(numpy.float32)",
                )
            if not np.isfinite(array).all():
                raise UsageProblem("FLV-2204", f"{name} starts with NaN or infinite values", where=where)
            if not array.flags.writeable:
                raise UsageProblem(
                    "FLV-2204",
                    f"{name} may not be written",
                    where=where,
                    hint="return a copy of it from model()",
                )

    def source(self, make: Callable[[], Model], first: Model, where: str) -> Callable[[], Model]:
        """Deep copies of what ``make`` made: arrays have no hooks and share nothing."""
        del make, where
        return lambda: copy.deepcopy(first)

    def statistics(self, model: Model) -> frozenset[str]:
        """Which of the arrays are running statistics, and no weights: none."""
        del model
        return frozenset()

    def anatomy(self, model: Model) -> Anatomy:
        """Every learned array, statistics behind the weights; nothing is tied or frozen."""
        statistics = self.statistics(model)
        weights, buffers = [], []
        for name, array in self.arrays(model).items():
            if array.size and name in statistics:
                positive = name.endswith("_var") and bool((array >= 0).all())
                buffers.append(ModelTensor(name, array.shape, BUFFERS, str(array.dtype), positive))
            elif array.size:
                weights.append(ModelTensor(name, array.shape, dtype=str(array.dtype)))
        return Anatomy(self.name, (*weights, *buffers), {}, {})

    def load(self, model: Model, anatomy: Anatomy, flat: Flat) -> None:
        """Write float32[P] into the arrays, in place; FLV-2213, FLV-2220."""
        layout = anatomy.layout
        if flat.shape != (layout.parameters,) or flat.dtype != np.float32:
            raise UsageProblem(
                "FLV-2213",
                f"the model takes float32[{layout.parameters}] parameters, got {flat.dtype}{list(flat.shape)}",
                hint=_RIGHT_FILE,
            )
        arrays = self.arrays(model)
        for name, shape in zip(layout.names, layout.shapes, strict=True):
            array = arrays.get(name)
            if array is None or array.shape != shape:
                got = "no such array" if array is None else str(array.shape)
                raise UsageProblem(
                    "FLV-2213",
                    f"the weights are of another model: {name} is {shape}, the task's model has {got}",
                    hint=_RIGHT_FILE,
                )
        for start, name, shape in zip(layout.starts[:-1], layout.names, layout.shapes, strict=True):
            target = arrays[name]
            part = flat[start : start + target.size].reshape(shape)
            with np.errstate(over="ignore"):
                target[...] = part
            if (
                target.dtype.itemsize < part.dtype.itemsize
                and (np.isfinite(part) & ~np.isfinite(target)).any()
            ):
                raise UsageProblem(
                    "FLV-2220",
                    f"{name} cannot be held in {target.dtype}: it has values up to {np.abs(part).max():.4g}",
                    hint="make it float32 in model(), or lower the learning rates; either is a new task",
                )

    def load_state(self, model: Model, state: Mapping[str, RawTensor]) -> None:
        """Write a whole state into the arrays, in place; FLV-2213."""
        arrays = {name: array for name, array in self.arrays(model).items() if array.size}
        for name in [*state, *arrays]:
            raw, array = state.get(name), arrays.get(name)
            if raw is None or array is None or raw.shape != array.shape or raw.dtype not in FLOATS:
                given = "missing" if raw is None else str(raw.shape)
                got = "no such array" if array is None else str(array.shape)
                raise UsageProblem(
                    "FLV-2213",
                    f"the weights are of another model: {name} is {given}, the task's model has {got}",
                    hint=_RIGHT_FILE,
                )
        for name, array in arrays.items():
            array[...] = float32_of(state[name])

    def values(self, model: Model, anatomy: Anatomy) -> Values:
        """A copy of what the arrays hold, in layout order, each in C order."""
        arrays = self.arrays(model)
        chosen = [arrays[tensor.name] for tensor in anatomy.tensors]
        dtype = np.float64 if any(array.dtype == np.float64 for array in chosen) else np.float32
        return np.concatenate([array.reshape(-1).astype(dtype) for array in chosen])

    def form(self, model: Model) -> Mapping[str, str]:
        """Dtype and shape of every learned array."""
        return {
            name: f"{array.dtype}{list(array.shape)}"
            for name, array in self.arrays(model).items()
            if array.size
        }

    def moved(self, model: Model, anatomy: Anatomy) -> str:
        """Nothing is frozen."""
        del model, anatomy
        return ""

    def mode(self, model: Model, *, training: bool) -> AbstractContextManager[object]:
        """There is no difference."""
        del model, training
        return nullcontext()
