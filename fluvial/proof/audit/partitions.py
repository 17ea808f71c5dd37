"""The first half of an audit: fold one partition's log again, and compare every window with what its worker published.

Runs in a process of its own for every partition; what it needs and what it returns are plain values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Final

from aggregation.errors import IntegrityProblem, UsageProblem
from aggregation.fold.events import Barrier, EdgeAggregate, Parked, Revoke
from aggregation.fold.rejections import ACCEPTED, CONTROL, PARKED
from aggregation.fold.state import PartitionState
from aggregation.server.aggregates import Aggregate, Slot
from aggregation.server.bounds import beyond_bound
from backends.log import RecordReader
from backends.object_store import ObjectNotFound
from backends.revocations import serials_of
from backends.skips import find_parking_skip
from backends.store.task_store import TaskStore
from fluvial.proof.audit.findings import AGGREGATE, LOG, OBJECT, SKIPS, fields_of, first_difference
from fluvial.proof.audit.folded import FoldedPartition, HeardWindow, SeenBarrier, SeenRevoke
from fluvial.proof.audit.sources import OpenSources
from fluvial.proof.audit.strays import REVOKED, kind_of
from fluvial.proof.audit.verdicts import Comparison, Judged, Place, VerdictsBound
from fluvial.proof.audit.vouched import VouchedBy
from fluvial.reading.parked import parked_in
from fluvial.reading.replay import (
    FoldRaised,
    PartitionReplay,
    Replayed,
    read_aggregates,
    resume_after,
    start_of_log,
)
from schemas.edges import trust_of
from schemas.manifests import Genesis
from schemas.objects import object_key, sha256_hex
from schemas.topics import aggregates_topic, updates_topic, verdicts_topic
from schemas.vouching import HeadPlace
from schemas.windows import EncodedWindow

HEARD_EVERY_RECORDS: Final = 200
SPILLED_SUMS_MAX: Final = 256
"""How many recomputed sums are kept on disk because the stored ones are damaged."""

_AGGREGATE_FIELDS: Final = tuple(spec.name for spec in fields(Aggregate))


@dataclass(frozen=True, slots=True)
class PartitionJob:
    """One partition to fold again.

    From after the window of ``start`` (None: from offset 0) up to offset ``updates_end``, or until ``sequence_stop``
    windows are closed. Of the published aggregates those below ``sequence_needed`` have to exist, and the sums of those
    are what the merge needs: where the store's are damaged, the recomputed ones go to ``spill``. ``verdicts`` is what
    there is of its verdicts; None compares none. ``revoked``: since when certificates are, serial by LogAppendTime in
    ms: a window that is signed with one later, and is wrong, is a stray.
    """

    sources: OpenSources
    task: str
    genesis_sha256: str
    slot: Slot
    start: Aggregate | None
    updates_end: int
    aggregates_end: int
    sequence_stop: int | None
    sequence_needed: int
    spill: Path
    verdicts: VerdictsBound | None = None
    revoked: Mapping[str, int] = field(default_factory=dict)

    @property
    def first_offset(self) -> int:
        """The first offset to fold."""
        return 0 if self.start is None else self.start.next_offset

    @property
    def records(self) -> int:
        """How many records there are to fold, at most."""
        return self.updates_end - self.first_offset

    @property
    def verdict_records(self) -> int:
        """How many records of the verdicts topic there are to look at."""
        return 0 if self.verdicts is None else self.verdicts.records_from(self.first_offset)


class Interrupted(Exception):
    """The audit was stopped from outside."""


def fold_partition(
    job: PartitionJob, heard: Callable[[Slot, int], None], stopped: Callable[[], bool]
) -> FoldedPartition:
    """Fold ``job``'s partition; ``heard(slot, next_offset)`` follows it, ``stopped()`` ends it with ``Interrupted``."""
    sources = job.sources()
    objects = TaskStore(sources.store, job.task)
    genesis = objects.genesis(job.genesis_sha256)
    region, partition = job.slot
    with sources.open_reader(f"fluvial-audit-{job.task}-{region}-{partition}") as reader:
        parked: dict[int, Parked] = {}
        while True:
            audited = _Audited(job, objects, genesis, reader, parked)
            folded = audited.run(heard, stopped)
            skipped = audited.skip_of_raised()
            if skipped is None:
                audited.compare_verdicts(heard, stopped)
                return folded
            # What raised has half-changed the state: fold from the start once more, without that record.
            parked[folded.next_offset] = skipped


