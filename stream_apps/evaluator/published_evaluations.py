"""Which evaluations stand in the metrics topic already: where an evaluator goes on, and what it remembers.

Anybody who may write to the broker may have written them, so each is read as if it were hostile, and only numbers that
can be what they claim are kept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any, Final

from backends.log import LogRecord, RecordReader

TAIL_RECORDS: Final = 64
PIECE_RECORDS_MAX: Final = 65_536
RECALL_RECORDS_MAX: Final = 50_000
"""Records of the metrics topic that are read beyond what the newest evaluation takes: a second or two of a start."""
VERSION_MAX: Final = 2**31 - 1
_NUMBERS: Final = ("loss", "accuracy", "accuracy_worst_decile")

Evaluation = dict[str, Any]
"""``version`` and ``created_at_ms`` (0 where not known), whole numbers; ``loss``, ``accuracy`` and
``accuracy_worst_decile`` where the record has a finite one.
"""


def read_evaluations(reader: RecordReader, topic: str) -> list[Evaluation]:
    """The newest evaluations by version, ascending, the first of each version; [] when there is none.

    It reads back until there is an evaluation, however far, since the evaluator goes on behind it; and from there as
    far as version 0, or ``RECALL_RECORDS_MAX`` records.
    """
    low, high = reader.bounds(topic, 0)
    found: dict[int, Evaluation] = {}
    records = TAIL_RECORDS
    left = RECALL_RECORDS_MAX
    while high > low and 0 not in found and (not found or left > 0):
        # Windows and minutes may stand there by the thousand behind the newest evaluation: pieces that double.
        span = min(records, left) if found else records
        start = max(low, high - span)
        found |= _first_of_each(reader.read(topic, 0, start, high))  # earlier ones win
        if found:
            left -= high - start
        high = start
        records = min(2 * records, PIECE_RECORDS_MAX)
    return [found[version] for version in sorted(found)]


def _first_of_each(records: Iterable[LogRecord]) -> dict[int, Evaluation]:
    piece: dict[int, Evaluation] = {}
    for record in records:
        one = _evaluation(record.value or b"")
        if one is not None:
            piece.setdefault(one["version"], one)
    return piece


def _evaluation(value: bytes) -> Evaluation | None:
    if b'"evaluation"' not in value:
        return None
    try:
        document = json.loads(value)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or document.get("kind") != "evaluation":
        return None
    version, created_at_ms = document.get("version"), document.get("created_at_ms")
    if not _whole(version, VERSION_MAX):
        return None
    numbers = {name: document[name] for name in _NUMBERS if _finite(document.get(name))}
    return {
        "version": version,
        "created_at_ms": created_at_ms if _whole(created_at_ms, 2**62) else 0,
    } | numbers


def _whole(value: object, maximum: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= maximum


def _finite(value: object) -> bool:
    """Whether it is a number that a float holds: JSON may spell 1e999, and whole numbers of a thousand digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
