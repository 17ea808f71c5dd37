"""One partition's log folded from offset 0, naively: what verdict every offset deserves, what every window holds.

The rules, from docs/architecture.md (checks in their order), docs/policy.md and the schemas' texts:

* a refused record changes the window's counts, a control record not even those; an ``accepted`` or ``anomalous`` update
  uses up its device's one contribution for its base and enters the history of norms;
* a window closes at an effective Barrier or at its Tick if it holds any record but control ones, at ``updates_max``
  accepted updates, and when it spans ``records_max`` offsets of any kind;
* a Barrier belongs to the window that it closes; version, policy and direction change behind it;
* a record with a Skip is ``skipped`` and changes nothing but the counts.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np

from fluvial.proof.checker import arithmetic, buffers, control, edges, encoding, wire
from fluvial.proof.checker.buckets import bucket_of, buckets_in
from fluvial.proof.checker.contents import Contents, contents_of
from fluvial.proof.checker.encoding import Undecodable
from fluvial.proof.checker.known import is_later, is_new_to, knows_edges, newest_update
from fluvial.proof.checker.lots import is_selected, is_synchronous, weight_by_examples
from fluvial.proof.checker.report import Slot
from fluvial.proof.checker.standing import Standing, counts_shares, defence_of, ruling, times
from fluvial.proof.checker.task import Damaged, Shelf, Task
from fluvial.proof.checker.window import Closed, Folded, Verdict, Window, verdict_of
from fluvial.proof.checker.wire import Sealed, Signer

TEXT_CHARACTERS_MAX: Final = 64
"""Of an update id."""
SKIPPED: Final = "skipped"
COUNTED_MAX: Final = 1_000_000
"""(device, base) pairs that a partition remembers; beyond that the oldest base is welcome no more."""


class Partition:
    """The fold of one partition; ``take`` every record in order, from offset 0."""

    def __init__(self, shelf: Shelf, slot: Slot) -> None:
        self._shelf = shelf
        self._task = shelf.task
        self.region, self.partition = slot
        self.next_offset = 0
        self.sequence = 0
        self.version = 0
        self._floor = 0
        self._policy = self._task.policy
        self._policy_sha256 = self._task.policy_sha256
        self._direction: arithmetic.Direction | None = None
        self._direction_sha256 = ""
        self._models = {0: self._task.model_sha256}
        self._counted: dict[int, set[str]] = {}
        self._revoked: set[str] = set()
        self._norms: list[float] = []
        self._standing = Standing()
        self.edges = edges.Edges()
        self._now_ms = 0
        self._previous_sha256 = ""
        self._window = Window(0)

    def take(self, timestamp_ms: int, value: bytes | None, *, skipped: bool = False) -> Folded:
        """Fold the next record. ``Damaged`` where a Barrier names an object that cannot be had: the fold ends there."""
        offset, self._now_ms = self.next_offset, timestamp_ms
        sealed, outcome = self._open(value)
        barrier = None
        close = False
        if skipped:
            verdict = self._refuse(verdict_of(offset, SKIPPED))
        elif sealed is None:
            verdict = self._refuse(verdict_of(offset, outcome))
        else:
            refused = self._unauthentic(offset, sealed, timestamp_ms)
            record = sealed.record
            if refused is not None or record is None:
                verdict = self._refuse(refused or verdict_of(offset, "undecodable"))
            elif sealed.kind == "ClientUpdate":
                verdict = self._update(offset, sealed, record)
            elif sealed.kind == edges.KIND:
                verdict = self._edge(offset, sealed, record)
            else:
                verdict, close = self._control(offset, sealed, record)
                if sealed.kind == "Barrier" and verdict["outcome"] == "control":
                    barrier = record
        self.next_offset = offset + 1
        closed = self._end_of_record(barrier, close=close)
        return Folded(verdict, sealed, barrier, closed)

    # -- who says what

    def _open(self, value: bytes | None) -> tuple[Sealed | None, str]:
        if value is None:
            return None, "undecodable"
        if len(value) > self._policy["updates"]["bytes_max"]:
            return None, "too_large"
        try:
            sealed = wire.open_sealed(self._task.notary, value)
        except Undecodable as error:
            named = error.schema
            later = named is not None and is_later(self._policy, named.name, named.version)
            return None, "unknown_schema" if later else error.outcome
        too_new = sealed.kind == "ClientUpdate" and sealed.schema_version > newest_update(self._policy)
        if too_new or is_later(self._policy, sealed.kind, sealed.schema_version):
            return None, "unknown_schema"
        return (sealed, "") if sealed.kind in wire.IN_UPDATES_TOPICS else (None, "undecodable")

    def _unauthentic(self, offset: int, sealed: Sealed, timestamp_ms: int) -> Verdict | None:
        refusal = wire.refusal_of(sealed, timestamp_ms)
        if sealed.signer is not None and is_new_to(self._policy, sealed.signer):
            refusal = "bad_certificate" if sealed.kind in wire.CONTRIBUTIONS else "bad_signature"
        if refusal or sealed.signer is None:
            return verdict_of(offset, refusal)
        signer, record = sealed.signer, sealed.record
        if record is None:
            name = signer.region if sealed.kind == edges.KIND else signer.name
            return verdict_of(offset, "undecodable", device_id=name)
        if sealed.kind == "Tick" and record["region"] != signer.region:
            return verdict_of(offset, "bad_signature")
        if sealed.kind == "ClientUpdate":
            for wrong, outcome in (
                (record["device_id"] != signer.name, "bad_signature"),
                (len(record["update_id"]) > TEXT_CHARACTERS_MAX, "wrong_layout"),
                (record["region"] != signer.region, "wrong_region"),
            ):
                if wrong:
                    return verdict_of(offset, outcome, device_id=signer.name)
        return None

    # -- updates

    def _update(self, offset: int, sealed: Sealed, update: dict[str, Any]) -> Verdict:
        names = {name: update[name] for name in ("device_id", "update_id", "base_version")}
        assert sealed.signer is not None
        cohort = sealed.signer.cohort
        crowded = self._window.is_full_of(cohort, self._policy)
        outcome = (
            self._not_ours(update["device_id"], update, sealed.signer.serial)
            or self._wrong_base(update["base_version"], update["base_sha256"])
            or self._may_not_answer(update, cohort)
            or self._standing.refusal(update["device_id"], self.version, self._policy, crowded=crowded)
        )
        if outcome:
            return self._refuse(verdict_of(offset, outcome, **names))
        held = contents_of(update, self._task, self._policy)
        if isinstance(held, str):
            return self._refuse(verdict_of(offset, held, **names))
        return self._judge(offset, sealed, names, held)

    def _not_ours(self, name: str, record: dict[str, Any], serial: str) -> str:
        """Why a record of a device or an edge does not belong here, or is of who was revoked."""
        if name in self._revoked or self._task.certificate_name(serial) in self._revoked:
            return "revoked"
        if record["task"] != self._task.name:
            return "wrong_task"
        if record["region"] != self.region:
            return "wrong_region"
        home = arithmetic.partition_of(name, self._task.partitions.get(self.region, 1))
        return "" if home == self.partition else "wrong_partition"

    def _oldest_base(self) -> int:
        by_versions = self.version - int(self._policy["staleness"]["versions_max"])
        return max(self._floor, self._standing.oldest(by_versions))

    def _wrong_base(self, base: int, model_sha256: str) -> str:
        if base > self.version:
            return "future_base"
        if base < self.version and is_synchronous(self._policy):
            return "round_over"
        by_versions = self.version - int(self._policy["staleness"]["versions_max"])
        too_old = self._standing.too_old(base, by_versions, self._now_ms, self._policy)
        if base < self._oldest_base() or too_old:
            return "too_stale"
        return "" if self._models.get(base) == model_sha256 else "unknown_base"

    def _may_not_answer(self, update: dict[str, Any], cohort: str) -> str:
        base, device = update["base_version"], update["device_id"]
        turns = self._standing.turns(base, self.version, self._now_ms, self._policy)
        if turns is not None and not is_selected(
            self._policy, self._task.name, base, self._models[base], device, turns=turns, cohort=cohort
        ):
            return "not_selected"
        return "duplicate" if device in self._counted.get(base, set()) else ""

    def _judge(self, offset: int, sealed: Sealed, names: dict[str, Any], held: Contents) -> Verdict:
        limits, defence, standing = self._policy["updates"], defence_of(self._policy), self._standing
        along = standing.guide if defence["kind"] == "guide" else self._direction
        measured = [
            arithmetic.squares_and_dot(part, None if along is None else along.q[t])
            for t, part in enumerate(held.parts)
        ]
        squares = [square for square, _ in measured]
        norm = arithmetic.norm_of(squares, held.scales)
        if norm > limits["norm_max"]:
            return self._refuse(verdict_of(offset, "norm_exceeded", norm=norm, **names))
        cosine = arithmetic.cosine_of([dot for _, dot in measured], held.scales, norm, along)
        base, device = names["base_version"], names["device_id"]
        had = standing.of(device, self.version, self._policy)
        share = 1 if had is None else sum(had.accepted) + 1
        ruled = ruling(self._policy, norm, cosine, standing=standing, share=share, norms=self._norms)
        scores = {"norm": norm, "norm_deviations": ruled.deviations, "cosine": cosine}
        self._counted.setdefault(base, set()).add(device)
        standing.scored(device, had, self._policy, accepted=not ruled.anomalous)
        if defence["kind"] == "peers" or not counts_shares(self._policy):
            self._norms = [*self._norms, norm][-defence["history_updates"] :]
        self._bound_counted()
        if ruled.anomalous:
            return self._refuse(verdict_of(offset, "anomalous", **names, **scores))

        staleness, weights = self.version - base, self._policy["staleness"]["weights"]
        weight = weights[min(staleness, len(weights) - 1)]
        if ruled.factor != arithmetic.WEIGHT_ONE:
            weight = max(1, weight * ruled.factor // arithmetic.WEIGHT_ONE)
        assert sealed.record is not None
        weight = weight_by_examples(self._policy, weight, sealed.record["num_examples"])
        clip_to = min(limits["norm_clip"], ruled.clip_to)
        clip = clip_to / norm if norm > clip_to else 1.0
        window = self._window
        self._add(device, held, squares, weight, clip)
        window.bases.add(base, 1, weight)
        window.count_cohort(sealed.signer)
        window.counts["accepted"] = window.counts.get("accepted", 0) + 1
        window.weight_total += weight
        window.staleness_total += staleness
        window.staleness_max = max(window.staleness_max, staleness)
        window.update_bytes += sealed.record_bytes
        window.contributors.update(struct.pack("<qqd", offset, weight, clip) + sealed.signature)
        if counts_shares(self._policy):
            guided = defence["kind"] == "guide" and along is not None
            own = None if had is None else sum(had.accepted)
            counted = times(self._policy, norm, clip_to)
            window.tally.add(norm, cosine if guided else None, own, counted)
        return verdict_of(
            offset, "accepted", **names, **scores, staleness=staleness, weight=weight, clip=clip
        )

    def _add(self, device: str, held: Contents, squares: list[float | int], weight: int, clip: float) -> None:
        """Add an accepted update to the sums: its weights in its device's bucket, buffers and control beside."""
        task, policy, count = self._task, self._policy, buckets_in(self._policy)
        bucket = bucket_of(self._models[self.version], device, count)
        self._window.buckets.add(bucket, weight)
        mine, digits, varied = self._window.room(task, bucket, count)
        factor, exponent = weight / arithmetic.WEIGHT_ONE * clip, policy["fixed_point"]["exponent"]
        for spec, part, scale, square in zip(task.weights, held.parts, held.scales, squares, strict=True):
            mine[spec.begin : spec.end] += arithmetic.added(part, scale, square, factor, exponent)
        if held.values:
            digits += buffers.digits_of(np.concatenate(held.values), weight)
        if held.control:
            varied += control.added(policy, held.control, held.control_scales, weight)

    # -- windows of edges

    def _edge(self, offset: int, sealed: Sealed, record: dict[str, Any]) -> Verdict:
        assert sealed.signer is not None
        edge, policy = sealed.signer.region, self._policy
        heard = edges.read(record, edge, canonical=self._task.notary.canonical)
        if isinstance(heard, str):
            return self._refuse(verdict_of(offset, heard, device_id=edge))
        window = heard.record
        names = {"device_id": edge, "base_version": window["version"]}
        outcome = self._not_ours(edge, record, sealed.signer.serial)
        if not outcome and (window["task"], window["region"], window["partition"]) != (
            record["task"],
            edge,
            0,
        ):
            outcome = "bad_aggregate"
        outcome = outcome or self.edges.out_of_turn(edge, heard)
        if outcome:
            return self._refuse(verdict_of(offset, outcome, **names))
        self.edges.move(edge, heard)
        outcome = self._wrong_base(window["version"], record["model_sha256"]) or edges.refusal_of(
            heard,
            self.edges.places[edge].accepted_at(self.version),
            (policy, self._policy_sha256),
            (self.version, self._oldest_base(), self._floor),
            self._task,
        )
        if outcome:
            return self._refuse(verdict_of(offset, outcome, **names))
        self.edges.count(edge, heard, self.version)
        late, weights = self.version - window["version"], policy["staleness"]["weights"]
        weight = weights[min(late, len(weights) - 1)]
        verdict = verdict_of(offset, "aggregated", **names, staleness=late, weight=weight, clip=1.0)
        self._window.add_edge(heard, sealed, verdict, self._task)
        return self._refuse(verdict)  # it is counted by its outcome, as what is refused

    def _refuse(self, verdict: Verdict) -> Verdict:
        counts = self._window.counts
        counts[verdict["outcome"]] = counts.get(verdict["outcome"], 0) + 1
        return verdict

    # -- control records

    def _control(self, offset: int, sealed: Sealed, record: dict[str, Any]) -> tuple[Verdict, bool]:
        """The verdict, and whether the record asks for the open window to be closed."""
        kind = sealed.kind
        if record["task"] != self._task.name:
            return self._refuse(verdict_of(offset, "wrong_task")), False
        if record.get("region", self.region) != self.region and not (
            kind == "Barrier" and self.region.startswith(f"{record['region']}.") and knows_edges(self._policy)
        ):
            return self._refuse(verdict_of(offset, "wrong_region")), False
        if record.get("partition", self.partition) != self.partition:
            return self._refuse(verdict_of(offset, "wrong_partition")), False
        if _name_of(sealed.signer, self._task) in self._revoked:
            return self._refuse(verdict_of(offset, "revoked")), False
        close = False
        if kind == "Barrier":
            close = record["version"] > self.version
        elif kind == "Tick":
            close = record["window_first_offset"] == self._window.first_offset
        elif kind == "Revoke":
            certificate = self._task.certificate_name(record["certificate_serial"])
            self._revoked |= {record["device_id"], certificate} - {""}
        elif kind == "Pardon":
            self._standing.pardon(record["device_id"], record["until"])
        return verdict_of(offset, "control"), close and bool(self._window.counts)

    def _adopt(self, barrier: dict[str, Any]) -> None:
        policy = self._shelf.policy(barrier["policy_sha256"])
        direction = self._shelf.direction(barrier["reference_sha256"])
        if policy["fixed_point"] != self._policy["fixed_point"]:
            raise Damaged(f"the barrier of version {barrier['version']} changes fixed_point.exponent")
        self.version = barrier["version"]
        self._floor = max(self._floor, min(barrier["floor"], self.version))
        self._policy, self._policy_sha256 = policy, barrier["policy_sha256"]
        self._direction, self._direction_sha256 = direction, barrier["reference_sha256"]
        self._standing.supersede(self.version, self._now_ms, self._models, self._floor, policy)
        self._models[self.version] = barrier["model_sha256"]
        self._standing.adopt(self._shelf, barrier, self._models, self._revoked)
        self.edges.adopt(policy)
        self._forget_old_bases()

    def _forget_old_bases(self) -> None:
        oldest = self._oldest_base()
        self._models = {v: name for v, name in self._models.items() if v >= oldest}
        self._counted = {v: devices for v, devices in self._counted.items() if v >= oldest}
        self._standing.forget_before(oldest)

    def _bound_counted(self) -> None:
        while self._oldest_base() < self.version and sum(map(len, self._counted.values())) > COUNTED_MAX:
            self._floor = self._oldest_base() + 1
            self._forget_old_bases()

    # -- windows

    def _end_of_record(self, barrier: dict[str, Any] | None, *, close: bool) -> Closed | None:
        limits, window = self._policy["window"], self._window
        full = window.accepted >= limits["updates_max"]
        full = full or self.next_offset - window.first_offset >= limits["records_max"]
        version, policy, policy_sha256 = self.version, self._policy, self._policy_sha256
        if barrier is not None and barrier["version"] > self.version:
            self._adopt(barrier)
        if not close and not full:
            return None
        sequence, self.sequence = self.sequence, self.sequence + 1
        self._window = Window(self.next_offset)
        said = {"version": version, "policy_sha256": policy_sha256} | window.said(policy)
        return self._seal(window, sequence, said)

    def _seal(self, window: Window, sequence: int, said: dict[str, Any]) -> Closed:
        snapshot = self._snapshot()
        record = {
            "task": self._task.name,
            "region": self.region,
            "partition": self.partition,
            "sequence": sequence,
            "first_offset": window.first_offset,
            "next_offset": self.next_offset,
            "state_sha256": arithmetic.sha256(encoding.encode("PartitionState", snapshot)),
            "previous_sha256": self._previous_sha256,
        } | (window.totals() | said)
        self._previous_sha256 = arithmetic.sha256(encoding.encode("RegionalAggregate", record))
        return Closed(record, self._previous_sha256, window.sums, snapshot)

    def _snapshot(self) -> dict[str, Any]:
        return {
            "task": self._task.name,
            "region": self.region,
            "partition": self.partition,
            "next_offset": self.next_offset,
            "sequence": self.sequence,
            "version": self.version,
            "floor": self._floor,
            "policy_sha256": self._policy_sha256,
            "reference_sha256": self._direction_sha256,
            "models": [{"version": v, "sha256": self._models[v]} for v in sorted(self._models)],
            "counted": [{"version": v, "devices": sorted(self._counted[v])} for v in sorted(self._counted)],
            "revoked": sorted(self._revoked),
            "norms": list(self._norms),
        } | (self._standing.snapshot(self._policy) | self.edges.snapshot(self._policy))


def _name_of(signer: Signer | None, task: Task) -> str:
    """A signer's certificate by its name among what is revoked; "" where a Revoke bars devices only."""
    return task.certificate_name(signer.serial) if signer and task.notary.revokes_all else ""
