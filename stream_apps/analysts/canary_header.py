"""The Kafka header that says, on an aggregate, how many of its window's refusals were of the region's canary.

It holds a flat JSON object of outcome and count, ``{}`` where there was none. No signature covers it, so it is clipped
to the counts that the aggregate's signature covers; without a good one nobody knows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from backends.log import Headers
from schemas.refusals import Standing, standing_of

NAME: Final = "fluvial-canaries"
VALUE_BYTES_MAX: Final = 2048


def pack(canaries: Mapping[str, int]) -> Headers:
    """The header of these refusals, by outcome."""
    return ((NAME, json.dumps(dict(canaries), sort_keys=True, separators=(",", ":")).encode()),)


def unpack(headers: Headers, counts: Mapping[str, int]) -> dict[str, int] | None:
    """The canary's refusals by outcome, each at most ``counts`` of the window; None where no header says it well."""
    for name, value in headers:
        if name == NAME:
            return _clipped(value, counts) if len(value) <= VALUE_BYTES_MAX else None
    return None


def without_canaries(counts: Mapping[str, int], canaries: Mapping[str, int]) -> dict[str, int]:
    """What is left of ``counts`` by outcome; an outcome of which nothing is left is left out."""
    left = {outcome: count - canaries.get(outcome, 0) for outcome, count in counts.items()}
    return {outcome: count for outcome, count in left.items() if count > 0}


def _clipped(value: bytes, counts: Mapping[str, int]) -> dict[str, int] | None:
    try:
        document = json.loads(value)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    if not all(isinstance(one, int) and not isinstance(one, bool) for one in document.values()):
        return None
    known = {outcome: min(document.get(outcome, 0), count) for outcome, count in counts.items()}
    return {
        outcome: count
        for outcome, count in known.items()
        if count > 0 and standing_of(outcome) is Standing.REFUSED
    }
