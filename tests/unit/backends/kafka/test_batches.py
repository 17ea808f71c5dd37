"""The one reading of record batches, and the checker's own: what each odd batch comes to, in whatever it stands."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Final

import psutil
import pytest
from aiokafka.record.util import calc_crc32c

from aggregation.policy import UPDATE_BYTES_LIMIT
from backends.kafka import raw_records, unpacking
from backends.kafka.batches import BATCH_RECORDS_MAX, OVERSIZED, DamagedBatchError, GapError, next_offset
from backends.kafka.stretches import stretches_in
from backends.kafka.unpacking import Unpacked
from fluvial.proof.checker import batches as checkers
from tests import odd_batches
from tests.odd_batches import DAMAGED, READABLE, REGULAR, TOO_LARGE, Odd
from tests.raw_batches import AT_MS, BY_APPEND, CONTROL, NAMES, at_base, batch, pack, record, varint

VALUES: Final = (b"one", b"two" * 300)
HIGH: Final = 49
MEMORY_MARGIN_BYTES: Final = 260_000_000

Read = Callable[[bytes, int, int], list[tuple[int, bytes | None, bytes | None]]]


def ours(data: bytes, start: int, high: int) -> list[tuple[int, bytes | None, bytes | None]]:
    """(offset, key, value), as workers, audits and all others read."""
    next_offset(data, start, high)
    return [
        (offset, key, value)
        for stretch in stretches_in(data, start, high)
        for offset, (key, value) in enumerate(zip(stretch.keys, stretch.values, strict=True), stretch.first)
    ]


def the_checkers(data: bytes, start: int, high: int) -> list[tuple[int, bytes | None, bytes | None]]:
    """The same, as the checker reads."""
    return [(offset, key, value) for offset, _, key, value in checkers.entries_in(data, start, high)]


both = pytest.mark.parametrize("read", [ours, the_checkers], ids=["ours", "the checker's"])


def expected(odd: Odd, base: int) -> list[tuple[int, bytes | None, bytes | None]]:
    match odd.kind:
        case odd_batches.REGULAR:
            return [(base, b"k", VALUES[0]), (base + 1, None, VALUES[1])]
        case odd_batches.TOO_LARGE:
            return [(base + number, None, OVERSIZED) for number in range(odd.offsets)]
        case _:
            return [(base + number, None, None) for number in range(odd.offsets)]


@both
@pytest.mark.parametrize("odd", READABLE, ids=str)
def test_each_shape_comes_to_what_is_written_of_it(odd: Odd, read: Read) -> None:
    before = psutil.Process().memory_info().rss
    found = read(at_base(odd.build(VALUES), 40), 40, HIGH)
    assert found == expected(odd, 40)
    assert psutil.Process().memory_info().rss - before < MEMORY_MARGIN_BYTES


@both
@pytest.mark.parametrize("odd", [odd for odd in READABLE if odd.kind != TOO_LARGE], ids=str)
def test_no_shape_hides_what_stands_before_or_behind_it(odd: Odd, read: Read) -> None:
    """Also where the batch says that it covers more: it does not reach into the next."""
    behind = 40 + odd.offsets
    honest = batch(record(b"honest", 0), 1)
    data = at_base(honest, 39) + at_base(odd.build(VALUES), 40) + at_base(honest, behind)
    found = read(data, 39, behind + 1)
    assert found == [(39, None, b"honest"), *expected(odd, 40), (behind, None, b"honest")]


@both
@pytest.mark.parametrize("odd", odd_batches.DAMAGES, ids=str)
def test_what_no_broker_takes_is_damage_and_read_by_nobody(odd: Odd, read: Read) -> None:
    assert odd.kind == DAMAGED
    with pytest.raises((DamagedBatchError, checkers.DamagedLogError)):
        read(at_base(odd.build(VALUES), 40), 40, HIGH)


@both
@pytest.mark.parametrize("odd", odd_batches.DAMAGES, ids=str)
def test_what_is_damaged_behind_the_end_of_what_was_asked_for_ends_nobody(odd: Odd, read: Read) -> None:
    """The checker looked through a fetch as a whole, and ended where an audit read up to its end."""
    whole, spoilt = at_base(batch(odd_batches.plain(VALUES), 2), 40), at_base(odd.build(VALUES), 42)
    good = [(40, b"k", VALUES[0]), (41, None, VALUES[1])]
    assert read(whole + spoilt, 40, 42) == good
    assert read(whole + spoilt, 40, 41) == good[:1]
    with pytest.raises((DamagedBatchError, checkers.DamagedLogError)):
        read(whole + spoilt, 40, HIGH)


@both
def test_any_changed_bit_of_what_a_checksum_covers_is_damage(read: Read) -> None:
    whole = at_base(batch(odd_batches.plain(VALUES), 2), 40)
    for at in range(17, len(whole)):
        spoilt = bytearray(whole)
        spoilt[at] ^= 1 << at % 8
        with pytest.raises((DamagedBatchError, checkers.DamagedLogError)):
            read(bytes(spoilt), 40, HIGH)


@both
@pytest.mark.parametrize("odd", [odd for odd in READABLE if odd.kind == REGULAR], ids=str)
def test_a_reader_may_begin_and_end_within_a_batch(odd: Odd, read: Read) -> None:
    data = at_base(odd.build(VALUES), 40)
    assert read(data, 41, HIGH) == expected(odd, 40)[1:]
    assert read(data, 40, 41) == expected(odd, 40)[:1]
    assert read(data, 42, HIGH) == []


@both
def test_a_fetch_that_cuts_its_last_batch_gives_the_whole_ones(read: Read) -> None:
    whole = at_base(batch(record(b"one", 0), 1), 40)
    for cut in range(1, len(whole)):
        assert read(whole + at_base(whole, 41)[:-cut], 40, HIGH) == [(40, None, b"one")]
    assert read(b"", 40, HIGH) == []


@both
def test_an_offset_that_no_batch_covers_is_a_gap(read: Read) -> None:
    one = batch(record(b"one", 0), 1)
    with pytest.raises((GapError, checkers.DamagedLogError)):
        read(at_base(one, 42), 40, HIGH)


@both
def test_where_batches_overlap_none_reaches_into_the_next(read: Read) -> None:
    two, one = batch(odd_batches.plain(VALUES), 2), batch(record(b"newer", 0), 1)
    assert read(at_base(two, 40) + at_base(one, 41), 40, HIGH) == [
        (40, b"k", VALUES[0]),
        (41, None, b"newer"),
    ]


@both
def test_a_transactions_marker_is_a_record_without_key_and_value(read: Read) -> None:
    marker = batch(
        record(b"\0\0\0\0\0\0", 0, key=b"\0\0\0\1"), 1, attributes=CONTROL | 0x10, producer=(7, 0, -1)
    )
    assert read(at_base(marker, 40), 40, HIGH) == [(40, None, None)]


def test_a_record_takes_the_brokers_time_where_the_topic_says_so_and_its_own_otherwise() -> None:
    payload = record(b"one", 0, delta_ms=-5) + record(b"two", 1, delta_ms=7)
    for attributes, times in ((0, [AT_MS - 5, AT_MS + 7]), (BY_APPEND, [AT_MS, AT_MS])):
        data = batch(payload, 2, attributes=attributes)
        assert [list(stretch.times_ms) for stretch in stretches_in(data, 0, 2)] == [times]
        assert [time for _, time, _, _ in checkers.entries_in(data, 0, 2)] == times


def test_headers_come_with_their_records_where_they_can_be_read() -> None:
    good = record(b"one", 0, headers=[(b"name", b"text"), (b"", b"")])
    data = batch(good + record(b"two", 1, headers=[(b"\xff", b"")]), 2)
    (stretch,) = stretches_in(data, 0, 2)
    assert list(stretch.headers) == [(("name", b"text"), ("", b"")), ()]


@pytest.mark.parametrize(
    "headers",
    [
        b"\xfe\xff\xff\xff\x0f" + b"\x03" * 30,  # two thousand million headers, whose names lead back
        varint(2) + b"\x03\0" * 2,
        varint(-1),
        varint(raw_records.HEADERS_MAX + 1) + b"\0\0" * (raw_records.HEADERS_MAX + 1),
        varint(1) + varint(1 << 30) + b"name",
        varint(1) + varint(1) + b"n" + varint(1 << 30) + b"value",
    ],
)
def test_headers_that_lead_elsewhere_or_are_too_many_are_none(headers: bytes) -> None:
    bare = record(b"one", 0)[1:-1]
    data = batch(varint(len(bare) + len(headers)) + bare + headers, 1)
    (stretch,) = stretches_in(data, 0, 1)
    assert (stretch.values, list(stretch.headers)) == ([b"one"], [()])


@both
@pytest.mark.parametrize("more", [0, 1])
def test_a_batch_of_more_records_than_any_producer_writes_is_looked_through_by_nobody(
    read: Read, more: int
) -> None:
    count = BATCH_RECORDS_MAX + more
    data = batch(b"".join(record(b"", number) for number in range(count)), count)
    assert {value for _, _, value in read(data, 0, count)} == {None if more else b""}


@pytest.mark.parametrize("codec", NAMES)
@pytest.mark.parametrize("count", [1, 23, 24, 500, raw_records.RECORDS_AT_ONCE_MAX + 3])
def test_a_batch_of_any_size_gives_each_of_its_records(codec: int, count: int) -> None:
    values = [None if number % 7 == 3 else bytes([number % 256]) * (number % 200) for number in range(count)]
    payload = b"".join(
        record(value, number, key=b"k", delta_ms=number) for number, value in enumerate(values)
    )
    data = at_base(batch(pack(payload, codec), count, codec=codec), 1000)
    everything = [(1000 + number, b"k", value) for number, value in enumerate(values)]
    assert ours(data, 1000, 10_000) == the_checkers(data, 1000, 10_000) == everything
    assert ours(data, 1000 + count - 1, 10_000) == everything[-1:]


def test_a_large_batch_with_one_odd_record_far_behind_gives_none() -> None:
    count = 2 * raw_records.RECORDS_AT_ONCE_MAX
    payload = b"".join(record(b"x", number if number != count - 2 else 0) for number in range(count))
    data = batch(payload, count)
    assert (
        ours(data, 0, count)
        == the_checkers(data, 0, count)
        == [(number, None, None) for number in range(count)]
    )


def test_records_read_as_columns_and_one_after_another_are_the_same() -> None:
    chance = random.Random(17)
    regular = 0
    for _ in range(3000):
        count = chance.randint(1, 30)
        payload = bytearray(
            b"".join(
                record(
                    None if chance.random() < 0.1 else bytes(chance.randint(0, 200)),
                    number,
                    key=None if chance.random() < 0.5 else b"key",
                    delta_ms=chance.choice([0, -1, 2**62, -(2**63), 300]),
                )
                for number in range(count)
            )
        )
        for _ in range(chance.choice([0, 1, 1, 2])):
            payload[chance.randrange(min(12, len(payload)))] = chance.choice([0, 1, 0x80, 0xFF])
        plain = Unpacked(bytes(payload), 0, len(payload))
        found = [
            read_or_none(read, plain, count)
            for read in (raw_records._read_one_by_one, raw_records._read_columns)
        ]
        assert found[0] == found[1]
        regular += found[0] is not None
    assert 0 < regular < 3000, "both kinds were tried"


def read_or_none(read: Callable[[Unpacked, int, int], object], plain: Unpacked, count: int) -> object:
    try:
        return read(plain, 0, count)
    except (IndexError, ValueError):
        return None


def test_both_readings_agree_on_whatever_is_done_to_a_batch() -> None:
    """Shapes spoilt at random, with a checksum that is right: what one reads the other does, to the byte."""
    chance = random.Random(23)
    shapes = [odd for odd in READABLE if odd.kind != TOO_LARGE]
    refused = 0
    for _ in range(6000):
        built = bytearray(chance.choice(shapes).build(VALUES))
        if built[16] != 2:
            continue
        for _ in range(chance.randint(1, 3)):
            built[chance.randrange(21, len(built))] = chance.choice(
                [0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)]
            )
        if chance.random() < 0.3:
            built = built[: chance.randrange(61, len(built) + 1)]
        data = batch(b"", 0)[:8] + struct.pack(">i", len(built) - 12) + bytes(built[12:])
        data = data[:17] + struct.pack(">I", calc_crc32c(data[21:])) + data[21:]
        found = ours(data, 0, 50)
        assert found == the_checkers(data, 0, 50), data.hex()
        refused += any(value is None for _, _, value in found)
    assert refused > 1000


def test_what_stands_for_a_bomb_is_too_large_under_every_policy() -> None:
    assert len(OVERSIZED) == len(checkers.TOO_LARGE) > UPDATE_BYTES_LIMIT
    assert OVERSIZED == checkers.TOO_LARGE


@pytest.mark.parametrize("codec", [3, 4])
def test_blocks_that_could_not_hold_so_much_are_broken_and_not_too_large(codec: int) -> None:
    spoilt = bytearray(pack(random.Random(3).randbytes(500) * 100, codec))
    spoilt[-12:-4] = b"\xff" * 8
    assert unpacking.unpack(bytes(spoilt), 0, len(spoilt), codec) is None
