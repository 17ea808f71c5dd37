"""Which bucket an update is added to.

It follows from the partition's current model and the device alone. So nobody can choose a bucket before the version is
made, one device is in one bucket within a version, and devices are mixed anew in each (the idea of Karimireddy et al.
2022, "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", with a hash for its random order).
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

BUCKETS_MAX: Final = 32
"""Of a window. Each takes as much memory as the plain sums."""
_PREFIX: Final = b"fluvial/bucket/v1\0"
_DRAWN_BYTES: Final = 8


class Bucket(NamedTuple):
    """What stands in one bucket of a window: so many updates, which weigh so much in units of 1/65536."""

    accepted: int = 0
    weight: int = 0

    def plus(self, weight: int) -> Bucket:
        """With one update more."""
        return Bucket(self.accepted + 1, self.weight + weight)


def bucket_of(model_sha256: str, device_id: str, buckets: int) -> int:
    """The bucket, 0 to ``buckets`` - 1, of a device's update while the model of that hash (hex) is the newest.

    The first eight bytes, big-endian, of SHA-256("fluvial/bucket/v1" 0 hash 0 device id), modulo ``buckets``.
    """
    if buckets == 1:
        return 0
    drawn = hashlib.sha256(_PREFIX + model_sha256.encode("ascii") + b"\0" + device_id.encode()).digest()
    return int.from_bytes(drawn[:_DRAWN_BYTES], "big") % buckets