class _Audited:
    def __init__(
        self,
        job: PartitionJob,
        objects: TaskStore,
        genesis: Genesis,
        reader: RecordReader,
        parked: Mapping[int, Parked],
    ) -> None:
        self._job = job
        self._objects = objects
        self._genesis = genesis
        self._reader = reader
        self._trust = trust_of(genesis, job.slot[0])
        self._parked = dict(parked)
        self._raised = False
        self._published: dict[int, dict[str, tuple[int, Aggregate]]] = {}
        self._doubtful: set[str] = set()
        self._published_end = 0
        self._last_published = -1
        self._spilled = 0
        self._head = HeadPlace(bytes.fromhex(job.genesis_sha256), job.slot)
        self._revoked: set[str] = set()
        first = job.start
        self._first_sequence = 0 if first is None else first.sequence + 1
        self._folded = FoldedPartition(job.slot, job.first_offset, job.first_offset, self._first_sequence)
        self._topic = aggregates_topic(job.task, job.slot[0])
        self._judged = Judged(job.first_offset, job.spill, self._trust.rules)

    def run(self, heard: Callable[[Slot, int], None], stopped: Callable[[], bool]) -> FoldedPartition:
        folded, findings = self._folded, self._folded.findings
        where = f"{updates_topic(self._job.task, self._job.slot[0])}[{self._job.slot[1]}]"
        try:
            self._read_published()
            self._find_parked()
            self._fold(heard, stopped)
            folded.complete = True
        except (IntegrityProblem, UsageProblem) as error:
            # A gap, a deleted beginning, an object that a barrier names, a defect: this log cannot be folded further.
            self._raised = isinstance(error, FoldRaised)
            findings.unreadable(LOG, f"log of {folded.name}", f"{where}@{folded.next_offset}", error)
        heard(folded.slot, folded.next_offset)
        self._check_what_was_never_recomputed()
        return folded

    def _read_published(self) -> None:
        for published in read_aggregates(
            self._reader,
            self._trust,
            self._job.task,
            self._job.slot,
            start=self._first_sequence,
            end=self._job.aggregates_end,
        ):
            aggregate = published.aggregate
            if published.flaw is not None:
                self._folded.strays.add(kind_of(published.flaw), self._at(published.offset))
            if aggregate is None:
                continue
            if aggregate.sequence >= self._first_sequence:
                contents = self._published.setdefault(aggregate.sequence, {})
                since = self._job.revoked.get(published.serial)
                if since is not None and published.timestamp_ms >= since:
                    if aggregate.sha256 not in contents:
                        self._doubtful.add(aggregate.sha256)
                else:
                    self._doubtful.discard(aggregate.sha256)
                    self._last_published = max(self._last_published, aggregate.sequence)
                contents.setdefault(aggregate.sha256, (published.offset, aggregate))

    def skip_of_raised(self) -> Parked | None:
        """What to fold instead, if the fold raised in a window that nobody has published yet, and a Skip parks it.

        Whoever published a window has folded its records, but for those that it counts as skipped.
        """
        offset = self._folded.next_offset
        if not self._raised or offset < self._published_end:
            return None
        return find_parking_skip(self._reader, self._trust, self._job.task, self._job.slot, offset)

    def compare_verdicts(self, heard: Callable[[Slot, int], None], stopped: Callable[[], bool]) -> None:
        """Hold what stands in the verdicts topic against what was folded, as far as signed windows cover it."""
        job, folded = self._job, self._folded
        if job.verdicts is None:
            return

        def follow(records: int) -> None:
            heard(job.slot, job.updates_end + records)
            if stopped():
                raise Interrupted

        comparison = Comparison(
            Place(folded.name, verdicts_topic(job.task, job.slot[0]), job.slot[1]),
            self._judged,
            VouchedBy(self._head, self._trust, serials_of(self._revoked)),
            covered=self._published_end,
            log_end=job.updates_end,
            signed_end=self._published_end,
        )
        folded.verdicts = comparison.run(self._reader, job.verdicts, folded.findings, heard=follow)
        follow(job.verdict_records)

    def _find_parked(self) -> None:
        published = [entry for contents in self._published.values() for entry in contents.values()]
        self._published_end = max(
            (one.next_offset for _, one in published if one.sha256 not in self._doubtful), default=0
        )
        parked = parked_in(
            self._reader, self._trust, self._job.task, self._head, (one for _, one in published)
        )
        self._parked |= parked.by_offset
        at = {one.sha256: offset for offset, one in published}
        for window, found in parked.unfounded:
            if window.sha256 in self._doubtful:
                continue
            self._folded.findings.add(
                SKIPS,
                f"aggregate {window.sequence} of {self._folded.name}",
                self._at(at[window.sha256]),
                "records that it counts as skipped",
                expected=f"{found}, as operators' Skips name",
                got=window.counts[PARKED],
            )

    def _fold(self, heard: Callable[[Slot, int], None], stopped: Callable[[], bool]) -> None:
        job, folded = self._job, self._folded
        state = (
            start_of_log(self._genesis, job.slot)
            if job.start is None
            else resume_after(self._objects, self._genesis, job.start)
        )
        replay = PartitionReplay(state, self._trust, self._objects, self._parked)
        self._revoked = state.revoked  # as the fold leaves it
        if job.sequence_stop is not None and state.sequence >= job.sequence_stop:
            return
        region, partition = job.slot
        for record in self._reader.read(
            updates_topic(job.task, region), partition, state.next_offset, job.updates_end
        ):
            replayed = replay.step(record)
            self._judged.add(replayed.verdict)
            folded.records += 1
            folded.next_offset = record.offset + 1
            folded.updates += replayed.verdict.outcome == ACCEPTED
            self._see(record.offset, replayed, state)
            if replayed.encoded is not None:
                self._check_window(replayed.encoded)
            if job.sequence_stop is not None and state.sequence >= job.sequence_stop:
                return
            if record.offset % HEARD_EVERY_RECORDS == 0:
                heard(job.slot, folded.next_offset)
                if stopped():
                    raise Interrupted

    def _see(self, offset: int, replayed: Replayed, state: PartitionState) -> None:
        """Remember barriers, Revokes and windows of edges."""
        folded, event = self._folded, replayed.event
        obeyed = replayed.verdict.outcome == CONTROL
        if isinstance(event, Barrier) and obeyed:
            folded.barriers.append(SeenBarrier(offset, event))
        elif isinstance(event, Revoke) and obeyed:
            folded.revokes += [SeenRevoke(name, state.version, offset) for name in event.named]
        elif isinstance(event, EdgeAggregate):
            window, place = event.window, state.edges.get(event.edge)
            if place is not None and (place.sequence - 1, place.sha256) == (window.sequence, window.sha256):
                heard = HeardWindow(window.sha256, window.version, offset)
                folded.edges.setdefault(event.edge, {}).setdefault(window.sequence, heard)

    def _check_window(self, encoded: EncodedWindow) -> None:
        recomputed = encoded.aggregate
        self._folded.aggregates.append(recomputed)
        contents = self._published.pop(recomputed.sequence, {})
        what = f"aggregate {recomputed.sequence} of {self._folded.name}"
        for offset, got in contents.values():
            if got.sha256 != recomputed.sha256 and not self._is_stray(offset, got):
                # sha256 is the record's own hash: name it only where no field explains it.
                differing = [
                    entry for entry in fields_of(recomputed, got, _AGGREGATE_FIELDS) if entry[1] != entry[2]
                ]
                content = [entry for entry in differing if entry[0] != "sha256"]
                self._folded.findings.compare(AGGREGATE, what, self._at(offset), content or differing)
                self._check_bound(got, what, self._at(offset))
        needed = recomputed.sequence < max(self._job.sequence_needed, self._last_published)
        if not contents and needed:
            self._folded.findings.add(
                AGGREGATE,
                what,
                f"{self._topic}[{self._job.slot[1]}]",
                "record",
                expected=f"published, {recomputed.sha256}",
                got="no record",
            )
        if contents or needed:
            self._check_objects(encoded, what)

    def _check_objects(self, encoded: EncodedWindow, what: str) -> None:
        kinds = {encoded.aggregate.state_sha256: "state", encoded.aggregate.sum_sha256: "sum"}
        for sha256, expected in encoded.objects.items():
            kind = kinds[sha256]
            key = object_key(self._job.task, sha256)
            if not self._same_object(f"{kind} of {what}", key, expected) and kind == "sum":
                self._spill(encoded.aggregate, expected)

    def _same_object(self, what: str, key: str, expected: bytes) -> bool:
        try:
            got = self._objects.store.get(key)
        except ObjectNotFound:
            self._folded.findings.add(
                OBJECT, what, key, "bytes", expected=sha256_hex(expected), got="no object"
            )
            return False
        if got == expected:
            return True
        detail = f"{sha256_hex(got)} ({first_difference(expected, got)})"
        self._folded.findings.add(OBJECT, what, key, "bytes", expected=sha256_hex(expected), got=detail)
        return False

    def _spill(self, aggregate: Aggregate, sums: bytes) -> None:
        if aggregate.sequence < self._job.sequence_needed and self._spilled < SPILLED_SUMS_MAX:
            self._spilled += 1
            (self._job.spill / aggregate.sum_sha256).write_bytes(sums)

    def _check_what_was_never_recomputed(self) -> None:
        """Published windows that the log, folded to its end, did not close."""
        folded, stop = self._folded, self._job.sequence_stop
        if not folded.complete:
            return
        for sequence, contents in sorted(self._published.items()):
            if stop is not None and sequence >= stop:
                break
            for offset, got in contents.values():
                if self._is_stray(offset, got):
                    continue
                what = f"aggregate {sequence} of {folded.name}"
                folded.findings.add(
                    AGGREGATE,
                    what,
                    self._at(offset),
                    "record",
                    expected="no such window in the log",
                    got=got.sha256,
                )

    def _check_bound(self, wrong: Aggregate, what: str, where: str) -> None:
        """Of a wrong window: whether its sums are more than updates of its weight can come to."""
        first = self._genesis.first_policy
        try:
            layout = self._genesis.tensor_layout
            sums = self._objects.sums(wrong.sum_sha256, layout, wrong.bucket_count)
            named = wrong.policy_sha256
            policy = first if named == first.sha256 else self._objects.policy(named)
        except (IntegrityProblem, UsageProblem):
            return  # it names what there is not: that has been found
        if beyond := beyond_bound(wrong, sums, policy, layout):
            reach, bound = beyond
            self._folded.findings.add(
                AGGREGATE, what, where, "largest sum", expected=f"at most {bound}", got=reach
            )

    def _is_stray(self, offset: int, wrong: Aggregate) -> bool:
        """Whether a wrong window was signed only with certificates that were revoked by then: it is counted apart."""
        if wrong.sha256 not in self._doubtful:
            return False
        self._folded.strays.add(REVOKED, self._at(offset))
        return True

    def _at(self, offset: int) -> str:
        return f"{self._topic}[{self._job.slot[1]}]@{offset}"
