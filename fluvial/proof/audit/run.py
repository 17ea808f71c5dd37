"""One audit from beginning to end: bounds, chain, partitions in parallel, versions in order, signed names, digest."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from aggregation.errors import IntegrityProblem, UsageProblem
from aggregation.server.aggregates import Aggregate, Slot
from backends.folders import temporary_folder
from backends.log import RecordReader, TopicReader
from backends.object_store import ObjectNotFound
from backends.settings import Settings
from backends.store.task_store import TaskStore
from backends.tasks import TaskFile
from fluvial.proof.audit.edges import EdgesAsked, EdgeWalk, Walked
from fluvial.proof.audit.findings import GENESIS, Findings
from fluvial.proof.audit.folded import FoldedPartition
from fluvial.proof.audit.guides import check_guides
from fluvial.proof.audit.named import check_named_objects
from fluvial.proof.audit.parents import check_parent
from fluvial.proof.audit.partitions import PartitionJob
from fluvial.proof.audit.pool import Folders
from fluvial.proof.audit.progress import Progress
from fluvial.proof.audit.report import AuditReport
from fluvial.proof.audit.signed import check_announcements, check_barriers, revoked_at
from fluvial.proof.audit.sources import OpenSources, sources_of
from fluvial.proof.audit.strays import Strays
from fluvial.proof.audit.verdicts import VerdictsBound, bound_of
from fluvial.proof.audit.versions import Chain, MergedVersion, Remerge, read_chain
from fluvial.reading.replay import find_aggregate
from fluvial.terminal.output import Output, quiet_output
from schemas.certificates import Trust
from schemas.manifests import Genesis, decode_genesis
from schemas.objects import manifest_key, sha256_hex
from schemas.topics import aggregates_topic, models_topic, updates_topic, verdicts_topic

RECORDS_IN_PARALLEL_MIN: Final = 1000
"""A log of fewer records is folded by the audit's own process: less than a second, and connections cost as much."""
_NOT_RECOMPUTED: Final = "-"


@dataclass(frozen=True, slots=True)
class _Bounds:
    """Where every log ended when the audit began, in this order: head, announcements, aggregates, verdicts, updates.

    A version's aggregates stand before its manifest, an aggregate's verdicts before it, and the records that they judge
    before them: so whatever is inside the earlier bound has all that it was made from inside the later one, though
    workers go on writing.
    """

    announcements: int
    aggregates: dict[Slot, int]
    verdicts: dict[Slot, VerdictsBound]
    updates: dict[Slot, int]


def audit_task(
    settings: Settings,
    task_file: TaskFile,
    *,
    first: int = 1,
    last: int | None = None,
    jobs: int | None = None,
    output: Output | None = None,
    sources: OpenSources | None = None,
    edges: EdgesAsked | None = None,
) -> AuditReport:
    """Recompute versions ``first`` to ``last`` (None: the head) from the logs and compare everything bit for bit.

    Trusts the genesis document whose hash ``task_file`` pins, and with ``first`` > 1 also version ``first`` - 1.
    ``jobs`` processes fold partitions in parallel (None: one a core, fewer for a short log). ``sources``: where to
    read; None for the broker and the store of ``settings``. ``edges``: where the logs of edges are that are elsewhere.

    Raises UsageProblem FLV-5010 (versions that do not exist, jobs below 1), FLV-5011 (the store has no such task),
    and what an outage raises; what the audit finds is in the report.
    """
    output = output or quiet_output()
    started_s = time.monotonic()
    sources = partial(sources_of, settings) if sources is None else sources
    objects = TaskStore(sources().store, task_file.task)
    findings = Findings()
    genesis = _genesis(objects, task_file.genesis_sha256, findings)
    if jobs is not None and jobs < 1:
        raise UsageProblem(
            "FLV-5010",
            f"--jobs is {jobs}, it has to be 1 or more",
            hint="leave it out for one process a core",
        )
    if genesis is None:
        seconds = time.monotonic() - started_s
        return AuditReport(
            task_file.task,
            task_file.genesis_sha256,
            first,
            last or 0,
            0,
            "",
            (),
            0,
            findings,
            seconds,
            jobs or 1,
        )
    check_named_objects(objects, genesis, findings)
    if told := check_parent(objects, genesis, findings):
        output.say(told)
    audit = _Audit(sources, task_file, objects, genesis=genesis, findings=findings, output=output)
    return audit.run(first, last, jobs, started_s, edges or EdgesAsked())


