"""Batches that aiokafka itself would choke on: every codec, bombs, and header names that are not UTF-8."""

from __future__ import annotations

import struct

import cramjam
import psutil
import pytest
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from aggregation.policy import UPDATE_BYTES_LIMIT
from backends.kafka.faust import bounded_batches
from backends.kafka.faust.bounded_batches import (
    BATCH_UNPACKED_BYTES_MAX,
    FETCH_UNPACKED_BYTES_MAX,
    OVERSIZED,
    BoundedRecords,
)

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
HEADER = 61
MEMORY_MARGIN_BYTES = 160_000_000


def batch(
    values: list[bytes | None], codec: str = "none", header: str = "", base_offset: int = 40
) -> bytearray:
    builder = DefaultRecordBatchBuilder(2, CODECS[codec], 0, -1, -1, -1, 1 << 30)
    for offset, value in enumerate(values):
        headers = [(header, b"")] if header else []
        builder.append(offset, timestamp=1000 + offset, key=b"k", value=value, headers=headers)
    built = bytearray(builder.build())
    struct.pack_into(">q", built, 0, base_offset)
    return built


def encoded(built: bytearray) -> bytes:
    """With the checksum of what stands there."""
    struct.pack_into(">I", built, 17, calc_crc32c(bytes(built[21:])))
    return bytes(built)


def read(data: bytes) -> list[tuple[int, bytes | None]]:
    records = BoundedRecords(data)
    found = []
    while records.has_next():
        one = records.next_batch()
        assert one.validate_crc()
        found += [(record.offset, record.value) for record in one]
    return found


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_is_read_record_by_record(codec: str) -> None:
    data = encoded(batch([b"one", None, b"", b"x" * 5000], codec)) + encoded(batch([b"next"], codec, "", 44))
    assert read(data) == [(40, b"one"), (41, None), (42, b""), (43, b"x" * 5000), (44, b"next")]


@pytest.mark.parametrize("codec", CODECS)
def test_times_and_keys_are_aiokafkas_own(codec: str) -> None:
    data = encoded(batch([b"one", b"two"], codec))
    ours = list(BoundedRecords(data).next_batch())
    native = list(DefaultRecordBatch(encoded(batch([b"one", b"two"]))))
    assert [(r.offset, r.timestamp, r.timestamp_type, r.key, r.value) for r in ours] == [
        (r.offset, r.timestamp, r.timestamp_type, r.key, r.value) for r in native
    ]


def test_the_framing_of_the_java_library_is_snappy_too() -> None:
    plain = batch([b"one", b"two" * 1000])
    body = bytes(plain[HEADER:])
    framed = b"\x82SNAPPY\0" + struct.pack(">ii", 1, 1)
    for part in (body[:7], body[7:]):
        block = bytes(cramjam.snappy.compress_raw(part))
        framed += struct.pack(">i", len(block)) + block
    packed = plain[:HEADER] + framed
    struct.pack_into(">i", packed, 8, len(packed) - 12)
    struct.pack_into(">h", packed, 21, CODECS["snappy"])
    assert read(encoded(packed)) == [(40, b"one"), (41, b"two" * 1000)]


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_a_bomb_is_too_large_at_each_of_its_offsets_and_takes_no_memory(codec: str) -> None:
    bomb = encoded(batch([bytes(BATCH_UNPACKED_BYTES_MAX), b"after it"], codec))
    before = psutil.Process().memory_info().rss
    found = read(bomb)
    assert psutil.Process().memory_info().rss - before < MEMORY_MARGIN_BYTES
    assert [offset for offset, _ in found] == [40, 41]
    assert found[0][1] is found[1][1] is OVERSIZED
    assert read(bomb + encoded(batch([b"next"]))) == found, "what is behind it comes with the next fetch"


def test_a_fetch_full_of_bombs_is_read_in_pieces() -> None:
    """What was left out is fetched again from the offset behind the last batch that was read."""
    values = {40 + number: bytes(10 << 20) for number in range(20)}
    bombs = [encoded(batch([value], "zstd", "", offset)) for offset, value in values.items()]
    found: list[tuple[int, bytes | None]] = []
    pieces = 0
    while len(found) < len(bombs):
        piece = read(b"".join(bombs[len(found) :]))
        assert 0 < sum(len(value or b"") for _, value in piece) <= FETCH_UNPACKED_BYTES_MAX + (11 << 20)
        found += piece
        pieces += 1
    assert found == list(values.items())
    assert pieces == 5


def test_what_stands_for_a_bomb_is_too_large_under_every_policy() -> None:
    assert len(OVERSIZED) > UPDATE_BYTES_LIMIT


@pytest.mark.parametrize("codec", CODECS)
def test_a_header_name_that_is_not_text_hides_nothing(codec: str) -> None:
    built = batch([b"one", b"two"], header="name")
    built = bytearray(bytes(built).replace(b"name", b"\xff\xfe\xfd\xfc"))
    if codec != "none":
        packer = {"snappy": cramjam.snappy.compress_raw}.get(codec) or getattr(cramjam, codec).compress
        built = built[:HEADER] + bytes(packer(bytes(built[HEADER:])))
        struct.pack_into(">i", built, 8, len(built) - 12)
        struct.pack_into(">h", built, 21, CODECS[codec])
    if codec == "none":
        with pytest.raises((CorruptRecordException, UnicodeDecodeError)):
            list(DefaultRecordBatch(encoded(built)))  # otherwise nothing here is needed
    assert read(encoded(built)) == [(40, b"one"), (41, b"two")]
    ours = list(BoundedRecords(encoded(built)).next_batch())
    assert [(r.timestamp, r.key) for r in ours] == [(1000, b"k"), (1001, b"k")]


def test_a_fetch_that_cuts_its_last_batch_gives_the_whole_ones() -> None:
    whole = encoded(batch([b"one"]))
    for cut in range(1, len(whole)):
        assert read(whole + whole[:-cut]) == [(40, b"one")]
    assert read(b"") == []


def test_installed_it_is_what_aiokafka_reads_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "MemoryRecords", fetcher.MemoryRecords)
    bounded_batches.install()
    assert fetcher.MemoryRecords is BoundedRecords
