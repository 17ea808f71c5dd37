"""The manifests' hashes as mergers have announced them: a merger that starts holds the store against them."""

from __future__ import annotations

import hashlib
from collections.abc import Container
from typing import Final

from backends.log import RecordReader
from backends.reading_back import backwards
from schemas.certificates import Trust
from schemas.records import Announcement, announcement_in
from schemas.topics import models_topic

RECORDS_MAX: Final = 100_000
"""Records of the models topic that are read back: anybody may have written an old announcement there again."""


def announced_manifests(
    reader: RecordReader, trust: Trust, task: str, regions: Container[str]
) -> dict[int, str]:
    """SHA-256 of the manifests by version, of the newest ``RECORDS_MAX`` records; a copy of one costs a look at it."""
    found: dict[int, str] = {}
    seen: set[bytes] = set()
    read = 0
    for records in backwards(reader, models_topic(task), 0):
        for record in records:
            mark = hashlib.blake2b(record.value or b"", digest_size=16).digest()
            if mark in seen:
                continue
            seen.add(mark)
            said = announcement_in(record.value, record.timestamp_ms, trust)
            if isinstance(said, Announcement) and said.belongs_to(task, regions):
                found.setdefault(said.version, said.manifest_sha256)
        read += len(records)
        if read >= RECORDS_MAX:
            break
    return found
