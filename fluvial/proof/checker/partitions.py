"""One partition's published verdicts, windows and snapshots against what its log says (invariants 1 and 3 to 8)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from fluvial.proof.checker import arithmetic, encoding, wire
from fluvial.proof.checker.derived import Derived, Logs, Window, read_derived, topic_of, whole
from fluvial.proof.checker.edges import bounded_weight
from fluvial.proof.checker.encoding import Undecodable
from fluvial.proof.checker.fold import Partition
from fluvial.proof.checker.judged import JudgedOffsets
from fluvial.proof.checker.report import Acknowledged, Findings, Slot
from fluvial.proof.checker.task import Damaged, Shelf
from fluvial.proof.checker.vouched import Heads
from fluvial.proof.checker.window import Closed, Folded, Verdict

KeepSums = Callable[[Slot, arithmetic.Ints, dict[str, Any]], None]
"""Called with the partition, a window's recomputed sums int64, and its recomputed RegionalAggregate."""
LIKE_BARRIERS_LOOKED_BACK: Final = 4


@dataclass(slots=True)
class PartitionResult:
    """What one partition came to. ``windows[i]`` is the recomputed window of the sequence i.

    ``barriers`` maps a version to the LogAppendTime of its first barrier here; ``signed`` holds what mergers said in
    barriers, with the offset, copies left out; ``accepted`` are offsets. ``complete`` is False where the fold had to
    end before the log did. ``chains`` has of each edge that was heard the hashes of its windows, by sequence.
    """

    slot: Slot
    windows: list[Window] = field(default_factory=list)
    barriers: dict[int, int] = field(default_factory=dict)
    signed: list[tuple[dict[str, Any], int]] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)
    complete: bool = True
    chains: dict[str, dict[int, str]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """``region[partition]``."""
        return f"{self.slot[0]}[{self.slot[1]}]"


def check_partition(
    logs: Logs,
    shelf: Shelf,
    slot: Slot,
    acknowledged: Iterable[Acknowledged],
    findings: Findings,
    *,
    keep_sums: KeepSums,
    drained: bool,
    heads: Heads,
    strangers: bool,
    revoked: Mapping[str, int],
) -> PartitionResult:
    """Check one partition from offset 0; problems go to the findings.

    ``revoked``: since when certificates are revoked, by serial: windows that are signed with one do not count alone.
    """
    derived = read_derived(logs, heads, shelf.task, slot, findings, strangers=strangers, revoked=revoked)
    check = _Check(shelf, slot, derived, findings, keep_sums=keep_sums, drained=drained)
    for one in acknowledged:
        check.acknowledged.setdefault(one.offset, []).append(one)
    any_skipped = derived.skipped or any(head.skipped for head in derived.heads)
    skips = skips_in(logs, shelf, slot, derived) if any_skipped else set[int]()
    topic = (topic_of(shelf.task.name, "updates", slot[0]), slot[1])
    end = 0
    for offset, timestamp_ms, _, value in whole(logs.get(topic, ())):
        check.take(offset, timestamp_ms, value, skipped=offset in skips)
        end = offset + 1
    check.after_the_log(end)
    check.result.chains = check.chains
    return check.result


def skips_in(logs: Logs, shelf: Shelf, slot: Slot, derived: Derived) -> set[int]:
    """The offsets judged ``skipped`` that a valid Skip of an operator, standing behind them, names."""
    found = set()
    revoked = set[str]()
    task, (region, partition) = shelf.task, slot
    for offset, timestamp_ms, _, value in logs.get((topic_of(task.name, "updates", region), partition), ()):
        try:
            sealed = wire.open_sealed(task.notary, value or b"")
        except Undecodable:
            continue
        if sealed.kind == "Skip" and sealed.authentic_at(timestamp_ms) and sealed.record is not None:
            said = sealed.record
            here = (said["task"], said["region"], said["partition"]) == (task.name, region, partition)
            here = here and (sealed.signer is None or sealed.signer.serial not in revoked)
            if here and said["offset"] < offset and derived.was_skipped(said["offset"]):
                found.add(said["offset"])
        elif task.notary.revokes_all and sealed.kind == "Revoke" and sealed.authentic_at(timestamp_ms):
            said = sealed.record or {}
            if said.get("task") == task.name and sealed.signer and sealed.signer.serial not in revoked:
                revoked.add(said["certificate_serial"])
    return found


class _Check:
    """The state of one partition's check."""

    def __init__(
        self,
        shelf: Shelf,
        slot: Slot,
        derived: Derived,
        findings: Findings,
        *,
        keep_sums: KeepSums,
        drained: bool,
    ) -> None:
        self._shelf = shelf
        self._derived = derived
        self._judged_before = derived.judged_before
        self._findings = findings
        self._keep_sums = keep_sums
        self._drained = drained
        self._fold = Partition(shelf, slot)
        self.acknowledged: dict[int, list[Acknowledged]] = {}
        self.result = PartitionResult(slot)
        self._judged = JudgedOffsets(self.result.name, derived, findings, verdicts=shelf.task.verdicts)

    @property
    def chains(self) -> dict[str, dict[int, str]]:
        """Of each edge that was heard so far the hashes of its windows."""
        return self._fold.edges.chains

    def take(self, offset: int, timestamp_ms: int, value: bytes | None, *, skipped: bool) -> None:
        """Look at the next record of the log."""
        folded = None
        if self.result.complete:
            try:
                folded = self._fold.take(timestamp_ms, value, skipped=skipped)
            except Damaged as damage:
                self.result.complete = False
                where = f"{self.result.name} cannot be folded beyond offset {offset}"
                self._findings.violate(4, f"{where}: {damage}")
        update = self._update_in(value, folded)
        self._findings.published += update is not None
        judged = offset in self._derived.verdicts
        due = self._drained or offset < self._judged_before
        if due and not judged:
            self._findings.violate(7 if self._drained else 1, f"{self.result.name}@{offset} has no verdict")
        for one in self.acknowledged.pop(offset, ()):
            self._hold_to_account(one, update, folded, lost=due and not judged)
        self._judged.take(offset, None if folded is None else folded.verdict)
        if folded is not None:
            self._compare(offset, timestamp_ms, folded)

    def _update_in(self, value: bytes | None, folded: Folded | None) -> dict[str, Any] | None:
        """The ClientUpdate in a record, {} for one that cannot be believed; None for any other record."""
        sealed = folded.sealed if folded is not None else None
        if sealed is None:
            try:
                sealed = wire.open_sealed(self._shelf.task.notary, value or b"")
            except Undecodable:
                return None
        return (sealed.record or {}) if sealed.kind == "ClientUpdate" else None

    def _hold_to_account(
        self, one: Acknowledged, update: dict[str, Any] | None, folded: Folded | None, *, lost: bool
    ) -> None:
        findings, where = self._findings, f"{self.result.name}@{one.offset}"
        findings.acknowledged += 1
        holds = (update or {}).get("device_id"), (update or {}).get("update_id")
        if one.honest and one.update_id and holds != (one.device, one.update_id):
            findings.lost += 1
            findings.violate(
                1, f"{where} was acknowledged as {one.update_id} of {one.device}, it holds {holds}"
            )
        elif lost:
            findings.lost += 1
            findings.violate(1, f"{where}, acknowledged to {one.device}, has no verdict")
        if one.honest and folded is not None and folded.verdict["outcome"] == "future_base":
            base = folded.verdict["base_version"]
            findings.violate(6, f"{where}: {one.device} saw version {base} before its barrier stood here")

    def _compare(self, offset: int, timestamp_ms: int, folded: Folded) -> None:
        result = self.result
        self._compare_verdict(offset, folded.verdict)
        if folded.verdict["outcome"] == "accepted":
            result.accepted.append(offset)
        if folded.barrier is not None:
            result.barriers.setdefault(folded.barrier["version"], timestamp_ms)
            recent = result.signed[-LIKE_BARRIERS_LOOKED_BACK:]
            if all(folded.barrier != said for said, _ in recent):
                result.signed.append((folded.barrier, offset))
        if folded.closed is not None:
            self._compare_window(folded.closed)

    def _compare_verdict(self, offset: int, expected: Verdict) -> None:
        value = (
            self._judged.right_one(offset, expected)
            if self._derived.has_strangers
            else self._derived.verdicts.get(offset)
        )
        if value is not None:
            task = self._shelf.task
            came = encoding.decode(value, "Verdict", canonical=task.notary.canonical)
            if encoding.version_of(value) != task.verdicts:
                what = f"verdict of {self.result.name}@{offset}"
                self._findings.violate(
                    4, f"{what} is a Verdict v{encoding.version_of(value)}, not v{task.verdicts}"
                )
            self._findings.compare(4, f"verdict of {self.result.name}@{offset}", expected, came)

    def after_the_log(self, end: int) -> None:
        """What was published or acknowledged beyond the log's end, or beyond the windows that it closes."""
        name, findings, derived = self.result.name, self._findings, self._derived
        for one in (one for ones in self.acknowledged.values() for one in ones):
            findings.acknowledged += 1
            findings.lost += 1
            findings.violate(1, f"{name}@{one.offset}, acknowledged to {one.device}: the log ends at {end}")
        beyond = sorted(offset for offset in derived.verdicts if not 0 <= offset < end)
        if beyond and not derived.has_strangers:
            findings.violate(1, f"{name} has verdicts on offsets that are not in the log: {beyond[:3]}")
        self._judged.after_the_log(end)
        more = sorted(sequence for sequence in derived.windows if sequence >= len(self.result.windows))
        if more and self.result.complete:
            findings.violate(3, f"{name}: aggregate {more[0]} is published, the log closes no such window")

    # -- windows

    def _compare_window(self, closed: Closed) -> None:
        sequence, name = closed.record["sequence"], self.result.name
        self.result.windows.append(Window(closed.record, closed.sha256))
        if closed.sums is not None:
            self._keep_sums(self.result.slot, closed.sums, closed.record)
        published = self._derived.window(sequence, closed.sha256)
        if published is None:
            if self._drained:
                self._findings.violate(
                    7, f"{name}: window {sequence} closed, its aggregate was never published"
                )
            return
        what, came = f"aggregate {sequence} of {name}", published.record
        if published.sha256 != closed.sha256:
            self._compare_fields(what, closed, published)
            self._compare_bound(what, came)
        if closed.sums is not None:
            self._compare_sums(what, came["sum_sha256"], closed.sums)
        self._compare_snapshot(what, came["state_sha256"], closed.snapshot)

    def _compare_fields(self, what: str, closed: Closed, published: Window) -> None:
        came = published.record
        expected = dict(closed.record)
        tiles = {key: expected.pop(key) for key in ("first_offset", "next_offset", "previous_sha256")}
        state = {"state_sha256": expected.pop("state_sha256")}
        self._findings.compare(3, what, tiles, came)
        self._findings.compare(4, what, expected, came)
        self._findings.compare(5, what, state, came)
        if came == closed.record:
            self._findings.violate(4, f"{what} has the same fields in other bytes")

    def _compare_bound(self, what: str, came: dict[str, Any]) -> None:
        """Of a wrong window: its sums are such as updates of its weight can have, in each bucket."""
        shelf, size = self._shelf, self._shelf.task.parameters
        try:
            sums = np.frombuffer(shelf.named(came["sum_sha256"]), dtype="<i8")
            policy = shelf.policy(came["policy_sha256"])
        except (Damaged, ValueError):
            return  # there are no such objects: that is found elsewhere
        whole = [{"accepted": came["accepted"], "weight": came["weight_total"]}]
        for bucket, said in enumerate(came.get("buckets", whole)):
            part = sums[bucket * size : (bucket + 1) * size]
            reach = max(int(part.max(initial=0)), -int(part.min(initial=0)))
            weight = bounded_weight(policy, said["accepted"], said["weight"])
            bound = arithmetic.sum_bound(policy, said["accepted"], weight)
            if reach > bound:
                where = f"{what}, bucket {bucket}" if "buckets" in came else what
                self._findings.violate(4, f"{where}: its sums reach {reach}, its weight allows {bound}")

    def _compare_sums(self, what: str, named: str, expected: arithmetic.Ints) -> None:
        try:
            same = self._shelf.named(named) == expected.astype("<i8").tobytes()
        except Damaged as damage:
            self._findings.violate(4, f"sums of {what}: {damage}")
            return
        if not same:
            self._findings.violate(4, f"sums of {what} are not the recomputed ones")

    def _compare_snapshot(self, what: str, named: str, expected: dict[str, Any]) -> None:
        try:
            data = self._shelf.named(named)
            if data == encoding.encode("PartitionState", expected):
                return
            came = encoding.decode(data, "PartitionState")
        except (Damaged, Undecodable) as damage:
            self._findings.violate(5, f"snapshot of {what}: {damage}")
            return
        self._findings.compare(5, f"snapshot of {what}", expected, came)