class _Audit:
    def __init__(
        self,
        sources: OpenSources,
        task_file: TaskFile,
        objects: TaskStore,
        *,
        genesis: Genesis,
        findings: Findings,
        output: Output,
    ) -> None:
        self._sources = sources
        self._task = task_file.task
        self._genesis_sha256 = task_file.genesis_sha256
        self._objects = objects
        self._genesis = genesis
        self._findings = findings
        self._output = output

    def run(
        self, first: int, last: int | None, jobs: int | None, started_s: float, edges: EdgesAsked
    ) -> AuditReport:
        head = self._head()
        last = head if last is None else last
        _check_range(first, last, head)
        processes = min(jobs or _cores(), len(self._genesis.slots))
        with (
            Folders(processes, self._genesis.first_policy.updates.codecs) as folders,
            self._sources().open_reader(f"fluvial-audit-{self._task}") as reader,
        ):
            bounds = self._bounds(reader)
            chain = read_chain(
                self._objects,
                self._genesis,
                self._genesis_sha256,
                last=last,
                head=head,
                findings=self._findings,
            )
            partitions: list[FoldedPartition] = []
            merged: list[MergedVersion] = []
            announcements, strays, walked = 0, Strays(), Walked()
            if chain.last >= first - 1:
                with temporary_folder("fluvial-audit-") as folder:
                    work = self._work(
                        reader,
                        chain,
                        bounds,
                        first=first,
                        stop_after=last if last < head else None,
                        folder=folder,
                    )
                    processes = folders.processes
                    if jobs is None and sum(job.records for job in work) < RECORDS_IN_PARALLEL_MIN:
                        processes = 1
                    elif folders.alone_because:
                        self._output.say(f"no processes beside this one: {folders.alone_because}")
                    self._say_what(first, last, processes)
                    partitions = self._fold(work, folders, alone=processes == 1)
                    walked = self._walk(edges, partitions, work, folders, folder)
                    merged = self._merge_again(chain, first, head, partitions, folder)
                    check_guides(self._objects, chain, first, self._findings)
                check_barriers(self._objects, chain, head, partitions, self._findings)
                end = bounds.announcements
                announcements, strays = check_announcements(
                    reader, self._objects, chain, head, end=end, findings=self._findings
                )
        return AuditReport(
            task=self._task,
            genesis_sha256=self._genesis_sha256,
            first=first,
            last=last,
            versions=len(merged),
            digest=_digest(chain, first, merged, partitions),
            partitions=tuple(partitions),
            announcements=announcements,
            announcement_strays=strays,
            findings=self._findings,
            seconds=time.monotonic() - started_s,
            jobs=processes,
            edges=walked,
        )

    def _head(self) -> int:
        head = self._objects.newest_manifest()
        assert head is not None, "the genesis was read, so there is a version 0"
        return head.version

    def _bounds(self, reader: TopicReader) -> _Bounds:
        announcements = reader.bounds(models_topic(self._task), 0)[1]
        slots = self._genesis.slots
        aggregates = {
            slot: reader.bounds(aggregates_topic(self._task, slot[0]), slot[1])[1] for slot in slots
        }
        verdicts = {slot: bound_of(reader, verdicts_topic(self._task, slot[0]), slot[1]) for slot in slots}
        updates = {slot: reader.bounds(updates_topic(self._task, slot[0]), slot[1])[1] for slot in slots}
        return _Bounds(announcements, aggregates, verdicts, updates)

    def _say_what(self, first: int, last: int, jobs: int) -> None:
        processes = "1 process" if jobs == 1 else f"{jobs} processes"
        self._output.say(f"auditing task {self._task}, versions {first} to {last}, with {processes}")
        if first > 1:
            self._output.say(
                f"this audit trusts version {first - 1} (its manifest, its model, the states that its windows left); "
                "without --from it trusts only the genesis document"
            )

    def _work(
        self,
        reader: RecordReader,
        chain: Chain,
        bounds: _Bounds,
        *,
        first: int,
        stop_after: int | None,
        folder: Path,
    ) -> list[PartitionJob]:
        """One job a partition; ``stop_after`` is the version after whose windows folding may stop (None: fold all)."""
        needed = chain.cursors(chain.last)
        trust = self._genesis.trust
        revoked = revoked_at(reader, trust, self._task, bounds.announcements)
        work = []
        for slot in self._genesis.slots:
            whole = stop_after is None or chain.last < stop_after
            work.append(
                PartitionJob(
                    sources=self._sources,
                    task=self._task,
                    genesis_sha256=self._genesis_sha256,
                    slot=slot,
                    start=self._start(reader, trust, chain, slot, first - 1),
                    updates_end=bounds.updates[slot],
                    aggregates_end=bounds.aggregates[slot],
                    sequence_stop=None if whole else needed[slot],
                    sequence_needed=needed[slot],
                    spill=folder,
                    verdicts=bounds.verdicts[slot],
                    revoked=revoked,
                )
            )
        return work

    def _start(
        self, reader: RecordReader, trust: Trust, chain: Chain, slot: Slot, trusted: int
    ) -> Aggregate | None:
        newest = chain.newest_input(slot, trusted)
        if newest is None:
            return None
        return find_aggregate(reader, trust, self._task, slot, sequence=newest.sequence, sha256=newest.sha256)

    def _fold(self, work: list[PartitionJob], folders: Folders, *, alone: bool) -> list[FoldedPartition]:
        with Progress(
            self._output,
            {job.slot: (job.first_offset, job.updates_end + job.verdict_records) for job in work},
        ) as progress:
            partitions = folders.fold(work, progress.heard, alone=alone)
        for partition in partitions:
            self._findings.extend(partition.findings)
        return partitions

    def _walk(
        self,
        edges: EdgesAsked,
        partitions: list[FoldedPartition],
        work: list[PartitionJob],
        folders: Folders,
        folder: Path,
    ) -> Walked:
        """Down to the edges that the partitions heard."""
        walk = EdgeWalk(
            self._sources,
            edges,
            task=self._task,
            genesis_sha256=self._genesis_sha256,
            folder=folder,
            findings=self._findings,
            fold=lambda jobs: self._fold(jobs, folders, alone=True),
        )
        walked = walk.run(partitions, work[0].revoked)
        for edge, because in walked.left:
            self._output.say(f"the log of edge {edge} was not walked: {because}")
        return walked

    def _merge_again(
        self, chain: Chain, first: int, head: int, partitions: list[FoldedPartition], folder: Path
    ) -> list[MergedVersion]:
        windows = {(one.slot, one.sequence): one for partition in partitions for one in partition.aggregates}
        told = {seen.barrier.version for partition in partitions for seen in partition.barriers}
        remerge = Remerge(
            self._objects,
            chain,
            windows,
            folder,
            self._findings,
            files_due=lambda version: version < head or version in told,
        )
        merged: list[MergedVersion] = []
        if not remerge.begin(first - 1):
            return merged
        with self._output.waiting("versions to be merged again") as waiting:
            for version in range(first, chain.last + 1):
                waiting.note(f"version {version} of {chain.last}")
                one = remerge.version(version)
                if one is None:
                    break
                merged.append(one)
        return merged


