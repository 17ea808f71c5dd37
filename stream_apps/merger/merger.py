"""The merger's work without its framework: take aggregates, decide when a version is due, derive, commit, tell all.

The one decision (which aggregates) becomes true by one conditional PUT of the manifest. Everything after it is derived
from the head manifest, so it can be done again by anybody, any number of times: the checkpoint's files, the barriers,
the announcements. A merger that starts, or that has lost a race, just finishes the head and goes on from it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from aggregation.errors import IntegrityProblem
from aggregation.policy import Policy
from aggregation.server.aggregates import Aggregate, PendingAggregates, Slot
from aggregation.server.merge import Checkpoint, Step, add_sums, choose, merge
from backends.crash_points import crash_point
from backends.log import FLUSH_TIMEOUT_S, Headers, LogRecord
from backends.object_store import StoreUnavailable
from backends.outages import OUTAGES, UNREADABLE, Outage, Result, retry_through_outage
from schemas.checkpoints import encode_direction, encode_model, encode_optimizer
from schemas.manifests import Manifest, decode_manifest, input_of, next_cursors, sum_counts
from schemas.objects import sha256_hex
from schemas.topics import aggregates_topic, models_topic, updates_topic
from stream_apps.merger.announced import announced_manifests
from stream_apps.process_context import ProcessContext
from stream_apps.worker.resume_point import read_aggregate

log = logging.getLogger("fluvial.merger")


@dataclass(frozen=True, slots=True)
class Version:
    """A committed version as the merger carries it: hashes, cursors, and its arrays."""

    number: int
    manifest_sha256: str
    model_sha256: str
    reference_sha256: str
    policy_sha256: str
    floor: int
    reason: str
    cursors: Mapping[Slot, int]
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class Derived:
    """A step with the bytes that go to the store."""

    step: Step
    model: bytes
    optimizer: bytes
    reference: bytes


class Merger:
    """One merger. Not thread-safe: one call at a time. Every call blocks and waits out outages, saying so."""

    def __init__(self, outside: ProcessContext) -> None:
        self.outside = outside
        self.store = outside.store
        self.genesis = outside.genesis
        self.layout = outside.layout
        self._policies: dict[str, Policy] = {}
        self._next_offsets: dict[Slot, int] = dict.fromkeys(self.genesis.slots, 0)
        self._log_offsets: dict[tuple[Slot, int], int] = {}
        self._waiting_since_s: float | None = None
        self._started = False
        self._headers: Headers = ()
        self._announced: dict[int, str] = {}
        self.head = self._genesis_version()
        self.pending = PendingAggregates(self.head.cursors)

    def _retry(
        self, what: str, action: Callable[[], Result], while_raising: tuple[Outage, ...] = OUTAGES
    ) -> Result:
        return retry_through_outage(what, action, while_raising, self.outside.clock)

    # -- starting and catching up

    def resume(self) -> Mapping[Slot, int]:
        """Adopt the head of the chain; returns, for each slot, where to go on reading its aggregates topic.

        Once started it answers from memory, so that it can be asked again at any time.
        """
        if not self._started:
            self._started = True
            self._retry("look for every version's manifest", self._require_whole_chain)
            self._announced = self._retry("read the announcements", self._read_announced)
            self.adopt_head()
            self._require_announced_head()
            self.finish()
            facts = self._retry("read the head's facts", lambda: self.store.facts(self.head.number))
            offsets = _facts_offsets(facts)
            self._next_offsets |= self._retry(
                "see where the windows begin", lambda: self._still_there(offsets)
            )
            self.outside.observer.adopted(self.head.number, self.genesis.partitions)
        return dict(self._next_offsets)

    def _require_whole_chain(self) -> None:
        """Where a manifest is lost, the version before it looks like the head: what came of it would be a fork."""
        missing = self.store.missing_versions()
        if missing:
            raise IntegrityProblem(
                "FLV-3303",
                f"version {missing[0]} has no manifest, but a later version has one",
                where=self.store.store.describe(),
                hint="restore it from a backup: its SHA-256 stands in the barriers of its version",
            )

    def _require_announced_head(self) -> None:
        """The same where the newest manifest is lost: only the announcements still know of it."""
        announced = max(self._announced, default=0)
        if announced > self.head.number:
            raise IntegrityProblem(
                "FLV-3303",
                f"version {announced} was announced, and the newest manifest is version {self.head.number}'s",
                where=self.store.store.describe(),
                hint=f"restore it from a backup: its SHA-256 is {self._announced[announced]}",
            )

    def _read_announced(self) -> dict[int, str]:
        with self.outside.open_reader("announced") as reader:
            return announced_manifests(reader, self.outside.trust, self.genesis.task)

    def _still_there(self, advised: Mapping[Slot, int]) -> dict[Slot, int]:
        """Advice that points beyond the end of its log (it was restored from a copy, say) is no advice."""
        verified = {}
        with self.outside.open_reader("bounds") as reader:
            for slot in sorted(advised.keys() & self._next_offsets.keys()):
                _, end = reader.bounds(aggregates_topic(self.genesis.task, slot[0]), slot[1])
                verified[slot] = advised[slot] if advised[slot] <= end else 0
        return verified

    def adopt_head(self) -> None:
        """Move to the newest committed version, deriving on the way what its merger did not get to write."""
        head = self._retry("find the head version", lambda: self.store.head(self.head.number))
        if head is None:
            return
        first = self._retry("look for a checkpoint", lambda: self._newest_checkpoint(head.version))
        for number in range(first, head.version + 1):
            self.head = self._retry(f"load version {number}", partial(self._load, number), UNREADABLE)
        self._forget_merged()

    def _newest_checkpoint(self, head: int) -> int:
        """The newest version above ours whose files are there: no need to go through those before it."""
        number = max(head, self.head.number + 1)
        while number > self.head.number + 1 and not self.store.has_checkpoint(number):
            number -= 1
        return number

    def _forget_merged(self) -> None:
        cursors = self.head.cursors
        self.pending.advance(cursors)
        self._log_offsets = {
            (slot, sequence): offset
            for (slot, sequence), offset in self._log_offsets.items()
            if sequence >= cursors[slot]
        }

    def _load(self, number: int) -> Version:
        data = self._checked_manifest(number)
        manifest = decode_manifest(data)
        if self.store.has_checkpoint(number):
            checkpoint = self.store.checkpoint(
                number, manifest.model_sha256, manifest.optimizer_sha256, self.layout
            )
        elif manifest.parent_sha256 == self.head.manifest_sha256:
            checkpoint = self._derive_again(manifest)
        else:
            raise StoreUnavailable(
                "FLV-3301", f"version {number} has no model file yet, and its parent is not loaded"
            )
        return _version(manifest, sha256_hex(data), checkpoint)

    def _checked_manifest(self, number: int) -> bytes:
        """A manifest's bytes. No hash names them in the store: read twice, and held against their announcement."""
        data = self.store.manifest_bytes(number)
        if data != self.store.manifest_bytes(number):
            raise StoreUnavailable("FLV-4103", f"two reads of the manifest of version {number} differ")
        announced = self._announced.get(number, sha256_hex(data))
        if announced != sha256_hex(data):
            raise IntegrityProblem(
                "FLV-3304",
                f"the manifest of version {number} is {sha256_hex(data)[:12]}, announced was {announced[:12]}",
                where=self.store.store.describe(),
                hint="restore it from a backup; this merger waits and builds nothing on it, see "
                "docs/runbooks/damaged-object.md",
            )
        return data

    def _derive_again(self, manifest: Manifest) -> Checkpoint:
        """Write the files of a version whose merger died between the commit and the files."""
        sums = (self.store.sums(one.sum_sha256, self.layout) for one in manifest.inputs if one.sum_sha256)
        derived = self._derive(sums, manifest.accepted, manifest.weight_total)
        same = (sha256_hex(derived.model), sha256_hex(derived.optimizer)) == (
            manifest.model_sha256,
            manifest.optimizer_sha256,
        )
        if not same:
            raise StoreUnavailable(
                "FLV-3302",
                f"version {manifest.version} derives to another model than its manifest says",
                hint="run `fluvial audit`; this merger commits nothing until it is resolved",
            )
        self.store.put_object(derived.reference)
        self.store.write_checkpoint(manifest.version, derived.model, derived.optimizer)
        log.info(
            "finished version %d, which another merger had committed",
            manifest.version,
            extra={"version": manifest.version},
        )
        return derived.step.checkpoint

    def _genesis_version(self) -> Version:
        genesis = self.genesis
        checkpoint = self._retry(
            "load version 0",
            lambda: self.store.checkpoint(0, genesis.model_sha256, genesis.optimizer_sha256, self.layout),
            UNREADABLE,
        )
        policy = genesis.first_policy
        self._policies[policy.sha256] = policy
        return Version(
            number=0,
            manifest_sha256=sha256_hex(genesis.canonical()),
            model_sha256=genesis.model_sha256,
            reference_sha256="",
            policy_sha256=policy.sha256,
            floor=0,
            reason="version",
            cursors=dict.fromkeys(self.genesis.slots, 0),
            checkpoint=checkpoint,
        )

    # -- taking aggregates

    def offer(self, record: LogRecord, region: str) -> None:
        """Take one record of an aggregates topic, or first the ones before it that the framework has lost."""
        slot = (region, record.partition)
        expected = self._next_offsets[slot]
        if record.offset > expected:
            self._retry("read the windows that were missed", lambda: self._take_missing(slot, record.offset))
        if record.offset >= expected:
            self._take(record, slot)

    def _take_missing(self, slot: Slot, end: int) -> None:
        topic = aggregates_topic(self.genesis.task, slot[0])
        with self.outside.open_reader("missing") as reader:
            for missing in reader.read(topic, slot[1], self._next_offsets[slot], end):
                self._take(missing, slot)

    def _take(self, record: LogRecord, slot: Slot) -> None:
        self._next_offsets[slot] = record.offset + 1
        aggregate = read_aggregate(record, self.outside.trust, self.genesis.task, slot[0])
        if aggregate is None:
            return
        if self.pending.offer(aggregate):
            self._log_offsets[(slot, aggregate.sequence)] = record.offset
            self.outside.observer.window_taken(record, aggregate)
            if self._waiting_since_s is None and self.pending.updates:
                self._waiting_since_s = self.outside.clock.monotonic()

    # -- making versions

    def merge_if_due(self) -> bool:
        """Commit the next version if it is due; True when the head has moved (by us or by another merger)."""
        policy = self._policy(self.head.policy_sha256)
        waited_s = (
            self.outside.clock.monotonic() - self._waiting_since_s
            if self._waiting_since_s is not None
            else 0.0
        )
        waiting = self.pending.waiting()
        self.outside.observer.waiting(len(waiting), self.pending.updates, policy.buffer.updates)
        chosen = choose(waiting, policy, deadline_passed=waited_s >= policy.buffer.seconds_max)
        if not chosen:
            return False
        self.outside.observer.merging(self.head.number + 1, chosen)
        derived, manifest = self._retry("merge", lambda: self._next_version(chosen), UNREADABLE)
        data = manifest.canonical()
        self._retry("store the step's direction", lambda: self.store.put_object(derived.reference))
        self.outside.observer.committing(manifest.version)
        crash_point("merger.before-commit")
        if self._retry(f"commit version {manifest.version}", lambda: self._commit(manifest.version, data)):
            crash_point("merger.after-commit")
            self._retry(
                "write the checkpoint",
                lambda: self.store.write_checkpoint(manifest.version, derived.model, derived.optimizer),
            )
            crash_point("merger.after-checkpoint")
            self.head = _version(manifest, sha256_hex(data), derived.step.checkpoint)
            self._forget_merged()
            size = len(data) + len(derived.model) + len(derived.optimizer) + len(derived.reference)
            self._headers = self.outside.observer.committed(manifest, chosen, size)
            self._write_facts()
            log.info(
                "version %d: %d updates of %d windows",
                manifest.version,
                manifest.accepted,
                len(chosen),
                extra={"version": manifest.version},
            )
        else:
            log.info(
                "version %d was committed by another merger",
                manifest.version,
                extra={"version": manifest.version},
            )
            self._headers = ()
            self.outside.observer.race_lost(manifest.version)
            self.adopt_head()
            self.outside.observer.adopted(self.head.number, self.genesis.partitions)
        self._waiting_since_s = self.outside.clock.monotonic() if self.pending.updates else None
        self.finish()
        return True

    def _commit(self, version: int, data: bytes) -> bool:
        """The conditional PUT. A lost answer is no answer: then what stands there decides whether it was ours."""
        return self.store.commit(version, data) or self.store.manifest_bytes(version) == data

    def _next_version(self, chosen: tuple[Aggregate, ...]) -> tuple[Derived, Manifest]:
        # One at a time: a window's sums are twice as large as the model.
        sums = (
            self.store.sums(aggregate.sum_sha256, self.layout) for aggregate in chosen if aggregate.sum_sha256
        )
        accepted = sum(aggregate.accepted for aggregate in chosen)
        weight_total = sum(aggregate.weight_total for aggregate in chosen)
        derived = self._derive(sums, accepted, weight_total)
        manifest = Manifest(
            task=self.genesis.task,
            version=self.head.number + 1,
            parent_sha256=self.head.manifest_sha256,
            policy_sha256=self.head.policy_sha256,
            inputs=tuple(input_of(aggregate) for aggregate in chosen),
            cursors=next_cursors(self.head.cursors, chosen),
            counts=sum_counts(chosen),
            accepted=accepted,
            weight_total=weight_total,
            staleness_total=sum(aggregate.staleness_total for aggregate in chosen),
            staleness_max=max(aggregate.staleness_max for aggregate in chosen),
            update_bytes=sum(aggregate.update_bytes for aggregate in chosen),
            model_sha256=sha256_hex(derived.model),
            optimizer_sha256=sha256_hex(derived.optimizer),
            reference_sha256=sha256_hex(derived.reference),
            floor=self.head.floor,
        )
        return derived, manifest

    def _derive(self, sums: Iterable[npt.NDArray[np.int64]], updates: int, weight_total: int) -> Derived:
        step = merge(
            self.head.checkpoint,
            add_sums(sums, self.layout.parameters),
            updates=updates,
            weight_total=weight_total,
            policy=self._policy(self.head.policy_sha256),
            layout=self.layout,
        )
        return Derived(
            step,
            encode_model(step.checkpoint.model, self.layout),
            encode_optimizer(step.checkpoint.optimizer),
            encode_direction(step.reference),
        )

    def _policy(self, sha256: str) -> Policy:
        if sha256 not in self._policies:
            self._policies[sha256] = self._retry(
                "load the policy", lambda: self.store.policy(sha256), UNREADABLE
            )
        return self._policies[sha256]

    def _write_facts(self) -> None:
        """Advice for whoever starts next: where in the aggregates topics the unmerged ones begin."""
        offsets: dict[str, dict[str, int]] = {}
        for (region, partition), next_offset in self._next_offsets.items():
            unmerged = [at for (slot, _), at in self._log_offsets.items() if slot == (region, partition)]
            offsets.setdefault(region, {})[str(partition)] = min(unmerged, default=next_offset)
        facts: dict[str, object] = {
            "created_at_ms": round(self.outside.clock.time() * 1000),
            "merger": self.outside.name,
            "aggregate_offsets": offsets,
        }
        self._retry("write the version's facts", lambda: self.store.put_facts(self.head.number, facts))

    # -- telling everybody

    def finish(self) -> None:
        """Barriers into every partition of a region, then, once acknowledged, that region's announcement."""
        head = self.head
        for region, partitions in self.genesis.partitions.items():
            barrier = {
                "task": self.genesis.task,
                "region": region,
                "version": head.number,
                "manifest_sha256": head.manifest_sha256,
                "model_sha256": head.model_sha256,
                "reference_sha256": head.reference_sha256,
                "policy_sha256": head.policy_sha256,
                "floor": head.floor,
                "reason": head.reason,
            }
            value = self.outside.signer.sign("Barrier", barrier)
            topic = updates_topic(self.genesis.task, region)
            written = [
                self.outside.writer.append(topic, value, partition=partition, headers=self._headers)
                for partition in range(partitions)
            ]
            self._retry(
                f"write the barriers of version {head.number} to {region}",
                lambda: self.outside.writer.flush(FLUSH_TIMEOUT_S),
            )
            for future in written:
                future.result(timeout=0)
            crash_point("merger.before-announcement")
            self._announce(region)
            crash_point("merger.between-barriers")
        self._retry(f"announce version {head.number}", lambda: self.outside.writer.flush(FLUSH_TIMEOUT_S))
        self.outside.observer.announced(head.number)

    def _announce(self, region: str) -> None:
        announcement = {
            "task": self.genesis.task,
            "region": region,
            "version": self.head.number,
            "manifest_sha256": self.head.manifest_sha256,
            "model_sha256": self.head.model_sha256,
            "policy_sha256": self.head.policy_sha256,
        }
        self.outside.writer.append(
            models_topic(self.genesis.task),
            self.outside.signer.sign("ModelAnnouncement", announcement),
            key=region.encode(),
            partition=0,
            headers=self._headers,
        )


def _version(manifest: Manifest, manifest_sha256: str, checkpoint: Checkpoint) -> Version:
    return Version(
        number=manifest.version,
        manifest_sha256=manifest_sha256,
        model_sha256=manifest.model_sha256,
        reference_sha256=manifest.reference_sha256,
        policy_sha256=manifest.policy_sha256,
        floor=manifest.floor,
        reason=manifest.reason,
        cursors=manifest.slot_cursors,
        checkpoint=checkpoint,
    )


def _facts_offsets(facts: Mapping[str, object]) -> dict[Slot, int]:
    offsets = facts.get("aggregate_offsets")
    if not isinstance(offsets, dict):
        return {}
    return {
        (region, int(partition)): int(at) for region, row in offsets.items() for partition, at in row.items()
    }
