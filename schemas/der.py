"""A certificate by one reading: canonical DER, X.509 version 3, and of it what Fluvial uses.

What a library takes for a certificate changes with its version. In tasks with ``RecordRules.canonical`` a certificate
is what this module reads, and a library is asked about one thing only, the signature over ``Certificate.signed``.

Canonical DER (X.690, chapters 8, 10 and 11) of the whole, the contents of the extensions that count included. Of the
profile (RFC 5280): version 3, a serial from 1 to 20 bytes above 0, UTCTime for the years 1950 to 2049 and
GeneralizedTime for all others, no unique identifiers, one list of extensions, each of them once. Extensions that are
not read here mean nothing, marked critical or not.

``NotDerError`` before ``NotOursError``: the encoding of the whole is looked at first, then the profile, and the
contents of the two extensions that count last, each first by its encoding.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

DEPTH_MAX: Final = 16
"""Values around a value: the outermost has none."""
SERIAL_BYTES_MAX: Final = 20
ED25519: Final = bytes.fromhex("300506032b6570")
"""The AlgorithmIdentifier: 1.3.101.112, without parameters."""

_BOOLEAN, _INTEGER, _BITS, _OCTETS, _OID = 0x01, 0x02, 0x03, 0x04, 0x06
_UTC_TIME, _GENERALIZED_TIME, _SEQUENCE, _SET = 0x17, 0x18, 0x30, 0x31
_VERSION, _EXTENSIONS, _URI = 0xA0, 0xA3, 0x86
_V3: Final = bytes.fromhex("020102")
_SUBJECT_ALTERNATIVE_NAME: Final = bytes.fromhex("551d11")
_BASIC_CONSTRAINTS: Final = bytes.fromhex("551d13")
_TRUE: Final = b"\xff"
_KEY_BYTES: Final = 32
_SHORT_LENGTH_MAX: Final = 0x7F
_LONG_TAG: Final = 0x1F
_PRINTABLE: Final = re.compile(rb"[A-Za-z0-9 '()+,./:=?-]*")
_TIMES: Final = {
    _UTC_TIME: re.compile(rb"(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z"),
    _GENERALIZED_TIME: re.compile(rb"(\d\d\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z"),
}
_OPAQUE: Final = frozenset({_OCTETS, 0x12, 0x14, 0x1A, 0x1C, 0x1E})
"""OCTET STRING, and the strings of old that no key of ours depends on: any bytes."""


class NotDerError(ValueError):
    """Bytes that are not one value in canonical DER."""


class NotOursError(ValueError):
    """Canonical DER of something else than a certificate of this profile."""


class Value(NamedTuple):
    """One value: its tag's byte, its contents, and its whole encoding."""

    tag: int
    contents: bytes
    whole: bytes


@dataclass(frozen=True, slots=True)
class Certificate:
    """What is used of a certificate.

    ``signed`` is what the signature covers. ``key`` is the Ed25519 public key, None for a key of another kind.
    ``signature`` is 64 bytes, None where it is none by Ed25519. Times are milliseconds since 1970, both inclusive.
    """

    signed: bytes
    signature: bytes | None
    issuer: bytes
    serial: int
    not_before_ms: int
    not_after_ms: int
    subject: bytes
    key: bytes | None
    uris: tuple[bytes, ...]
    is_authority: bool


def read_certificate(der: bytes) -> Certificate:
    """Read a certificate. Raises ``NotDerError`` or ``NotOursError``."""
    _require_der(der)
    outer = _expect(_only(der), _SEQUENCE)
    signed, algorithm, signature = _exactly(_children(outer.contents), 3)
    fields = _children(_expect(signed, _SEQUENCE).contents)
    version, serial, inner_algorithm, issuer, validity, subject, key, extensions = _exactly(fields, 8)
    if version.tag != _VERSION or version.contents != _V3 or inner_algorithm.whole != algorithm.whole:
        raise NotOursError("not of version 3, or of two signature algorithms")
    before, after = _exactly(_children(_expect(validity, _SEQUENCE).contents), 2)
    found = _extensions(_expect(extensions, _EXTENSIONS).contents)
    return Certificate(
        signed=signed.whole,
        signature=_bits(signature) if _expect(algorithm, _SEQUENCE).whole == ED25519 else None,
        issuer=_expect(issuer, _SEQUENCE).whole,
        serial=_serial(serial),
        not_before_ms=_time_ms(before),
        not_after_ms=_time_ms(after),
        subject=_expect(subject, _SEQUENCE).whole,
        key=_key(key),
        uris=_uris(found.get(_SUBJECT_ALTERNATIVE_NAME)),
        is_authority=_is_authority(found.get(_BASIC_CONSTRAINTS)),
    )


