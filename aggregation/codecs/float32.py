"""``float32``: four bytes an element, little-endian, scale 1; nothing is rounded on the device.

Element x adds ``rint(x * (weight * clip * 2**exponent))`` to its sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np

from aggregation.codecs.shape import Codec, Elements, Float32Array, Float64Array, Int8Array, Int64Array
from aggregation.reasons import Because, Reason, because

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aggregation.layout import Layout

WIDTH_BYTES: Final = 4


class Float32(Codec):
    """See the module."""

    name: ClassVar[str] = "float32"
    magnitude_max: ClassVar[int] = 1

    def encode(self, values: Float32Array, rng: np.random.Generator) -> tuple[float, bytes]:  # noqa: ARG002 (exact)
        """See ``Codec``."""
        return 1.0, values.astype("<f4").tobytes()

    def data_bytes(self, elements: int) -> int:
        """See ``Codec``."""
        return WIDTH_BYTES * elements

    def decode(self, data: bytes) -> Float64Array:
        """See ``Codec``."""
        return np.frombuffer(data, dtype="<f4").astype(np.float64)

    def scale_problem(self, scale: float) -> Because | None:
        """See ``Codec``."""
        return None if scale == 1.0 else because(Reason.TENSOR_SCALE, self.name)

    def data_problem(self, data: Sequence[bytes], layout: Layout) -> Because | None:  # noqa: ARG002 (NaN is `is_finite`'s)
        """See ``Codec``."""
        return None

    def view(self, data: Sequence[bytes], layout: Layout) -> Elements:  # noqa: ARG002 (tensors follow one another)
        """See ``Codec``: float32[P], without a copy where there is one tensor."""
        joined = data[0] if len(data) == 1 else b"".join(data)
        return np.frombuffer(joined, dtype="<f4")

    def is_finite(self, elements: Elements) -> bool:
        """See ``Codec``."""
        from aggregation.codecs import kernels

        return bool(kernels.all_finite_float32(elements))

    def squares(self, elements: Elements, layout: Layout) -> list[float]:
        """See ``Codec``."""
        from aggregation.codecs import kernels

        squares = np.empty(len(layout.tensors), dtype=np.float64)
        kernels.squares_float32(elements, layout.starts, squares)
        return squares.tolist()

    def dots(self, elements: Elements, direction: Int8Array, layout: Layout) -> list[float]:
        """See ``Codec``."""
        from aggregation.codecs import kernels

        dots = np.empty(len(layout.tensors), dtype=np.float64)
        kernels.dots_float32(elements, direction, layout.starts, dots)
        return dots.tolist()

    def squares_and_dots(
        self, elements: Elements, direction: Int8Array, layout: Layout
    ) -> tuple[list[float], list[float]]:
        """See ``Codec``."""
        from aggregation.codecs import kernels

        squares, dots = np.empty((2, len(layout.tensors)), dtype=np.float64)
        kernels.squares_and_dots_float32(elements, direction, layout.starts, squares, dots)
        return squares.tolist(), dots.tolist()

    def accumulate_into(
        self,
        sums: Int64Array,
        elements: Elements,
        layout: Layout,  # noqa: ARG002 (every tensor's scale is 1)
        *,
        scales: Sequence[float],  # noqa: ARG002
        nonzero: Sequence[bool],  # noqa: ARG002
        factor: float,
        unit: float,
    ) -> None:
        """See ``Codec``."""
        from aggregation.codecs import kernels

        kernels.accumulate_float32_into(sums, elements, factor * unit)