def _genesis(objects: TaskStore, pinned_sha256: str, findings: Findings) -> Genesis | None:
    key = manifest_key(objects.task, 0)
    try:
        data = objects.manifest_bytes(0)
    except ObjectNotFound as error:
        raise UsageProblem(
            "FLV-5011",
            f"the store has no task {objects.task}: there is no {key}",
            where=objects.store.describe(),
            hint="see which store this is with `fluvial config show --sources`, and the tasks with `fluvial task list`",
        ) from error
    got = sha256_hex(data)
    if got != pinned_sha256:
        findings.add(GENESIS, "genesis document", key, "sha256", expected=pinned_sha256, got=got)
        return None
    try:
        genesis = decode_genesis(data)
    except IntegrityProblem as error:
        findings.unreadable(GENESIS, "genesis document", key, error)
        return None
    return (
        genesis
        if findings.compare(GENESIS, "genesis document", key, [("task", objects.task, genesis.task)])
        else None
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_range(first: int, last: int, head: int) -> None:
    if head == 0 and (first, last) == (1, 0):
        return  # a task without versions yet: its logs can be folded all the same
    if not 1 <= first <= last <= head:
        exist = f"versions 1 to {head} exist" if head else "there is no version above 0 yet"
        raise UsageProblem(
            "FLV-5010",
            f"cannot audit versions {first} to {last}: {exist}",
            hint="see the versions with `fluvial versions`; version 0 is the genesis, which every audit checks",
        )


def _digest(
    chain: Chain, first: int, merged: Iterable[MergedVersion], partitions: Iterable[FoldedPartition]
) -> str:
    """SHA-256 over: genesis; by version manifest, model, optimizer, reference; by partition its merged windows."""
    digest = hashlib.sha256(f"fluvial/audit/v1 {chain.genesis_sha256}\n".encode())
    by_version = {one.version: one for one in merged}
    for version in range(first, chain.last + 1):
        hashes = " ".join(_hashes(by_version.get(version)))
        digest.update(f"version {version} {chain.sha256(version)} {hashes}\n".encode())
    before, after = chain.cursors(min(first - 1, chain.last)), chain.cursors(chain.last)
    for partition in partitions:
        region, number = partition.slot
        known = {one.sequence: one.sha256 for one in partition.aggregates}
        for sequence in range(before[partition.slot], after[partition.slot]):
            sha256 = known.get(sequence, _NOT_RECOMPUTED)
            digest.update(f"window {region} {number} {sequence} {sha256}\n".encode())
    return digest.hexdigest()


def _hashes(one: MergedVersion | None) -> tuple[str, ...]:
    return (one.model_sha256, one.optimizer_sha256, one.reference_sha256) if one else (_NOT_RECOMPUTED,)
