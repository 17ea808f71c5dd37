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


SAID_MAX: Final = 4
"""Different announcements of one version that are kept."""

Said = tuple[str, str]
"""A manifest's SHA-256, and the name of the certificate that announced it."""


class Announced:
    """One task's models topic, read on from where it was read to."""

    def __init__(self, trust: Trust, task: str, regions: Container[str]) -> None:
        self._said: dict[int, tuple[Said, ...]] = {}
        self._announcers = Announcers(trust, task)
        self._task = task
        self._regions = regions
        self._next = 0

    @property
    def revoked(self) -> frozenset[str]:
        """Names of the certificates that operators have revoked, of whatever role."""
        return frozenset(self._announcers.revoked)

    def was_revoked(self, name: str, timestamp_ms: int) -> bool:
        """Whether a certificate of this name was revoked at this LogAppendTime, as far as was read."""
        since_ms = self._announcers.revoked.get(name)
        return since_ms is not None and since_ms <= timestamp_ms

    @property
    def mergers(self) -> frozenset[str]:
        """Names of the certificates that have announced a version."""
        return frozenset(self._announcers.announced)

    @property
    def manifests(self) -> dict[int, str]:
        """SHA-256 of manifests by version, as the first announcement says whose certificate is not revoked by now.

        Where all are, as the first one says.
        """
        revoked = self._announcers.revoked
        return {
            version: next((one for one in said if one[1] not in revoked), said[0])[0]
            for version, said in self._said.items()
        }

    @property
    def doubtful(self) -> frozenset[int]:
        """The versions that only certificates announced which are revoked by now."""
        revoked = self._announcers.revoked
        if not revoked:
            return frozenset()
        return frozenset(at for at, said in self._said.items() if all(one[1] in revoked for one in said))

    def read(self, reader: RecordReader) -> bool:
        """Read on to the end; from the beginning where the topic was made anew. An outage loses nothing.

        Whether there was anything to read.
        """
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
        return start < end

    def _take(self, record: LogRecord) -> None:
        said = self._announcers.read(record.value, record.timestamp_ms)
        if isinstance(said, Announcement) and said.belongs_to(self._task, self._regions):
            known, one = self._said.get(said.version, ()), (said.manifest_sha256, said.merger)
            if one not in known and len(known) < SAID_MAX:
                self._said[said.version] = (*known, one)


def announced_manifests(
    reader: RecordReader, trust: Trust, task: str, regions: Container[str]
) -> dict[int, str]:
    """SHA-256 of the manifests by version, of the newest ``RECORDS_MAX`` records; a copy of one costs a look at it."""
    announced = Announced(trust, task, regions)
    announced.read(reader)
    return announced.manifests
