"""The tensor layout of a task: which tensors, in which order, of which shapes.

It never changes within a task.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from aggregation.errors import UsageProblem

if TYPE_CHECKING:
    from collections.abc import Iterable

PARAMETERS_MAX = 1 << 31
FORBIDDEN_NAMES = frozenset({"", "__metadata__"})
"""Names that a tensor cannot have; the second is what a safetensors file calls its own header entry."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor's name and shape. A scalar has the shape ``()`` and the size 1."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Layout:
    """The tensors of a model in their fixed order.

    A model, a delta or a window's sums are one flat array of ``parameters`` elements: the tensors in this
    order, each in C order. Tensor *t* is ``flat[starts[t]:starts[t + 1]]``.
    """

    tensors: tuple[TensorSpec, ...]
    starts: npt.NDArray[np.int64] = field(init=False, repr=False, compare=False)
    names: tuple[str, ...] = field(init=False, repr=False, compare=False)
    shapes: tuple[tuple[int, ...], ...] = field(init=False, repr=False, compare=False)
    parameters: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        sizes = [tensor.size for tensor in self.tensors]
        starts = np.zeros(len(sizes) + 1, dtype=np.int64)
        np.cumsum(sizes, out=starts[1:])
        object.__setattr__(self, "starts", starts)
        object.__setattr__(self, "names", tuple(tensor.name for tensor in self.tensors))
        object.__setattr__(self, "shapes", tuple(tensor.shape for tensor in self.tensors))
        object.__setattr__(self, "parameters", int(starts[-1]))

    @classmethod
    def of(cls, tensors: Iterable[tuple[str, tuple[int, ...]]]) -> Layout:
        """Build and check a layout; raises ``UsageProblem`` (FLV-2004) when it cannot be a model's."""
        specs = tuple(TensorSpec(name, tuple(int(n) for n in shape)) for name, shape in tensors)
        problem = _problem_with(specs)
        if problem:
            raise UsageProblem("FLV-2004", f"the model's tensor layout is refused: {problem}")
        return cls(specs)


def _problem_with(specs: tuple[TensorSpec, ...]) -> str:
    if not specs:
        return "it has no tensors"
    names = [spec.name for spec in specs]
    for spec in specs:
        if spec.name in FORBIDDEN_NAMES:
            return f"a tensor may not be called {spec.name!r}"
        if names.count(spec.name) > 1:
            return f"two tensors are called {spec.name!r}"
        if any(n < 1 for n in spec.shape):
            return f"tensor {spec.name!r} has the shape {spec.shape}; every dimension must be at least 1"
    total = sum(spec.size for spec in specs)
    if total > PARAMETERS_MAX:
        return f"it has {total} parameters, the limit is {PARAMETERS_MAX}"
    return ""
