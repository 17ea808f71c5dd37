"""``int8``: one byte an element, levels -127 … 127, a scale a tensor, stochastic rounding on the device."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np

from aggregation.codecs.quantized import QuantizedCodec
from aggregation.codecs.shape import Elements, Float64Array, Int8Array

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aggregation.layout import Layout
    from aggregation.reasons import Because

LEVELS: Final = 127


class Int8(QuantizedCodec):
    """See the module. A device never writes -128, but a byte can hold it, and it always counted as what it is."""

    name: ClassVar[str] = "int8"
    levels: ClassVar[int] = LEVELS
    magnitude_max: ClassVar[int] = 128

    def pack(self, q: Int8Array) -> bytes:
        """See ``QuantizedCodec``."""
        return q.tobytes()

    def data_bytes(self, elements: int) -> int:
        """See ``Codec``."""
        return elements

    def decode(self, data: bytes) -> Float64Array:
        """See ``Codec``."""
        return np.frombuffer(data, dtype=np.int8).astype(np.float64)

    def data_problem(self, data: Sequence[bytes], layout: Layout) -> Because | None:  # noqa: ARG002 (any bytes will do)
        """See ``Codec``."""
        return None

    def view(self, data: Sequence[bytes], layout: Layout) -> Elements:  # noqa: ARG002 (tensors follow one another)
        """See ``Codec``: int8[P], without a copy where there is one tensor."""
        joined = data[0] if len(data) == 1 else b"".join(data)
        return np.frombuffer(joined, dtype=np.int8)
