"""What Fluvial has to know about a model of any library. No torch here, and nothing else that takes long to import.

A *kind* is a library's way of making models: ``torch`` (any ``nn.Module``), and others. One object with the methods of
``Kind`` says how a model of that library becomes one flat vector and how it is made from one; local training,
evaluation and the command line do the same with all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from aggregation.layout import WEIGHTS, Layout, TensorSpec
from schemas.tensor_files import RawTensor

Flat = NDArray[np.float32]
Values = NDArray[np.float32] | NDArray[np.float64]
Model = Any
"""A model of some library: only its kind looks into it."""

DTYPES: Final = ("float32", "float64", "float16", "bfloat16")
"""What a device may hold a tensor of the layout in. It travels and is averaged as float32."""


@dataclass(frozen=True, slots=True)
class ModelTensor:
    """One tensor that devices learn together.

    section: of ``aggregation.layout``. dtype: one of ``DTYPES``, what the model holds it in. nonnegative: of
    buffers; no element of it may be below 0.
    """

    name: str
    shape: tuple[int, ...]
    section: str = WEIGHTS
    dtype: str = "float32"
    nonnegative: bool = False


@dataclass(frozen=True, eq=False)
class Anatomy:
    """What a task's model is made of.

    tensors: of the model, in the layout's order. frozen: what else the model's state has, and no device changes, by
    name. tied: names that are another tensor of these two, by that tensor's name. control: whether its devices train
    with control variates: then the task's layout has one for each of the weights, behind the model's tensors.
    """

    kind: str
    tensors: tuple[ModelTensor, ...]
    tied: Mapping[str, str]
    frozen: Mapping[str, RawTensor]
    control: bool = False

    @cached_property
    def layout(self) -> Layout:
        """The model's layout as the pure core wants it. UsageProblem FLV-2004 when it cannot be a model's."""
        return Layout.of(
            TensorSpec(tensor.name, tensor.shape, tensor.section, tensor.nonnegative)
            for tensor in self.tensors
        )

    @cached_property
    def task_layout(self) -> Layout:
        """The layout of the task: the model's, and behind it the control variates where there are some."""
        return self.layout.with_control() if self.control else self.layout

    def model_of(self, flat: Flat) -> Flat:
        """The model's part of a version, float32[P]: without control variates."""
        whole = self.control and flat.shape == (self.task_layout.parameters,)
        return flat[: self.layout.parameters] if whole else flat


class Kind(Protocol):
    """A library's models. None of its methods draws random numbers, but for those that ``make`` draws."""

    @property
    def name(self) -> str:
        """As genesis documents say it."""
        ...

    def check(self, made: Model, where: str) -> None:
        """Refuse a model that cannot be learned together: UsageProblem FLV-2204. ``where`` is the task file."""
        ...

    def source(self, make: Callable[[], Model], first: Model, where: str) -> Callable[[], Model]:
        """How to get models in the state in which ``make`` makes them, whatever was done to earlier ones.

        ``first`` is what ``make`` returned and nobody has touched; it stays untouched. UsageProblem FLV-2221 when
        ``make`` returns what it has returned before and that cannot be copied.
        """
        ...

    def anatomy(self, model: Model) -> Anatomy:
        """What this model is made of, as a new task would have it."""
        ...

    def load(self, model: Model, anatomy: Anatomy, flat: Flat) -> None:
        """Write float32[P] and what is frozen into the model, in place.

        UsageProblem FLV-2213 when P or a tensor is not the model's; then the model is as it was. A tensor of another
        dtype takes the nearest values that it can hold; FLV-2220 when one of these is infinite.
        """
        ...

    def load_state(self, model: Model, state: Mapping[str, RawTensor]) -> None:
        """Write a whole state into the model, by name, in place; a tied tensor may stand there once or under each name.

        UsageProblem FLV-2213 when it is another model's; then the model is as it was. What only counts may be missing.
        """
        ...

    def values(self, model: Model, anatomy: Anatomy) -> Values:
        """A copy of what the model holds, exactly: float32[P], or float64[P] where a tensor has more digits."""
        ...

    def form(self, model: Model) -> Mapping[str, Hashable]:
        """Names, shapes and dtypes of all that could be learned, in words that can be compared and shown."""
        ...

    def moved(self, model: Model, anatomy: Anatomy) -> str:
        """The first float tensor that is no longer as ``anatomy.frozen`` says: its name, or ""."""
        ...

    def mode(self, model: Model, *, training: bool) -> AbstractContextManager[object]:
        """What the library distinguishes between training and evaluation; in force until it is left."""
        ...
