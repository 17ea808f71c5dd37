"""The canonical rules of certificates, by another way than the workers': decode each value, encode it anew, compare.

X.690 for the encoding, RFC 5280 for the fields. A certificate counts if every value in it is the one encoding of what
it says. The extensions SubjectAltName and BasicConstraints are read, all others are not.
"""

from __future__ import annotations

import datetime as dt
import string
from dataclasses import dataclass
from typing import Any, Final

ED25519: Final = [(0x06, (1, 3, 101, 112))]
NAMES: Final = (2, 5, 29, 17)
CONSTRAINTS: Final = (2, 5, 29, 19)
EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
SERIAL_BYTES_MAX: Final = 20
LEVELS_MAX: Final = 16
PRINTABLE: Final = frozenset((string.ascii_letters + string.digits + " '()+,-./:=?").encode())
AS_THEY_ARE: Final = frozenset({0x04, 0x12, 0x14, 0x1A, 0x1C, 0x1E})
"""Octets, and texts of old alphabets."""


class NotHolder(ValueError):
    """Bytes that are no certificate of the profile, in its one encoding."""


@dataclass(frozen=True, slots=True)
class Holder:
    """What a certificate says. ``key`` and ``signature`` are None where they are not Ed25519's."""

    signed: bytes
    signature: bytes | None
    issuer: bytes
    serial: int
    not_before_ms: int
    not_after_ms: int
    key: bytes | None
    uris: list[bytes]
    is_authority: bool


def read_holder(der: bytes) -> Holder:
    """Read a certificate; ``NotHolder`` where it is none, or in another encoding."""
    try:
        return _holder(der)
    except (ValueError, IndexError, TypeError, AttributeError, OverflowError) as error:
        # What unpacking a value of another form raises: the form was not that of the profile.
        raise NotHolder(f"not the profile's form: {error}") from error


def subject_bytes(authority: bytes) -> bytes:
    """The subject's bytes in the certificate of a CA, which the genesis document vouches for."""
    whole, _ = _take(authority, 0)
    signed, _ = _take(whole[1], 0)
    at, parts = 0, []
    while at < len(signed[1]):
        start = at
        (tag, _), at = _take(signed[1], at)
        parts.append((tag, signed[1][start:at]))
    return parts[5 if parts[0][0] == 0xA0 else 4][1]  # noqa: PLR2004 (the version may be left out)


def _holder(der: bytes) -> Holder:
    outer, (signed, algorithm, (bits, signature)) = _exact(der)
    ((version_tag, version), serial, inner, issuer, validity, subject, owner, more) = signed[1]
    before, after = validity[1]
    kind, key = owner[1]
    if (version_tag, version, more[0]) != (0xA0, [(0x02, 2)], 0xA3) or inner != algorithm:
        raise NotHolder("not of version 3")
    sequences = (outer, *(part[0] for part in (signed, algorithm, issuer, validity, subject, owner, kind)))
    if set(sequences) != {0x30} or (serial[0], bits, key[0]) != (0x02, 0x03, 0x03):
        raise NotHolder("another form")
    if serial[1] <= 0 or serial[1].bit_length() // 8 + 1 > SERIAL_BYTES_MAX:
        raise NotHolder("a serial that is not above 0, or too long")
    extensions = _extensions(more[1])
    signed_by_ours = algorithm[1] == ED25519
    return Holder(
        signed=_encode(signed),
        signature=_whole(signature) if signed_by_ours else None,
        issuer=_encode(issuer),
        serial=serial[1],
        not_before_ms=_milliseconds(before),
        not_after_ms=_milliseconds(after),
        key=_key(kind, key),
        uris=_uris(extensions.get(NAMES)),
        is_authority=_authority(extensions.get(CONSTRAINTS)),
    )


def _key(kind: Any, key: Any) -> bytes | None:
    bits = _whole(key[1])
    return bits if kind[1] == ED25519 and len(bits) == 32 else None  # noqa: PLR2004


def _extensions(listed: Any) -> dict[tuple[int, ...], bytes]:
    ((tag, entries),) = listed
    found: dict[tuple[int, ...], bytes] = {}
    for outer, (name, *critical, value) in entries:
        said = critical in ([], [(0x01, True)])
        if (outer, name[0], value[0]) != (0x30, 0x06, 0x04) or not said or name[1] in found:
            raise NotHolder("an extension of another form, or twice")
        found[name[1]] = value[1]
    if tag != 0x30 or not found:  # noqa: PLR2004
        raise NotHolder("no list of extensions")
    return found


def _uris(contents: bytes | None) -> list[bytes]:
    if contents is None:
        return []
    tag, names = _exact(contents)
    if tag != 0x30:  # noqa: PLR2004
        raise NotHolder("names of another form")
    return [said for kind, said in names if kind == 0x86]  # noqa: PLR2004 (a URI)


def _authority(contents: bytes | None) -> bool:
    if contents is None:
        return False
    tag, said = _exact(contents)
    if tag != 0x30 or (0x01, False) in said[:1]:  # noqa: PLR2004
        raise NotHolder("constraints of another form")
    authority: bool = said[:1] == [(0x01, True)]
    if any(kind != 0x02 for kind, _ in said[authority:]):  # noqa: PLR2004
        raise NotHolder("constraints of another form")
    return authority


def _whole(bits: tuple[int, bytes]) -> bytes:
    unused, data = bits
    if unused:
        raise NotHolder("no whole number of bytes")
    return data


def _milliseconds(value: Any) -> int:
    tag, (year, month, day, hour, minute, second) = value
    if tag not in {0x17, 0x18} or (tag == 0x17) != (1950 <= year < 2050):  # noqa: PLR2004
        raise NotHolder("a time in the other form")
    moment, added = _moment_of(year, month, day, hour, minute, second)
    return (moment - EPOCH) // dt.timedelta(milliseconds=1) - added


