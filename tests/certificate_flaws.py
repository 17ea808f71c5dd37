"""Certificates with flaws of the form, one or several. What is signed is another then, so no CA has signed these."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Final, NamedTuple

Node = list[Any]
"""A value: its tag, and its contents as bytes or as a list of values."""

_NAMES, _CONSTRAINTS = bytes.fromhex("0603551d11"), bytes.fromhex("0603551d13")


class Flaw(NamedTuple):
    """``at``: where it stands in the order of `schemas/README.md`; of several, the first decides the ``reason``."""

    at: int
    reason: int
    edit: Callable[[Node], None]


def flawed(der: bytes, *names: str) -> bytes:
    """The certificate with these flaws, in the order of ``FLAWS``: those that take something away come last."""
    (whole,) = _values(der)
    for name, flaw in FLAWS.items():
        if name in names:
            flaw.edit(whole)
    return _bytes(whole)


def nested(der: bytes, around: int) -> bytes:
    """The certificate with an issuer of which one value stands inside so many others, 3 or more."""
    (whole,) = _values(der)
    inner: Node = [0x30, []]
    for _ in range(around - 3):
        inner = [0x30, [inner]]
    _field(whole, 3)[1] = [inner]
    return _bytes(whole)


def begun(der: bytes, tag: int, time: bytes) -> bytes:
    """The certificate with another notBefore."""
    (whole,) = _values(der)
    _field(whole, 4)[1][0] = [tag, time]
    return _bytes(whole)


def _values(data: bytes) -> list[Node]:
    found: list[Node] = []
    while data:
        tag, size, begin = data[0], data[1], 2
        if size > 0x7F:
            begin += size & 0x7F
            size = int.from_bytes(data[2:begin], "big")
        contents = data[begin : begin + size]
        found.append([tag, _values(contents) if tag & 0x20 else contents])
        data = data[begin + size :]
    return found


def _bytes(value: Node) -> bytes:
    tag, contents = value
    data = contents if isinstance(contents, bytes) else b"".join(map(_bytes, contents))
    size = len(data)
    if size <= 0x7F:
        return bytes((tag, size)) + data
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 + len(length))) + length + data


def _field(whole: Node, *path: int) -> Node:
    """A value by its place in the signed part.

    0 is the version, 1 serial, 2 algorithm, 3 issuer, 4 validity, 5 subject, 6 key, 7 extensions.
    """
    found: Node = whole[1][0]
    for step in path:
        found = found[1][step]
    return found


def _put(*path: int, contents: bytes) -> Callable[[Node], None]:
    def edit(whole: Node) -> None:
        _field(whole, *path)[1] = contents

    return edit


def _tag(*path: int, tag: int) -> Callable[[Node], None]:
    def edit(whole: Node) -> None:
        _field(whole, *path)[0] = tag

    return edit


def _again(*path: int) -> Callable[[Node], None]:
    """The last value of a list once more."""

    def edit(whole: Node) -> None:
        values = _field(whole, *path)[1]
        values.append(copy.deepcopy(values[-1]))

    return edit


def _first_alone(*path: int) -> Callable[[Node], None]:
    def edit(whole: Node) -> None:
        del _field(whole, *path)[1][1:]

    return edit


def _extension(identifier: bytes, contents: bytes) -> Callable[[Node], None]:
    def edit(whole: Node) -> None:
        (found,) = [one for one in _field(whole, 7, 0)[1] if _bytes(one[1][0]) == identifier]
        found[1][-1][1] = contents

    return edit


def _odd_bits(value: Callable[[Node], Node]) -> Callable[[Node], None]:
    def edit(whole: Node) -> None:
        bits = value(whole)
        bits[1] = b"\x01" + bits[1][1:-1] + bytes([bits[1][-1] & 0xFE])

    return edit


def _zero_in_front(whole: Node) -> None:
    serial = _field(whole, 1)
    serial[1] = b"\0" + bytes([serial[1][0] & 0x7F]) + serial[1][1:]


def _other_form(whole: Node) -> None:
    _field(whole, 4)[1][1] = [0x18, b"20270101000000Z"]


def _emptied(*path: int) -> Callable[[Node], None]:
    def edit(whole: Node) -> None:
        _field(whole, *path)[1] = []

    return edit


FLAWS: Final[dict[str, Flaw]] = {
    "names not in DER": Flaw(2, 207, _extension(_NAMES, bytes.fromhex("308100"))),
    "names in a set": Flaw(2, 202, _extension(_NAMES, bytes.fromhex("3100"))),
    "constraints not in DER": Flaw(3, 207, _extension(_CONSTRAINTS, bytes.fromhex("308100"))),
    "constraints that say false": Flaw(3, 202, _extension(_CONSTRAINTS, bytes.fromhex("3003010100"))),
    "no such month": Flaw(0, 207, _put(4, 0, contents=b"261301000000Z")),
    "of version 1": Flaw(1, 202, _put(0, 0, contents=b"\0")),
    "a serial of 0": Flaw(1, 202, _put(1, contents=b"\0")),
    "a serial of 21 bytes": Flaw(1, 202, _put(1, contents=b"\x01" * 21)),
    "a serial with a zero in front": Flaw(0, 207, _zero_in_front),
    "two algorithms": Flaw(1, 202, _put(2, 0, contents=bytes.fromhex("2b6571"))),
    "an issuer that is a set": Flaw(1, 202, _tag(3, tag=0x31)),
    "a subject that is a set": Flaw(1, 202, _tag(5, tag=0x31)),
    "a validity that is a set": Flaw(1, 202, _tag(4, tag=0x31)),
    "a key in a tag of its own": Flaw(1, 202, _tag(6, tag=0xA6)),
    "the other form of a time": Flaw(1, 202, _other_form),
    "a validity of three times": Flaw(1, 202, _again(4)),
    "a validity of one time": Flaw(1, 202, _first_alone(4)),
    "a key of odd bits": Flaw(1, 202, _odd_bits(lambda whole: _field(whole, 6, 1))),
    "a signature of odd bits": Flaw(1, 202, _odd_bits(lambda whole: whole[1][2])),
    "an extension twice": Flaw(1, 202, _again(7, 0)),
    "an empty list of extensions": Flaw(1, 202, _emptied(7, 0)),
    "two lists of extensions": Flaw(1, 202, _again(7)),
    "no list of extensions": Flaw(1, 202, _emptied(7)),
    "nine fields": Flaw(1, 202, _again()),
}
"""By what is wrong. The table's order is that in which they can be made."""

TWO_FLAWS: Final = [
    ("an issuer that is a set", "two lists of extensions"),
    ("a validity of three times", "two lists of extensions"),
    ("an issuer that is a set", "no list of extensions"),
    ("a validity of three times", "no list of extensions"),
    ("names not in DER", "two lists of extensions"),
    ("names not in DER", "an issuer that is a set"),
    ("names not in DER", "a validity of three times"),
    ("a serial with a zero in front", "no list of extensions"),
    ("names in a set", "constraints not in DER"),
]
"""Pairs for the vectors, for which the order of the checks counts."""