def subject_of(authority: bytes) -> bytes:
    """The subject's bytes in a CA certificate, which the genesis document vouches for: in DER, however canonical."""
    signed = _children(_only(authority).contents)[0]
    fields = _children(signed.contents)
    return fields[5 if fields[0].tag == _VERSION else 4].whole


# -- the profile


def _expect(value: Value, tag: int) -> Value:
    if value.tag != tag:
        raise NotOursError(f"a value of the tag {value.tag:#x} stands where {tag:#x} belongs")
    return value


def _exactly(values: list[Value], count: int) -> list[Value]:
    if len(values) != count:
        raise NotOursError(f"{len(values)} values, expected {count}")
    return values


def _serial(value: Value) -> int:
    number = int.from_bytes(_expect(value, _INTEGER).contents, "big", signed=True)
    if number <= 0 or len(value.contents) > SERIAL_BYTES_MAX:
        raise NotOursError("a serial that is not above 0, or too long")
    return number


def _bits(value: Value) -> bytes:
    """Whole bytes of a BIT STRING."""
    contents = _expect(value, _BITS).contents
    if contents[0]:
        raise NotOursError("a key or signature that is no whole number of bytes")
    return contents[1:]


def _key(value: Value) -> bytes | None:
    algorithm, key = _exactly(_children(_expect(value, _SEQUENCE).contents), 2)
    bits = _bits(key)
    _expect(algorithm, _SEQUENCE)
    return bits if algorithm.whole == ED25519 and len(bits) == _KEY_BYTES else None


def _extensions(contents: bytes) -> dict[bytes, bytes]:
    """Contents by identifier."""
    found: dict[bytes, bytes] = {}
    (listed,) = _exactly(_children(contents), 1)
    for entry in _children(_expect(listed, _SEQUENCE).contents):
        name, *critical, value = _at_least(_children(_expect(entry, _SEQUENCE).contents), 2)
        # False is what it is by default, and a default is left out.
        if critical and [one.whole for one in critical] != [bytes((_BOOLEAN, 1)) + _TRUE]:
            raise NotOursError("an extension of another form")
        if _expect(name, _OID).contents in found:
            raise NotOursError("an extension twice")
        found[name.contents] = _expect(value, _OCTETS).contents
    if not found:
        raise NotOursError("an empty list of extensions")
    return found


def _at_least(values: list[Value], count: int) -> list[Value]:
    if len(values) < count:
        raise NotOursError(f"{len(values)} values, expected {count} or more")
    return values


def _uris(contents: bytes | None) -> tuple[bytes, ...]:
    if contents is None:
        return ()
    _require_der(contents)
    names = _children(_expect(_only(contents), _SEQUENCE).contents)
    return tuple(name.contents for name in names if name.tag == _URI)


def _is_authority(contents: bytes | None) -> bool:
    if contents is None:
        return False
    _require_der(contents)
    said = _children(_expect(_only(contents), _SEQUENCE).contents)
    authority = bool(said) and said[0].tag == _BOOLEAN
    if authority and said[0].contents != _TRUE:
        raise NotOursError("a default that is said")
    for one in said[1:] if authority else said:
        _expect(one, _INTEGER)
    return authority


def _time_ms(value: Value) -> int:
    """Milliseconds since 1970 of a UTCTime or GeneralizedTime, whose form was checked."""
    if value.tag not in _TIMES:
        raise NotOursError("no time")
    year, month, day, hour, minute, second = _time_parts(value.tag, value.contents)
    if (value.tag == _GENERALIZED_TIME) == (1950 <= year <= 2049):  # noqa: PLR2004 (the years of UTCTime)
        raise NotOursError("a time in the other form")
    # Days since 1970, by years that begin in March (Howard Hinnant's days_from_civil).
    year -= month < 3  # noqa: PLR2004
    era, of_era = divmod(year, 400)
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    days = era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468
    return (((days * 24 + hour) * 60 + minute) * 60 + second) * 1000


