"""Looking through a partition's log for the Skip that parks a record: what worker, audit and lineage share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from aggregation.fold.events import Parked, Skip
from aggregation.fold.rules import CERTIFICATE
from aggregation.server.aggregates import Slot
from backends.log import LogRecord, RecordReader
from schemas.certificates import Trust
from schemas.records import revoke_in, skip_in
from schemas.topics import updates_topic


class Revoked:
    """What operators of a task have revoked in a partition's log so far; ``hear`` its records in their order.

    ``certificates`` are names as ``RecordRules.certificate_name`` gives them. In tasks where a Revoke bars devices only
    there is nothing to hear of.
    """

    def __init__(self, trust: Trust, task: str, known: Iterable[str] = ()) -> None:
        self._trust = trust
        self._task = task
        self.certificates = {name for name in known if name.startswith(CERTIFICATE)}

    def hear(self, record: LogRecord) -> None:
        """Take a Revoke, if the record is one and its signer may still revoke."""
        if not self._trust.rules.revokes_all:
            return
        revoke = revoke_in(record.value, record.timestamp_ms, self._trust)
        if revoke is not None and revoke.task == self._task and revoke.signer not in self.certificates:
            self.certificates.update(name for name in revoke.named if name.startswith(CERTIFICATE))

    def skip_in(self, record: LogRecord, slot: Slot) -> Skip | None:
        """The Skip of a record of this partition in it, if its signer may still skip."""
        skip = skip_in(record.value, record.timestamp_ms, self._trust)
        if skip is None or skip.signer in self.certificates:
            return None
        return skip if (skip.task, (skip.region, skip.partition)) == (self._task, slot) else None


def skipped_by(record: LogRecord, slot: Slot, offset: int, revoked: Revoked) -> Parked | None:
    """What to fold at ``offset``, if this later ``record`` of the same partition is an operator's Skip of it.

    ``revoked`` has heard what stands between them, and hears this record.
    """
    skip = revoked.skip_in(record, slot)
    revoked.hear(record)
    if skip is None or skip.offset != offset or record.offset <= offset:
        return None
    return Parked(record.offset, skip.reason)


def find_parking_skip(
    reader: RecordReader, trust: Trust, task: str, slot: Slot, offset: int
) -> Parked | None:
    """What to fold at ``offset``, if a Skip of it stands in the log by now: the first one counts."""
    revoked = Revoked(trust, task)
    for record in _log(reader, trust, task, slot, offset + 1):
        skipped = skipped_by(record, slot, offset, revoked)
        if skipped is not None:
            return skipped
    return None


def find_skips(
    reader: RecordReader, trust: Trust, task: str, slot: Slot, *, first: int, end: int
) -> dict[int, Parked]:
    """What Skips make of the offsets ``first`` to ``end`` - 1 that they name, wherever behind them they stand."""
    found: dict[int, Parked] = {}
    revoked = Revoked(trust, task)
    for record in _log(reader, trust, task, slot, first + 1):
        skip = revoked.skip_in(record, slot)
        if skip is not None and first <= skip.offset < min(end, record.offset):
            found.setdefault(skip.offset, Parked(record.offset, skip.reason))
        revoked.hear(record)
    return found


def _log(reader: RecordReader, trust: Trust, task: str, slot: Slot, start: int) -> Iterator[LogRecord]:
    """From ``start`` on; where operators can be revoked from the beginning, for a Revoke may stand anywhere before."""
    topic = updates_topic(task, slot[0])
    low, end = reader.bounds(topic, slot[1])
    return reader.read(topic, slot[1], low if trust.rules.revokes_all else start, end)
