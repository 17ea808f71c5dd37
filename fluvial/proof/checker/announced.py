"""What stands in the models topic: announcements (invariants 2 and 6), and Revokes, behind which less counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from fluvial.proof.checker import wire
from fluvial.proof.checker.chain import Chain, Version, committed_in, compare_signed
from fluvial.proof.checker.derived import Entry, Logs
from fluvial.proof.checker.encoding import Undecodable
from fluvial.proof.checker.partitions import PartitionResult
from fluvial.proof.checker.report import Findings, Slot
from fluvial.proof.checker.task import Task

CLOCK_SKEW_MS: Final = 0
"""By how much an announcement's LogAppendTime may lie before its barriers': a cluster's brokers share a clock."""


def revoked_at(logs: Logs, task: Task) -> dict[str, int]:
    """Since when certificates are revoked: serial by LogAppendTime in ms, as the models topic says."""
    revoked: dict[str, int] = {}
    for _, timestamp_ms, _, value in logs.get((f"fl.{task.name}.models", 0), ()):
        sealed = _sealed(task, value)
        if sealed is not None:
            _hear(task, sealed, timestamp_ms, revoked)
    return revoked


def _sealed(task: Task, value: bytes | None) -> wire.Sealed | None:
    try:
        return wire.open_sealed(task.notary, value or b"")
    except Undecodable:
        return None


def _hear(task: Task, sealed: wire.Sealed, timestamp_ms: int, revoked: dict[str, int]) -> bool:
    """Whether it is a Revoke of a certificate, by an operator whose own was not revoked before it."""
    if not task.notary.revokes_all or sealed.kind != "Revoke" or not sealed.authentic_at(timestamp_ms):
        return False
    said, signer = sealed.record or {}, sealed.signer
    serial = said.get("certificate_serial")
    if said.get("task") != task.name or not serial or signer is None or signer.serial in revoked:
        return False
    revoked.setdefault(serial, timestamp_ms)
    return True


def check_announcements(
    chain: Chain,
    logs: Logs,
    partitions: Mapping[Slot, PartitionResult],
    *,
    clock_skew_ms: int | None = CLOCK_SKEW_MS,
) -> None:
    """Announcements name committed versions, and none stands before its barriers (invariants 2 and 6)."""
    task, findings = chain.shelf.task, chain.findings
    first: set[int] = set()
    for offset, timestamp_ms, said in _announcements(chain, logs.get((f"fl.{task.name}.models", 0), ())):
        version, region = said["version"], said["region"]
        what = f"announcement of version {version} to {region} at offset {offset}"
        committed = committed_in(chain, version)
        if committed is None:
            findings.violate(6, f"{what}: no such version is committed")
            continue
        compare_signed(chain, what, committed, said)
        if version not in first:
            first.add(version)
            _check_time(committed, timestamp_ms, findings)
        for result in (one for one in partitions.values() if one.slot[0] == region and version > 0):
            stands_ms = result.barriers.get(version)
            if stands_ms is None:
                if result.complete:
                    findings.violate(6, f"{what}: {result.name} has no barrier of it")
            elif clock_skew_ms is not None and timestamp_ms + clock_skew_ms < stands_ms:
                findings.violate(
                    6,
                    f"{what}: it stands since {timestamp_ms} ms, its barrier in {result.name} since {stands_ms} ms",
                )


def _check_time(committed: Version, timestamp_ms: int, findings: Findings) -> None:
    """A manifest carries no time: its certificate was valid when the version was announced first."""
    merger = committed.merger
    if merger is not None and not merger.not_before_ms <= timestamp_ms <= merger.not_after_ms:
        findings.violate(
            2, f"manifest of version {committed.number}: its certificate was not valid at {timestamp_ms} ms"
        )


def _announcements(chain: Chain, entries: Iterable[Entry]) -> Iterable[tuple[int, int, dict[str, Any]]]:
    """Those that a merger signed for a region of this task, with a certificate that was not revoked before them.

    Others are ignored.
    """
    task = chain.shelf.task
    revoked: dict[str, int] = {}
    for offset, timestamp_ms, _, value in entries:
        record, sealed = None, _sealed(task, value)
        if sealed is not None and _hear(task, sealed, timestamp_ms, revoked):
            continue
        if sealed is not None and sealed.kind == "ModelAnnouncement" and sealed.authentic_at(timestamp_ms):
            barred = sealed.signer is not None and sealed.signer.serial in revoked
            record = None if barred else sealed.record
        if record is None or record["task"] != task.name or record["region"] not in task.partitions:
            chain.findings.ignored += 1
            continue
        yield offset, timestamp_ms, record
