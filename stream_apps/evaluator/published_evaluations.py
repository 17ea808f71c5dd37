"""Which evaluations stand in the metrics topic already: where an evaluator goes on, and what it remembers.

Anybody who may write to the broker may have written them, so each is read as if it were hostile, and only numbers that
can be what they claim are kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from backends.log import LogRecord, RecordReader
from schemas.metrics import PROBLEM, PROBLEMS
from schemas.task_metric import ACCURACY, LOSS, is_finite, metric_in, named_in_record, values_of

TAIL_RECORDS: Final = 64
PIECE_RECORDS_MAX: Final = 65_536
RECALL_RECORDS_MAX: Final = 50_000
"""Records of the metrics topic that are read beyond what the newest evaluation takes: a second or two of a start."""
VERSION_MAX: Final = 2**31 - 1
_WORST: Final = "_worst_decile"
NUMBERS_MAX: Final = 32
"""Numbers of a task's own that are kept of an evaluation, by name."""

Evaluation = dict[str, Any]
"""``version`` and ``created_at_ms`` (0 where not known), whole numbers; the finite numbers of the task's own, its
worst decile, and ``metric`` and ``better``, which are texts, where the record has them.
"""


def read_evaluations(reader: RecordReader, topic: str, newest: int = VERSION_MAX) -> list[Evaluation]:
    """The newest evaluations by version, ascending, the first of each version; [] when there is none.

    ``newest`` is the newest version that there is: what claims to be an evaluation of a later one was planted.

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
        found |= _first_of_each(reader.read(topic, 0, start, high), newest)  # earlier ones win
        if found:
            left -= high - start
        high = start
        records = min(2 * records, PIECE_RECORDS_MAX)
    return [found[version] for version in sorted(found)]


def _first_of_each(records: Iterable[LogRecord], newest: int) -> dict[int, Evaluation]:
    piece: dict[int, Evaluation] = {}
    for record in records:
        one = _evaluation(record.value or b"")
        if one is not None and one["version"] <= newest:
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
    metric = metric_in(document)
    judges = {LOSS, ACCURACY if metric is None else metric.name}
    own = sorted(values_of(document).items(), key=lambda one: (one[0] not in judges, one[0]))
    worst = [name for name in document if name.endswith(_WORST) and is_finite(document[name])]
    problem = document.get(PROBLEM)
    return {
        **({PROBLEM: problem} if problem in PROBLEMS else {}),
        **dict(own[:NUMBERS_MAX]),
        **{name: document[name] for name in worst[:1]},
        **({} if metric is None else named_in_record(metric)),
        "version": version,
        "created_at_ms": created_at_ms if _whole(created_at_ms, 2**62) else 0,
    }


def _whole(value: object, maximum: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= maximum
