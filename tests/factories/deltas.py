"""Random deltas of a model, and a delta as it travels: the same bits on every machine and in every release."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from aggregation import codecs
from tests.factories.task import LAYOUT

if TYPE_CHECKING:
    from aggregation.codecs import CodecName, EncodedTensor
    from aggregation.layout import Layout


class HashRandom:
    """Uniform numbers in [0, 1) out of SHA-256: unlike numpy's generators, the same in every release for
    ever."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._blocks = 0

    def random(self, size: int) -> npt.NDArray[np.float64]:
        """float64[size], multiples of 2**-32."""
        data = b""
        while len(data) < 4 * size:
            data += hashlib.sha256(f"{self._seed}/{self._blocks}".encode()).digest()
            self._blocks += 1
        return np.frombuffer(data[: 4 * size], dtype="<u4") / 2.0**32


def delta(seed: int, layout: Layout = LAYOUT, *, size: float = 0.1) -> npt.NDArray[np.float32]:
    """A random delta float32[P]; where an element may not be below 0, it is not."""
    # Four uniform numbers add up to something near a bell curve, with + and * only: the same bits everywhere.
    parts = HashRandom(seed).random(4 * layout.parameters).reshape(4, -1)
    centred = parts[0] + parts[1] + parts[2] + parts[3] - 2.0
    values: npt.NDArray[np.float32] = (centred * (size * 1.7320508)).astype(np.float32)
    edges = layout.starts.tolist()
    for t, spec in enumerate(layout.tensors):
        if spec.nonnegative:
            values[edges[t] : edges[t + 1]] = np.abs(values[edges[t] : edges[t + 1]])
    return values


def encoded(
    values: npt.NDArray[np.float32], codec: CodecName = "int8", seed: int = 0, layout: Layout = LAYOUT
) -> list[EncodedTensor]:
    """A delta as it travels."""
    return codecs.encode_update(values, layout, codec, cast("np.random.Generator", HashRandom(seed)))
