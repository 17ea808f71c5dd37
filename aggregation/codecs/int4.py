"""``int4``: two elements a byte, levels -7 … 7, a scale a tensor, stochastic rounding on the device.

Element 2i of a tensor stands in the low four bits of its byte i, element 2i + 1 in the high four, each in two's
complement. A tensor of an odd number of elements ends in four bits of padding, which are 0. Level -8 is
not used: so the levels are symmetric.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np

from aggregation.codecs.quantized import QuantizedCodec
from aggregation.codecs.shape import Elements, Float64Array, Int8Array
from aggregation.reasons import Because, Reason, because

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aggregation.layout import Layout

LEVELS: Final = 7


class Int4(QuantizedCodec):
    """See the module. The fold unpacks it to int8[P] once."""

    name: ClassVar[str] = "int4"
    levels: ClassVar[int] = LEVELS
    magnitude_max: ClassVar[int] = LEVELS

    def pack(self, q: Int8Array) -> bytes:
        """See ``QuantizedCodec``."""
        halves = np.zeros(2 * self.data_bytes(q.size), dtype=np.uint8)
        halves[: q.size] = q.view(np.uint8) & 0x0F
        packed: bytes = (halves[0::2] | (halves[1::2] << 4)).tobytes()
        return packed

    def data_bytes(self, elements: int) -> int:
        """See ``Codec``."""
        return (elements + 1) // 2

    def decode(self, data: bytes) -> Float64Array:
        """See ``Codec``."""
        packed = np.frombuffer(data, dtype=np.uint8)
        halves = np.stack((packed & 0x0F, packed >> 4), axis=1).reshape(-1)
        return ((halves ^ 8).astype(np.float64)) - 8.0

    def data_problem(self, data: Sequence[bytes], layout: Layout) -> Because | None:
        """See ``Codec``."""
        from aggregation.codecs import kernels

        packed = np.frombuffer(b"".join(data), dtype=np.uint8)
        wrong = int(kernels.first_wrong_int4(packed, layout.starts))
        if wrong < 0:
            return None
        return because(Reason.TENSOR_LEVEL, layout.names[wrong], -(LEVELS + 1))

    def view(self, data: Sequence[bytes], layout: Layout) -> Elements:
        """See ``Codec``: int8[P]."""
        from aggregation.codecs import kernels

        q = np.empty(layout.parameters, dtype=np.int8)
        kernels.unpack_int4_into(q, np.frombuffer(b"".join(data), dtype=np.uint8), layout.starts)
        return q
