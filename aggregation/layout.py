"""The tensor layout of a task: which tensors, in which order, of which shapes.

It never changes within a task. Its tensors stand in named sections, which differ in what is done with them.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from aggregation.errors import UsageProblem

if TYPE_CHECKING:
    from collections.abc import Iterable

PARAMETERS_MAX: Final = 1 << 31
FORBIDDEN_NAMES: Final = frozenset({"", "__metadata__"})
"""Names that a tensor cannot have; the second is what a safetensors file calls its own header entry."""


WEIGHTS: Final = "weights"
"""Trainable parameters: clipped, scored, and moved by the server optimizer."""
BUFFERS: Final = "buffers"
"""Running statistics of a model, such as a batch norm's mean: no delta is taken of them, versions hold their mean."""
CONTROL: Final = "control"
"""SCAFFOLD's control variates, one for each tensor of the weights: they travel as deltas and are clipped by a norm of
their own; no score looks at them, and no server optimizer moves them."""
SECTIONS: Final = (WEIGHTS, BUFFERS, CONTROL)
"""What a tensor may be, in the order in which sections stand in a layout."""
DTYPE: Final = "float32"
"""What every element travels and is kept as, whatever a device holds it in."""
CONTROL_PREFIX: Final = "control:"
"""What a control variate's name begins with; the rest is that of its tensor of the weights."""
VALUE_DIGITS: Final = 10
"""How many int64 of a window's sums one element of ``buffers`` takes, see ``codecs.values``."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor's name, shape and section. A scalar has the shape ``()`` and the size 1.

    ``nonnegative``: an element below 0 makes no sense, as in a variance. Of buffers only: weights travel as deltas.
    """

    name: str
    shape: tuple[int, ...]
    section: str = WEIGHTS
    nonnegative: bool = False

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


TensorLike = TensorSpec | tuple[str, tuple[int, ...]] | tuple[str, tuple[int, ...], str]


@dataclass(frozen=True, slots=True)
class Layout:
    """The tensors of a model in their fixed order.

    A model is one flat array of ``parameters`` elements: the tensors in this order, each in C order. Tensor *t* is
    ``flat[starts[t]:starts[t + 1]]``, and every section is one range. ``trainable`` is the layout of the weights, which
    stand first, ``buffers`` that of the running statistics behind them, and ``control`` that of the control variates,
    which stand last: what is scored and moved by the optimizer has the layout ``trainable``. Where there is nothing
    else, that is this layout itself. ``model_parameters``: elements of weights and buffers, which a device's model has.

    A window's sums are ``sum_elements`` int64: one a weight, then ``VALUE_DIGITS`` an element of ``buffers``, then one
    an element of ``control``.
    """

    tensors: tuple[TensorSpec, ...]
    starts: npt.NDArray[np.int64] = field(init=False, repr=False, compare=False)
    names: tuple[str, ...] = field(init=False, repr=False, compare=False)
    shapes: tuple[tuple[int, ...], ...] = field(init=False, repr=False, compare=False)
    parameters: int = field(init=False, repr=False, compare=False)
    trainable: Layout = field(init=False, repr=False, compare=False)
    buffers: Layout = field(init=False, repr=False, compare=False)
    control: Layout = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        sizes = [tensor.size for tensor in self.tensors]
        starts = np.zeros(len(sizes) + 1, dtype=np.int64)
        np.cumsum(sizes, out=starts[1:])
        object.__setattr__(self, "starts", starts)
        object.__setattr__(self, "names", tuple(tensor.name for tensor in self.tensors))
        object.__setattr__(self, "shapes", tuple(tensor.shape for tensor in self.tensors))
        object.__setattr__(self, "parameters", int(starts[-1]))
        for name, section in (("trainable", WEIGHTS), ("buffers", BUFFERS), ("control", CONTROL)):
            own = tuple(tensor for tensor in self.tensors if tensor.section == section)
            object.__setattr__(self, name, self if len(own) == len(self.tensors) else Layout(own))

    @property
    def sum_elements(self) -> int:
        """Elements of a window's sums in one bucket."""
        return self.sum_elements_of(1)

    def sum_elements_of(self, buckets: int) -> int:
        """Elements of a window's sums: the weights', bucket after bucket, then the buffers' and control's, once."""
        return (
            buckets * self.trainable.parameters
            + VALUE_DIGITS * self.buffers.parameters
            + self.control.parameters
        )

    @property
    def model_parameters(self) -> int:
        """Elements of weights and buffers: what a device's model has; the rest of a version is control variates."""
        return self.parameters - self.control.parameters

    def without_control(self) -> Layout:
        """The layout of weights and buffers alone."""
        if not self.control.tensors:
            return self
        return Layout(tuple(tensor for tensor in self.tensors if tensor.section != CONTROL))

    def with_control(self) -> Layout:
        """This layout, of weights and buffers, with a control variate for each tensor of the weights.

        Raises ``UsageProblem`` (FLV-2004) where a tensor is called like one.
        """
        variates = (
            TensorSpec(CONTROL_PREFIX + spec.name, spec.shape, CONTROL) for spec in self.trainable.tensors
        )
        return Layout.of((*self.tensors, *variates))

    @classmethod
    def of(cls, tensors: Iterable[TensorLike]) -> Layout:
        """Build and check a layout of (name, shape), (name, shape, section) or specs; without one, it is ``weights``.

        Raises ``UsageProblem`` (FLV-2004) when it cannot be a model's.
        """
        specs = tuple(_spec_of(tensor) for tensor in tensors)
        problem = _problem_with(specs)
        if problem:
            raise UsageProblem("FLV-2004", f"the model's tensor layout is refused: {problem}")
        return cls(specs)

    def section(self, name: str) -> range:
        """The flat indices of a section's elements; empty where the model has none of them.

        KeyError for a name that is not in ``SECTIONS``.
        """
        if name not in SECTIONS:
            raise KeyError(name)
        places = [SECTIONS.index(tensor.section) for tensor in self.tensors]
        wanted = SECTIONS.index(name)
        begin, end = bisect_left(places, wanted), bisect_right(places, wanted)
        return range(int(self.starts[begin]), int(self.starts[end]))


