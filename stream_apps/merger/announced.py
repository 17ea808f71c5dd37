"""The manifests' hashes as mergers have announced them: a merger that starts holds the store against them."""

from __future__ import annotations

from collections.abc import Container

from backends.log import RecordReader
from backends.reading_back import backwards
from schemas.certificates import Trust
from schemas.records import Announcement, announcement_in
from schemas.topics import models_topic


def announced_manifests(
    reader: RecordReader, trust: Trust, task: str, regions: Container[str]
) -> dict[int, str]:
    """SHA-256 of the manifests by version, of the newest announcements: back to the first that a merger signed."""
    found: dict[int, str] = {}
    for records in backwards(reader, models_topic(task), 0):
        for record in records:
            said = announcement_in(record.value, record.timestamp_ms, trust)
            if isinstance(said, Announcement) and said.belongs_to(task, regions):
                found[said.version] = said.manifest_sha256
        if found:
            return found
    return found
