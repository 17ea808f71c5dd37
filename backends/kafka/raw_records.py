"""The records in a batch's plain payload, of format 2 (https://kafka.apache.org/documentation/#record).

They are regular where every field of a record lies within the length that it says, they are numbered 0, 1, 2, …, and
the last ends where the payload does. A number is of variable length, zigzag, seven bits a byte: at most five bytes, and
ten for a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np

from backends.kafka.unpacking import Unpacked
from backends.log import Headers

HEADERS_MAX: Final = 64
"""Of one record; a record of ours has two at most."""
RECORDS_AT_ONCE_MAX: Final = 8192
"""Of a batch with more no list is kept: it is looked through first, and read again by whoever takes its records."""

_INT_BITS: Final = 32
_LONG_BITS: Final = 64
_COLUMNS_FROM: Final = 24
"""So many records are read faster as columns than one after another."""

Octets = np.ndarray[Any, np.dtype[Any]]


class Records(NamedTuple):
    """Records of a regular batch that stand one behind the other; ``number`` is that of the first in its batch.

    ``deltas_ms`` are their times beside the batch's first; ``headers_at`` and ``ends`` where a record's headers begin
    and it ends.
    """

    number: int
    deltas_ms: list[int]
    keys: list[bytes | None]
    values: list[bytes | None]
    headers_at: list[int]
    ends: list[int]


def records_in(plain: Unpacked, count: int) -> Iterator[Records]:
    """The ``count`` records of a payload, ``RECORDS_AT_ONCE_MAX`` at a time, for as long as they are regular.

    Every field of a record lies within the length that it says, they are numbered 0, 1, 2, …, and the last ends where
    the payload does.
    """
    at = plain.start
    for number in range(0, count, RECORDS_AT_ONCE_MAX):
        wanted = min(RECORDS_AT_ONCE_MAX, count - number)
        read = _read_one_by_one if wanted < _COLUMNS_FROM else _read_columns
        try:
            some = read(plain._replace(start=at), number, wanted)
        except (IndexError, ValueError):  # a field that the data or its own kind is too short for
            return
        if some is None:
            return
        at = some.ends[-1]
        if number + wanted == count and at != plain.end:
            return
        yield some


def _read_one_by_one(plain: Unpacked, number: int, count: int) -> Records | None:
    data, at, end = plain
    some = Records(number, [], [], [], [], [])
    for one in range(number, number + count):
        length, at = _integer(data, at)
        stop = at + length
        delta_ms, at = _integer(data, at + 1, _LONG_BITS)  # behind the attributes, a byte that nobody uses
        delta, at = _integer(data, at)
        key, at = _nullable(data, at)
        value, at = _nullable(data, at)
        if length < 0 or stop > end or at > stop or delta != one:
            return None
        some.deltas_ms.append(delta_ms)
        some.keys.append(key)
        some.values.append(value)
        some.headers_at.append(at)
        some.ends.append(stop)
        at = stop
    return some


def _nullable(data: bytes, at: int) -> tuple[bytes | None, int]:
    length, at = _integer(data, at)
    return (None, at) if length < 0 else (data[at : at + length], at + length)


def _read_columns(plain: Unpacked, number: int, count: int) -> Records | None:
    """As ``_read_one_by_one``, but for where they end all records at once."""
    data, stop, end = plain
    begins, ends = [0] * count, [0] * count
    for one in range(count):
        first, second = data[stop], data[stop + 1]
        if first < 0x80 or second >= 0x80:  # noqa: PLR2004
            length, at = _integer(data, stop)
        else:  # as nearly always: no call, for a third of the time goes here
            length, at = (first & 0x7F | second << 7) >> 1 ^ -(first & 1), stop + 2
        begins[one], stop = at, at + length
        ends[one] = stop
        if length < 0 or stop > end:
            return None
    octets = np.frombuffer(data, np.uint8)
    deltas_ms, deltas_at = _integers(octets, np.array(begins, np.int64) + 1, _LONG_BITS)
    deltas, keys_at = _integers(octets, deltas_at)
    key_bytes, keys_at = _integers(octets, keys_at)
    value_bytes, values_at = _integers(octets, keys_at + np.maximum(key_bytes, 0))
    headers_at = values_at + np.maximum(value_bytes, 0)
    if (headers_at > np.array(ends)).any() or (deltas != np.arange(number, number + count)).any():
        return None
    keys, values = _slices(data, keys_at, key_bytes), _slices(data, values_at, value_bytes)
    return Records(number, deltas_ms.tolist(), keys, values, headers_at.tolist(), ends)


def _slices(data: bytes, at: Octets, sizes: Octets) -> list[bytes | None]:
    if (sizes < 0).all():
        return [None] * len(sizes)
    places = zip(at.tolist(), sizes.tolist(), strict=True)
    return [None if size < 0 else data[start : start + size] for start, size in places]


def headers_of(data: bytes, at: int, end: int) -> Headers:
    """A record's headers, which stand in ``data[at:end]``.

    None where they are not well formed, more than ``HEADERS_MAX``, or a name is not UTF-8: nobody needs them.
    """
    found: list[tuple[str, bytes]] = []
    try:
        count, at = _integer(data, at)
        if not 0 <= count <= HEADERS_MAX:
            return ()
        for _ in range(count):
            length, at = _integer(data, at)
            if not 0 <= length <= end - at:
                return ()
            name, at = data[at : at + length].decode(), at + length
            length, at = _integer(data, at)
            if length > end - at:
                return ()
            value, at = (data[at : at + length], at + length) if length >= 0 else (b"", at)
            found.append((name, value))
    except (IndexError, ValueError):
        return ()
    return tuple(found)


def _integer(data: bytes, at: int, bits: int = _INT_BITS) -> tuple[int, int]:
    """A signed number of variable length (zigzag, seven bits a byte) and where it ends.

    ValueError where it has more bytes than such a number may have; IndexError at the end of the data.
    """
    byte = data[at]
    if byte < 0x80:  # noqa: PLR2004
        return byte >> 1 ^ -(byte & 1), at + 1
    found, shift = byte & 0x7F, 7
    while True:
        at += 1
        byte = data[at]
        found |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004
            found &= (1 << bits) - 1
            return found >> 1 ^ -(found & 1), at + 1
        shift += 7
        if shift > bits:
            message = f"a number of more than {bits} bits"
            raise ValueError(message)


def _integers(octets: Octets, at: Octets, bits: int = _INT_BITS) -> tuple[Octets, Octets]:
    """``_integer`` at many places at once: int64 each."""
    byte = octets[at].astype(np.uint64)
    found, more, shift = byte & np.uint64(0x7F), byte >> np.uint64(7), 7
    at = at + 1
    while more.any():
        if shift > bits:
            message = f"a number of more than {bits} bits"
            raise ValueError(message)
        byte = octets[np.minimum(at, len(octets) - 1)].astype(np.uint64) * more
        found |= (byte & np.uint64(0x7F)) << np.uint64(shift)
        at = at + more.astype(np.int64)
        more = byte >> np.uint64(7)
        shift += 7
    if bits < _LONG_BITS:
        found &= np.uint64((1 << bits) - 1)
    return (found >> np.uint64(1)).astype(np.int64) ^ -(found & np.uint64(1)).astype(np.int64), at
