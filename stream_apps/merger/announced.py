"""The manifests' hashes as mergers have announced them: a merger that starts holds the store against them."""

from __future__ import annotations

from backends.log import RecordReader
from backends.reading_back import backwards
from schemas.avro import CodecError
from schemas.certificates import Role, Trust
from schemas.envelope import open_envelope
from schemas.records import authenticate
from schemas.topics import models_topic


def announced_manifests(reader: RecordReader, trust: Trust, task: str) -> dict[int, str]:
    """SHA-256 of the manifests by version, of the newest announcements: back to the first that a merger signed."""
    found: dict[int, str] = {}
    for records in backwards(reader, models_topic(task), 0):
        for record in records:
            try:
                envelope = open_envelope(record.value or b"")
            except CodecError:
                continue
            signer = authenticate(envelope, record.timestamp_ms, trust)
            authentic = getattr(signer, "role", None) is Role.MERGER and envelope.kind == "ModelAnnouncement"
            if authentic and envelope.record["task"] == task:
                found[envelope.record["version"]] = envelope.record["manifest_sha256"]
        if found:
            return found
    return found
