"""The one shape of a codec: what a device encodes, what the bytes may be, and what the fold makes of them.

A device needs the first half only, and numpy only. The loops that the fold runs are compiled by numba, so the
second half imports ``kernels`` where it uses them: who only encodes does not load a compiler.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aggregation.layout import Layout
    from aggregation.reasons import Because

Int8Array = npt.NDArray[np.int8]
Int64Array = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Elements = npt.NDArray[Any]
"""A delta's elements as the codec's loops take them: one flat array of P, of a dtype that the codec chooses."""


class Codec(ABC):
    """One codec. An element is ``scale`` of its tensor times what the bytes hold (its *level*).

    ``magnitude_max`` is the largest absolute level that the bytes can hold where levels are integers, else 1: a sum's
    element is off by at most so many half units of 2**-exponent for each update in it.
    """

    name: ClassVar[str]
    magnitude_max: ClassVar[int]

    # -- on the device

    @abstractmethod
    def encode(self, values: Float32Array, rng: np.random.Generator) -> tuple[float, bytes]:
        """The scale and the bytes of one tensor's ``values`` float32[n], n at least 1.

        ``rng`` supplies stochastic rounding, one draw an element; a codec that rounds nothing draws nothing.
        """

    # -- the bytes

    @abstractmethod
    def data_bytes(self, elements: int) -> int:
        """How many bytes a tensor of so many elements takes."""

    @abstractmethod
    def decode(self, data: bytes) -> Float64Array:
        """The levels in one tensor's bytes, float64, padding included. For whoever looks on; the fold does not use it.

        Raises ValueError for bytes that are not a whole number of elements.
        """

    @abstractmethod
    def scale_problem(self, scale: float) -> Because | None:
        """What is wrong with a finite scale that is not negative; None for one that may stand in an update."""

    @abstractmethod
    def data_problem(self, data: Sequence[bytes], layout: Layout) -> Because | None:
        """What is wrong with the tensors' bytes, of the right lengths; None where each is the only encoding."""

    # -- in the fold

    @abstractmethod
    def view(self, data: Sequence[bytes], layout: Layout) -> Elements:
        """Join the tensors' bytes into the P elements of ``layout``; lengths and bytes were checked before."""

    @abstractmethod
    def is_finite(self, elements: Elements) -> bool:
        """Whether no element is NaN or infinite."""

    @abstractmethod
    def squares(self, elements: Elements, layout: Layout) -> list[int] | list[float]:
        """Σ level² of each tensor: exact integers, or float64 sums in element order."""

    @abstractmethod
    def dots(self, elements: Elements, direction: Int8Array, layout: Layout) -> list[int] | list[float]:
        """Σ level · direction of each tensor, ``direction`` int8[P]; exact integers, or float64 as in ``squares``."""

    def squares_and_dots(
        self, elements: Elements, direction: Int8Array, layout: Layout
    ) -> tuple[list[int] | list[float], list[int] | list[float]]:
        """``squares`` and ``dots``, which a codec may find in one pass over the elements."""
        return self.squares(elements, layout), self.dots(elements, direction, layout)

    @abstractmethod
    def accumulate_into(
        self,
        sums: Int64Array,
        elements: Elements,
        layout: Layout,
        *,
        scales: Sequence[float],
        nonzero: Sequence[bool],
        factor: float,
        unit: float,
    ) -> None:
        """Add ``factor * scale * level`` to ``sums`` int64[P], in ``unit`` (2**exponent) units to 1.0.

        ``nonzero[t]`` is false where tensor t holds zeros only: its scale, however large, counts for nothing.
        """
