"""A device's partition is Kafka's: murmur2 of its id, as the Java client computes it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregation.partitioning import murmur2, partition_of

# From org.apache.kafka.common.utils.UtilsTest.testMurmur2: signed 32-bit.
KAFKA_VECTORS = {
    "21": -973932308,
    "foobar": -790332482,
    "a-little-bit-long-string": -985981536,
    "a-little-bit-longer-string": -1486304829,
    "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    "abc": 479470107,
}


@pytest.mark.parametrize(("text", "expected"), KAFKA_VECTORS.items())
def test_murmur2_gives_what_kafkas_own_test_expects(text: str, expected: int) -> None:
    assert murmur2(text.encode()) == expected % (1 << 32)


@given(st.text(max_size=40), st.integers(1, 1000))
def test_every_device_has_one_partition_in_range(device_id: str, partitions: int) -> None:
    assert 0 <= partition_of(device_id, partitions) < partitions
    assert partition_of(device_id, partitions) == (murmur2(device_id.encode()) & 0x7FFFFFFF) % partitions


@given(st.binary(max_size=64))
def test_murmur2_stays_within_32_bits(data: bytes) -> None:
    assert 0 <= murmur2(data) < 1 << 32
