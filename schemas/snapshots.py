"""The bytes of a partition's state, written by difference: what has not changed since the last window is kept.

A snapshot goes with every window, and nearly all of it are contributions to versions that get none any more. The bytes
are those that fastavro writes of the same record by ``partition_state.v1.avsc``, ``v2`` or ``v3``, whose last fields
are the lists.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from schemas import avro as codec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aggregation.fold.contributions import Contributions
    from aggregation.fold.shares import Share
    from aggregation.fold.state import EdgePlace, PartitionState

_LISTS: Final = {
    1: ("models", "counted", "revoked", "norms"),
    2: ("models", "counted", "revoked", "norms", "superseded", "shares", "quarantined"),
    3: ("models", "counted", "revoked", "norms", "superseded", "shares", "quarantined", "edges"),
}
REMEMBERED: Final = 1 << 12
"""How many numbers, and how many devices' counts, are known as bytes: the same few come again and again."""
_SHORT_END: Final = 64
_SHORT: Final = tuple(bytes((length << 1,)) for length in range(_SHORT_END))
"""How a string of so many bytes begins: a length below 64 is one byte, and that is ASCII."""
_SHORT_TEXT: Final = tuple(begin.decode() for begin in _SHORT)
_NONE: Final = b"\0"
"""A list without items; also what ends one."""


def encode_state(state: PartitionState) -> bytes:
    """The state right after a window closed (its open window is empty). Equal states give equal bytes."""
    assert not state.window.records, "a state is only sealed between windows"
    scalars: dict[str, Any] = {
        "task": state.task,
        "region": state.region,
        "partition": state.partition,
        "next_offset": state.next_offset,
        "sequence": state.sequence,
        "version": state.version,
        "floor": state.floor,
        "policy_sha256": state.policy_sha256,
        "reference_sha256": state.reference_sha256,
    }
    version = 1 + state.policy.counts_shares + state.policy.says_bases
    if version > 1:
        scalars |= {
            "guide_sha256": state.guide_sha256,
            "usual_norm": state.usual.norm,
            "usual_cosine": state.usual.cosine,
            "usual_share": state.usual.share,
        }
    lists = _LISTS[version]
    begun = codec.encode_as("PartitionState", version, scalars | {name: [] for name in lists})
    assert begun.endswith(_NONE * len(lists)), "the schema's last fields are its lists"
    norms = state.history.values()
    parts = [begun[: -len(lists)]]
    parts += _list_of([_long(version) + _string(sha) for version, sha in sorted(state.models.items())])
    parts += _list_of([_counted(state.counted, version) for version in sorted(state.counted)])
    parts += _list_of([_string(name) for name in sorted(state.revoked)])
    parts += _list_of([struct.pack(f"<{len(norms)}d", *norms)] if norms else [], len(norms))
    if version > 1:
        parts += _list_of([_long(base) + _long(since) for base, since in state.superseded.items()])
        parts += _list_of([_string(device) + _share(share) for device, share in state.shares])
        ordered = sorted(state.shares.quarantined.items())
        parts += _list_of([_string(device) + _long(until) for device, until in ordered])
    if version > 2:  # noqa: PLR2004 (the first with edges)
        places = sorted(state.edges.items(), key=lambda entry: entry[0].encode())
        parts += _list_of([_string(edge) + _edge(at) for edge, at in places])
    return b"".join(parts)


def _edge(place: EdgePlace) -> bytes:
    counted = _long(place.version) + _long(place.accepted)
    return _long(place.sequence) + _string(place.sha256) + counted


def _share(share: Share) -> bytes:
    return _counts(share.version, share.tokens, share.accepted, share.refused, share.scored)


@lru_cache(maxsize=REMEMBERED)
def _counts(*counts: int) -> bytes:
    """Of a device's share: those of many devices are equal."""
    return b"".join(map(_long, counts))


def _counted(counted: Contributions, version: int) -> bytes:
    known, devices = counted.written.get(version), len(counted[version])
    if known is None or known[0] != devices:
        listed = _list_of([_strings(counted.ordered(version))] if devices else [], devices)
        known = counted.written[version] = (devices, _long(version) + b"".join(listed))
    return known[1]


def _list_of(items: Sequence[bytes], count: int | None = None) -> Iterable[bytes]:
    if not items:
        return (_NONE,)
    return (_long(len(items) if count is None else count), *items, _NONE)


def _string(text: str) -> bytes:
    data = text.encode()
    length = len(data)
    return (_SHORT[length] if length < _SHORT_END else _long(length)) + data


def _strings(texts: Sequence[str]) -> bytes:
    """One behind the other. Devices' ids are short and ASCII nearly always: then all are encoded at once."""
    if max(map(len, texts), default=0) < _SHORT_END:
        joined = "".join([_SHORT_TEXT[len(text)] + text for text in texts])
        if joined.isascii():
            return joined.encode()
    return b"".join(map(_string, texts))


@lru_cache(maxsize=REMEMBERED)
def _long(value: int) -> bytes:
    """Zigzag, then seven bits a byte, the lowest first."""
    left = (value << 1) ^ (value >> 63)
    if left < 0x80:  # noqa: PLR2004 (seven bits)
        return left.to_bytes(1, "little")
    out = bytearray()
    while left > 0x7F:  # noqa: PLR2004
        out.append(left & 0x7F | 0x80)
        left >>= 7
    out.append(left)
    return bytes(out)