def _time_parts(tag: int, contents: bytes) -> tuple[int, int, int, int, int, int]:
    found = _TIMES[tag].fullmatch(contents)
    if found is None:
        raise NotDerError("a time in another form")
    year, month, day, hour, minute, second = map(int, found.groups())
    if tag == _UTC_TIME:
        year += 1900 if year >= 50 else 2000  # noqa: PLR2004
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    days = (31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
    if not (1 <= month <= len(days) and 1 <= day <= days[month - 1]):
        raise NotDerError("no day of the calendar")
    if hour > 23 or minute > 59 or second > 59:  # noqa: PLR2004
        raise NotDerError("no time of the day")
    return year, month, day, hour, minute, second


# -- the encoding


def _require_der(data: bytes) -> None:
    """``NotDerError`` unless the bytes are one value in canonical DER, all the way down."""
    values = [(_only(data), 0)]
    while values:
        value, depth = values.pop()
        if depth > DEPTH_MAX:
            raise NotDerError(f"a value inside more than {DEPTH_MAX} others")
        if value.tag & 0x20:
            inner = _children(value.contents)
            if value.tag == _SET and any(a.whole > b.whole for a, b in pairwise(inner)):
                raise NotDerError("a set out of order")
            if value.tag & 0xC0 == 0 and value.tag not in {_SEQUENCE, _SET}:
                raise NotDerError("a value in parts that has to stand in one")
            values += [(one, depth + 1) for one in inner]
        elif value.tag & 0xC0 == 0 and not _is_canonical(value.tag, value.contents):
            raise NotDerError(f"a value of the tag {value.tag:#x} in another form")


def _only(data: bytes) -> Value:
    value, end = _value_at(data, 0)
    if end != len(data):
        raise NotDerError("bytes to spare")
    return value


def _children(data: bytes) -> list[Value]:
    values, at = [], 0
    while at < len(data):
        value, at = _value_at(data, at)
        values.append(value)
    return values


def _value_at(data: bytes, begin: int) -> tuple[Value, int]:
    if begin + 2 > len(data):
        raise NotDerError("cut short")
    tag, length, at = data[begin], data[begin + 1], begin + 2
    if tag & _LONG_TAG == _LONG_TAG or tag & 0xC0 in {0x40, 0xC0}:
        raise NotDerError("a tag that no certificate has")
    if length > _SHORT_LENGTH_MAX:
        width = length & _SHORT_LENGTH_MAX
        said = data[at : at + width]
        length, at = int.from_bytes(said, "big"), at + width
        if not said or len(said) != width or said[0] == 0 or length <= _SHORT_LENGTH_MAX:
            raise NotDerError("a length in another form")
    end = at + length
    if end > len(data):
        raise NotDerError("cut short")
    return Value(tag, data[at:end], data[begin:end]), end


def _is_canonical(tag: int, contents: bytes) -> bool:
    """Whether a primitive value of a universal tag is in the one form that DER has for it."""
    if tag in _TIMES:
        _time_parts(tag, contents)
        return True
    match tag:
        case 0x01:
            return contents in {b"\0", _TRUE}
        case 0x02 | 0x0A:
            return _is_integer(contents)
        case 0x03:
            return _is_bit_string(contents)
        case 0x05:
            return not contents
        case 0x06:
            return _is_identifier(contents)
        case 0x0C:
            return _is_utf8(contents)
        case 0x13:
            return _PRINTABLE.fullmatch(contents) is not None
        case 0x16:
            return contents.isascii()
        case _:
            return tag in _OPAQUE


def _is_integer(contents: bytes) -> bool:
    if len(contents) < 2:  # noqa: PLR2004
        return bool(contents)
    first, sign = contents[0], contents[1] & 0x80
    return not (first == 0 and not sign) and not (first == 0xFF and sign)  # noqa: PLR2004


def _is_bit_string(contents: bytes) -> bool:
    if not contents or contents[0] > 7 or (len(contents) == 1 and contents[0]):  # noqa: PLR2004
        return False
    return contents[-1] & ((1 << contents[0]) - 1) == 0 if len(contents) > 1 else True


def _is_identifier(contents: bytes) -> bool:
    starts = [0, *(at + 1 for at, byte in enumerate(contents[:-1]) if byte < 0x80)]  # noqa: PLR2004
    return bool(contents) and contents[-1] < 0x80 and all(contents[at] != 0x80 for at in starts)  # noqa: PLR2004


def _is_utf8(contents: bytes) -> bool:
    try:
        contents.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
