"""What mergers signed about versions, in barriers and announcements, held against the manifests."""

from __future__ import annotations

from collections.abc import Iterable

from aggregation.defences import Usual
from aggregation.fold.events import Barrier, Revoke
from backends.log import RecordReader
from backends.object_store import ObjectNotFound
from backends.store.task_store import TaskStore
from fluvial.proof.audit.findings import MANIFEST, SIGNED_NAME, Findings
from fluvial.proof.audit.folded import FoldedPartition
from fluvial.proof.audit.strays import ELSEWHERE, Strays, kind_of
from fluvial.proof.audit.versions import Chain
from schemas.announcing import Announcers
from schemas.certificates import Trust
from schemas.manifest_inputs import usual_of
from schemas.objects import manifest_key
from schemas.records import Announcement, Unverified
from schemas.topics import models_topic, updates_topic


def check_barriers(
    objects: TaskStore, chain: Chain, head: int, partitions: Iterable[FoldedPartition], findings: Findings
) -> None:
    """Every authentic barrier has to name its version's manifest and what stands in it."""
    for partition in partitions:
        region, number = partition.slot
        topic = f"{updates_topic(objects.task, region)}[{number}]"
        for seen in partition.barriers:
            version = seen.barrier.version
            what, where = f"barrier of version {version}", f"{topic}@{seen.offset}"
            if 0 <= version <= chain.last:
                findings.compare(SIGNED_NAME, what, where, _barrier_fields(chain, seen.barrier))
            else:
                _check_made(version, what, where, objects, head=head, findings=findings)


def revoked_at(reader: RecordReader, trust: Trust, task: str, end: int) -> dict[str, int]:
    """Since when certificates are revoked, as the models topic says below ``end``: serial (hex) by time in ms."""
    announcers, found = Announcers(trust, task), dict[str, int]()
    if not trust.rules.revokes_all:
        return found
    for record in reader.read(models_topic(task), 0, 0, end):
        revoke = announcers.hear(record.value, record.timestamp_ms)
        if revoke is not None:
            found.setdefault(revoke.certificate_serial, record.timestamp_ms)
    return found


def check_announcements(
    reader: RecordReader, objects: TaskStore, chain: Chain, head: int, *, end: int, findings: Findings
) -> tuple[int, Strays]:
    """Every record of the models topic below offset ``end``; returns how many were authentic, and the others.

    What a merger signed behind the Revoke of its certificate is none of them, and neither is a Revoke.
    """
    announcers = Announcers(chain.genesis.trust, objects.task)
    topic = models_topic(objects.task)
    authentic, strays = 0, Strays()
    first: set[int] = set()
    for record in reader.read(topic, 0, 0, end):
        where = f"{topic}[0]@{record.offset}"
        found = announcers.read(record.value, record.timestamp_ms)
        if isinstance(found, Revoke):
            continue
        if isinstance(found, Unverified):
            strays.add(kind_of(found.flaw), where)
            continue
        if not found.belongs_to(objects.task, chain.genesis.regions):
            strays.add(ELSEWHERE, where)
            continue
        authentic += 1
        _check_announcement(found, where, objects, chain, head=head, findings=findings)
        if found.version not in first and 0 < found.version <= chain.last:
            first.add(found.version)
            _check_time(chain, found.version, record.timestamp_ms, findings, objects)
    return authentic, strays


def _check_time(
    chain: Chain, version: int, timestamp_ms: int, findings: Findings, objects: TaskStore
) -> None:
    """A manifest carries no time: its certificate was valid when the version was announced first."""
    merger = chain.links[version - 1].merger
    if merger is not None and not merger.valid_at(timestamp_ms):
        what, key = f"manifest of version {version}", manifest_key(objects.task, version)
        expected = f"valid at {timestamp_ms} ms, when it was announced first"
        got = f"certificate {merger.serial}, valid from {merger.not_before_ms} to {merger.not_after_ms} ms"
        findings.add(MANIFEST, what, key, "merger", expected=expected, got=got)


def _check_announcement(
    said: Announcement, where: str, objects: TaskStore, chain: Chain, *, head: int, findings: Findings
) -> None:
    version = said.version
    what = f"announcement of version {version}"
    if 0 <= version <= chain.last:
        fields = [
            ("manifest_sha256", chain.sha256(version), said.manifest_sha256),
            ("model_sha256", chain.hashes(version)[0], said.model_sha256),
            ("policy_sha256", chain.policy_sha256(version), said.policy_sha256),
        ]
        findings.compare(SIGNED_NAME, what, where, fields)
    else:
        _check_made(version, what, where, objects, head=head, findings=findings)


def _check_made(
    version: int, what: str, where: str, objects: TaskStore, *, head: int, findings: Findings
) -> None:
    """A version outside the audited ones has to be there; above ``head`` one may have been made meanwhile."""
    if not 0 <= version <= head and not _exists(objects, version):
        expected = f"0 to {head}, as the store has manifests"
        findings.add(SIGNED_NAME, what, where, "version", expected=expected, got=version)


def _barrier_fields(chain: Chain, barrier: Barrier) -> list[tuple[str, object, object]]:
    version = barrier.version
    expected: dict[str, object] = {
        "manifest_sha256": chain.sha256(version),
        "model_sha256": chain.hashes(version)[0],
        "policy_sha256": chain.policy_sha256(version),
        "reference_sha256": "",
        "floor": 0,
        "reason": "version",
        "usual": Usual(),
        "guide_sha256": "",
    }
    if version:
        manifest = chain.links[version - 1].manifest
        expected |= {
            "reference_sha256": manifest.reference_sha256,
            "floor": manifest.floor,
            "reason": manifest.reason,
            "usual": usual_of(manifest),
            "guide_sha256": manifest.guide_sha256,
        }
    return [(name, value, getattr(barrier, name)) for name, value in expected.items()]


def _exists(objects: TaskStore, version: int) -> bool:
    if version < 0:
        return False
    try:
        objects.manifest_bytes(version)
    except ObjectNotFound:
        return False
    return True