def _spec_of(tensor: TensorLike) -> TensorSpec:
    if isinstance(tensor, TensorSpec):
        return tensor
    name, shape = tensor[:2]
    section = tensor[2] if len(tensor) > 2 else WEIGHTS  # noqa: PLR2004 (it may be left out)
    return TensorSpec(name, tuple(int(n) for n in shape), section)


def _problem_with(specs: tuple[TensorSpec, ...]) -> str:
    if not specs:
        return "it has no tensors"
    names: set[str] = set()
    place = 0
    for spec in specs:
        if spec.name in FORBIDDEN_NAMES:
            return f"a tensor may not be called {spec.name!r}"
        if spec.name in names:
            return f"two tensors are called {spec.name!r}"
        names.add(spec.name)
        if any(n < 1 for n in spec.shape):
            return f"tensor {spec.name!r} has the shape {spec.shape}; every dimension must be at least 1"
        if spec.section not in SECTIONS:
            return f"tensor {spec.name!r} is of the section {spec.section!r}; there are {', '.join(SECTIONS)}"
        if SECTIONS.index(spec.section) < place:
            return f"tensor {spec.name!r} of the section {spec.section!r} stands behind a later section's"
        place = SECTIONS.index(spec.section)
        if spec.nonnegative and spec.section != BUFFERS:
            return f"tensor {spec.name!r} of the section {spec.section!r} is said to be nonnegative"
    total = sum(spec.size for spec in specs)
    if total > PARAMETERS_MAX:
        return f"it has {total} parameters, the limit is {PARAMETERS_MAX}"
    return _problem_with_control(specs)


def _problem_with_control(specs: tuple[TensorSpec, ...]) -> str:
    """Control variates are one for each tensor of the weights, in their order, or none."""
    control = [spec for spec in specs if spec.section == CONTROL]
    if not control:
        return ""
    taken = next((one.name for one in specs if one.section != CONTROL and is_control_name(one.name)), "")
    if taken:
        return f"tensor {taken!r} is called like a control variate"
    wanted = [(CONTROL_PREFIX + one.name, one.shape) for one in specs if one.section == WEIGHTS]
    if [(one.name, one.shape) for one in control] != wanted:
        return f"its section {CONTROL!r} does not have one tensor of the same shape for each of {WEIGHTS!r}"
    return ""


def is_control_name(name: str) -> bool:
    """Whether a tensor is called like a control variate."""
    return name.startswith(CONTROL_PREFIX)
