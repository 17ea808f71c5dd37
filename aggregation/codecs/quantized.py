"""What codecs of small integers share: stochastic rounding on the device, one integer coefficient a tensor in the fold.

Element q of tensor t adds ``q * c_t`` to its sum, with ``c_t = rint(weight * clip * scale_t * 2**exponent)``.

Stochastic rounding is unbiased: E[q * scale] = x (Alistarh et al. 2017, QSGD, section 3.1).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from aggregation.codecs.shape import Codec, Elements, Float32Array, Int8Array, Int64Array

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aggregation.layout import Layout
    from aggregation.reasons import Because


class QuantizedCodec(Codec):
    """Levels -``levels`` … ``levels`` and a scale a tensor, max|x| / ``levels``; the fold sees them as int8[P]."""

    levels: ClassVar[int]

    @abstractmethod
    def pack(self, q: Int8Array) -> bytes:
        """The bytes of one tensor's levels, int8[n]."""

    def encode(self, values: Float32Array, rng: np.random.Generator) -> tuple[float, bytes]:
        """See ``Codec``."""
        scale = float(np.max(np.abs(values))) / self.levels
        if not scale > 0.0:
            return scale, bytes(self.data_bytes(values.size))
        # x lies between floor(x) and floor(x)+1: it goes up with the probability of its fractional part.
        q = np.floor(values.astype(np.float64) / scale + rng.random(values.size))
        return scale, self.pack(np.clip(q, -self.levels, self.levels).astype(np.int8))

    def scale_problem(self, scale: float) -> Because | None:  # noqa: ARG002 (any scale will do)
        """See ``Codec``."""
        return None

    def is_finite(self, elements: Elements) -> bool:  # noqa: ARG002 (integers are)
        """See ``Codec``."""
        return True

    def squares(self, elements: Elements, layout: Layout) -> list[int]:
        """See ``Codec``."""
        from aggregation.codecs import kernels

        squares = np.empty(len(layout.tensors), dtype=np.int64)
        kernels.squares_int8(elements, layout.starts, squares)
        return squares.tolist()

    def dots(self, elements: Elements, direction: Int8Array, layout: Layout) -> list[int]:
        """See ``Codec``."""
        from aggregation.codecs import kernels

        dots = np.empty(len(layout.tensors), dtype=np.int64)
        kernels.dots_int8(elements, direction, layout.starts, dots)
        return dots.tolist()

    def squares_and_dots(
        self, elements: Elements, direction: Int8Array, layout: Layout
    ) -> tuple[list[int], list[int]]:
        """See ``Codec``."""
        from aggregation.codecs import kernels

        squares, dots = np.empty((2, len(layout.tensors)), dtype=np.int64)
        kernels.squares_and_dots_int8(elements, direction, layout.starts, squares, dots)
        return squares.tolist(), dots.tolist()

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
        """See ``Codec``."""
        from aggregation.codecs import kernels

        coefficients = np.array(
            [
                round(factor * scale * unit) if anything else 0
                for scale, anything in zip(scales, nonzero, strict=True)
            ],
            dtype=np.int64,
        )
        kernels.accumulate_int8_into(sums, elements, layout.starts, coefficients)