def _moment_of(year: int, *others: int) -> tuple[dt.datetime, int]:
    """A moment, and how many milliseconds late: the calendar repeats after 400 years, and Python has no year 0."""
    early = year < 1
    month, day, hour, minute, second = others
    moment = dt.datetime(year + 400 * early, month, day, hour, minute, second, tzinfo=dt.UTC)
    return moment, 146_097 * 86_400_000 * early


# -- values: (tag, [values]) or (tag, what it says)


def _exact(data: bytes) -> Any:
    """The value in these bytes; ``NotHolder`` unless encoding it anew gives them."""
    (tag, contents), end = _take(data, 0)
    value = _decode(tag, contents, LEVELS_MAX)
    if end != len(data) or _encode(value) != data:
        raise NotHolder("another encoding of the same")
    return value


def _take(data: bytes, at: int) -> tuple[tuple[int, bytes], int]:
    tag, length = data[at], data[at + 1]
    at += 2
    if length >= 0x80:  # noqa: PLR2004
        width = length - 0x80
        length, at = int.from_bytes(data[at : at + width], "big"), at + width
        if width == 0:
            raise NotHolder("a length that is not said")
    if len(data) < at + length:
        raise NotHolder("cut short")
    return (tag, data[at : at + length]), at + length


def _decode(tag: int, contents: bytes, levels: int) -> tuple[int, Any]:
    if levels < 0 or tag & 0x1F == 0x1F or tag & 0xC0 in {0x40, 0xC0}:  # noqa: PLR2004
        raise NotHolder("a tag that no certificate has, or too deep")
    if tag & 0x20:
        if tag < 0x80 and tag not in {0x30, 0x31}:  # noqa: PLR2004
            raise NotHolder("in parts")
        values, at = [], 0
        while at < len(contents):
            inner, at = _take(contents, at)
            values.append(_decode(*inner, levels - 1))
        return tag, values
    return tag, contents if tag >= 0x80 or tag in AS_THEY_ARE else _say(tag, contents)  # noqa: PLR2004


def _say(tag: int, contents: bytes) -> Any:
    """What a value of a universal type says."""
    match tag:
        case 0x01:
            return bool(contents[0])
        case 0x02 | 0x0A:
            return int.from_bytes(contents, "big", signed=True) if contents else None
        case 0x03:
            return contents[0], contents[1:]
        case 0x05:
            return None
        case 0x06:
            return _arcs(contents)
        case 0x0C:
            return contents.decode()
        case 0x13 if PRINTABLE.issuperset(contents):
            return contents.decode()
        case 0x16:
            return contents.decode("ascii")
        case 0x17 | 0x18:
            return _moment(tag, contents.decode("ascii"))
        case _:
            raise NotHolder(f"the type {tag:#x}")


def _arcs(contents: bytes) -> tuple[int, ...]:
    arcs, number = [], 0
    for byte in contents:
        number = number * 128 + byte % 128
        if byte < 0x80:  # noqa: PLR2004
            arcs.append(number)
            number = 0
    if number or not arcs:
        raise NotHolder("an identifier cut short")
    first = min(arcs[0] // 40, 2)
    return (first, arcs[0] - 40 * first, *arcs[1:])


def _moment(tag: int, text: str) -> tuple[int, ...]:
    digits = text.removesuffix("Z")
    if not (digits.isascii() and digits.isdigit()) or len(digits) != (12 if tag == 0x17 else 14):  # noqa: PLR2004
        raise NotHolder("a time in another form")
    year = int(digits[:-10])
    if tag == 0x17:  # noqa: PLR2004
        year += 1900 if year >= 50 else 2000  # noqa: PLR2004
    parts = [int(digits[-10:][i : i + 2]) for i in range(0, 10, 2)]
    _moment_of(year, *parts)  # ValueError where there is no such moment
    return (year, *parts)


def _encode(value: tuple[int, Any]) -> bytes:
    """The one encoding of a value."""
    tag, said = value
    if isinstance(said, list):
        parts = [_encode(one) for one in said]
        contents = b"".join(sorted(parts) if tag == 0x31 else parts)  # noqa: PLR2004 (a set)
    else:
        contents = said if isinstance(said, bytes) else _spell(tag, said)
    size = len(contents)
    if size < 0x80:  # noqa: PLR2004
        return bytes((tag, size)) + contents
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 + len(length))) + length + contents


def _spell(tag: int, said: Any) -> bytes:
    match tag:
        case 0x01:
            return b"\xff" if said else b"\0"
        case 0x02 | 0x0A:
            width = ((said if said >= 0 else ~said).bit_length()) // 8 + 1
            return bytes(said.to_bytes(width, "big", signed=True))
        case 0x03:
            unused, data = said
            if unused > 7 or (unused and not data) or (data and data[-1] % (1 << unused)):  # noqa: PLR2004
                raise NotHolder("bits in another form")
            return bytes((unused,)) + bytes(data)
        case 0x05:
            return b""
        case 0x06:
            first, second, *others = said
            return b"".join(_arc(one) for one in (40 * first + second, *others))
        case 0x17:
            return "{:02}{:02}{:02}{:02}{:02}{:02}Z".format(said[0] % 100, *said[1:]).encode()
        case 0x18:
            return "{:04}{:02}{:02}{:02}{:02}{:02}Z".format(*said).encode()
        case _:
            return str(said).encode()


def _arc(number: int) -> bytes:
    digits = [number % 128]
    while number := number // 128:
        digits.insert(0, number % 128 + 128)
    return bytes(digits)
