"""What stands in the models topic, as a merger reads it: manifests' hashes that mergers announced, and Revokes."""

from __future__ import annotations

import hashlib
from collections.abc import Container
from typing import Final

from backends.log import LogRecord, RecordReader
from backends.reading_back import VALUE_BYTES_MAX
from schemas.announcing import Announcers
from schemas.certificates import Trust
from schemas.records import Announcement
from schemas.topics import models_topic

RECORDS_MAX: Final = 100_000
"""Announcements that are looked at in one reading, the newest: anybody may have written an old one there again.

Of older records Revokes alone are heard: what came behind them is nobody's for ever.
"""


class Announced:
    """One task's models topic, read on from where it was read to.

    ``manifests`` has the SHA-256 of manifests by version, as the first announcement of each says.
    """

    def __init__(self, trust: Trust, task: str, regions: Container[str]) -> None:
        self.manifests: dict[int, str] = {}
        self._announcers = Announcers(trust, task)
        self._task = task
        self._regions = regions
        self._next = 0

    @property
    def revoked(self) -> frozenset[str]:
        """Names of the certificates that operators have revoked, of whatever role."""
        return frozenset(self._announcers.revoked)

    @property
    def mergers(self) -> frozenset[str]:
        """Names of the certificates that have announced a version."""
        return frozenset(self._announcers.announced)

    def read(self, reader: RecordReader) -> None:
        """Read on to the end; from the beginning where the topic was made anew. An outage loses nothing."""
        topic = models_topic(self._task)
        low, end = reader.bounds(topic, 0)
        start = max(low, self._next if self._next <= end else 0)
        seen: set[bytes] = set()
        for record in reader.read(topic, 0, start, end):
            if len(record.value or b"") > VALUE_BYTES_MAX:
                continue
            mark = hashlib.blake2b(record.value or b"", digest_size=16).digest()
            if record.offset < end - RECORDS_MAX:
                self._announcers.hear(record.value, record.timestamp_ms)
            elif mark not in seen:
                seen.add(mark)
                self._take(record)
            self._next = record.offset + 1
        self._next = end

    def _take(self, record: LogRecord) -> None:
        said = self._announcers.read(record.value, record.timestamp_ms)
        if isinstance(said, Announcement) and said.belongs_to(self._task, self._regions):
            self.manifests.setdefault(said.version, said.manifest_sha256)


def announced_manifests(
    reader: RecordReader, trust: Trust, task: str, regions: Container[str]
) -> dict[int, str]:
    """SHA-256 of the manifests by version, of the newest ``RECORDS_MAX`` records; a copy of one costs a look at it."""
    announced = Announced(trust, task, regions)
    announced.read(reader)
    return announced.manifests
