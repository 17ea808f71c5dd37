"""Looking through a partition's log for certificates that operators revoked."""

from __future__ import annotations

from aggregation.server.aggregates import Slot
from backends.log import RecordReader
from schemas.certificates import Trust
from schemas.records import revoke_in
from schemas.topics import updates_topic


def revoked_from(reader: RecordReader, trust: Trust, task: str, slot: Slot, start: int) -> set[str]:
    """The serials (hex) that operators' Revokes name from offset ``start`` to the log's end."""
    topic = updates_topic(task, slot[0])
    low, end = reader.bounds(topic, slot[1])
    found = set()
    for record in reader.read(topic, slot[1], max(low, start), end):
        revoke = revoke_in(record.value, record.timestamp_ms, trust)
        if revoke is not None and revoke.task == task and revoke.certificate_serial:
            found.add(revoke.certificate_serial)
    return found
