"""Which partition a device belongs to.

Kafka's default partitioner, murmur2 of the key (the device id in UTF-8).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

_MASK: Final = 0xFFFFFFFF
_M = 0x5BD1E995
_SEED: Final = 0x9747B28C
_CACHED_DEVICES_MAX: Final = 65_536


def murmur2(data: bytes) -> int:
    """The 32-bit murmur2 hash of ``data``, unsigned, as ``org.apache.kafka.common.utils.Utils`` has it."""
    h = (_SEED ^ len(data)) & _MASK
    whole = len(data) & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * _M & _MASK
        k = (k ^ (k >> 24)) * _M & _MASK
        h = (h * _M & _MASK) ^ k
    if whole != len(data):
        h = (h ^ int.from_bytes(data[whole:], "little")) * _M & _MASK
    h = (h ^ (h >> 13)) * _M & _MASK
    return h ^ (h >> 15)


@lru_cache(maxsize=_CACHED_DEVICES_MAX)
def partition_of(device_id: str, partitions: int) -> int:
    """The partition, 0 to ``partitions`` - 1, in which every update of ``device_id`` has to stand."""
    return (murmur2(device_id.encode()) & 0x7FFFFFFF) % partitions
