"""Looking through a partition's log for certificates that operators revoked."""

from __future__ import annotations

from collections.abc import Iterable

from aggregation.fold.rules import CERTIFICATE
from aggregation.server.aggregates import Slot
from backends.log import RecordReader
from backends.skips import Revoked
from schemas.certificates import Trust
from schemas.records import revoke_in
from schemas.topics import updates_topic


def serials_of(names: Iterable[str]) -> set[str]:
    """The serials (hex) among what a partition's state has as revoked, whichever rules its task has."""
    return {name.removeprefix(CERTIFICATE) for name in names}


def revoked_from(
    reader: RecordReader, trust: Trust, task: str, slot: Slot, start: int, *, known: Iterable[str] = ()
) -> set[str]:
    """The serials (hex) that operators' Revokes name from offset ``start`` to the log's end.

    ``known`` are the names of what is revoked before ``start``: what a revoked operator signs counts for nothing.
    """
    topic = updates_topic(task, slot[0])
    low, end = reader.bounds(topic, slot[1])
    revoked, found = Revoked(trust, task, known), set()
    for record in reader.read(topic, slot[1], max(low, start), end):
        revoked.hear(record)
        if trust.rules.revokes_all:
            continue
        revoke = revoke_in(record.value, record.timestamp_ms, trust)
        if revoke is not None and revoke.task == task and revoke.certificate_serial:
            found.add(revoke.certificate_serial)  # no Revoke bars an operator in these tasks
    return found | serials_of(revoked.certificates)
