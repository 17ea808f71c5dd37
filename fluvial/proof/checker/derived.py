"""What the workers published about one partition: its verdicts and its windows, as they stand in their topics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fluvial.proof.checker import arithmetic, encoding, wire
from fluvial.proof.checker.encoding import Undecodable
from fluvial.proof.checker.fold import SKIPPED
from fluvial.proof.checker.report import Findings, Slot
from fluvial.proof.checker.task import Task
from fluvial.proof.checker.vouched import Head, Heads, heads_of

Entry = tuple[int, int, bytes | None, bytes | None]
"""One record: (offset, LogAppendTime in ms, key, value)."""

Logs = Mapping[tuple[str, int], Iterable[Entry]]
"""Every partition of every topic, by (topic, partition), in order of offsets. Some are read twice."""


@dataclass(frozen=True, slots=True)
class Window:
    """A RegionalAggregate: its fields, and its identity, the SHA-256 of its payload."""

    record: dict[str, Any]
    sha256: str


@dataclass(slots=True)
class Derived:
    """What stands in the derived topics: verdicts (bytes) by offset, windows by sequence.

    ``others`` are further verdicts of an offset that are not the first one's bytes. ``skipped`` are offsets whose
    verdict says that an operator had them skipped. ``heads`` are what workers vouch for. ``has_strangers``: workers of
    this partition do so, and others may have written beside them. ``doubtful`` are windows by sequence that are signed
    with a certificate which was revoked by then: they count where they are what the log gives.
    """

    verdicts: dict[int, bytes] = field(default_factory=dict)
    others: dict[int, set[bytes]] = field(default_factory=dict)
    windows: dict[int, Window] = field(default_factory=dict)
    skipped: set[int] = field(default_factory=set)
    heads: set[Head] = field(default_factory=set)
    has_strangers: bool = False
    doubtful: dict[int, list[Window]] = field(default_factory=dict)

    def window(self, sequence: int, sha256: str) -> Window | None:
        """The published window of a sequence, or a doubtful one that has this hash."""
        doubtful = (one for one in self.doubtful.get(sequence, ()) if one.sha256 == sha256)
        return self.windows.get(sequence) or next(doubtful, None)

    def settle(self) -> None:
        """Doubtful windows which the one after them names are windows."""
        for newest in sorted(self.windows, reverse=True):
            sequence = newest
            while sequence - 1 not in self.windows:
                before = self.window(sequence - 1, self.windows[sequence].record["previous_sha256"])
                if before is None:
                    break
                sequence -= 1
                self.windows[sequence] = before

    @property
    def judged_before(self) -> int:
        """Every offset below has to have its verdict: a window's are acknowledged before its aggregate is published."""
        return max((one.record["next_offset"] for one in self.windows.values()), default=0)

    def standing(self, offset: int) -> list[bytes]:
        """All different verdicts of an offset."""
        first = self.verdicts.get(offset)
        return [] if first is None else [first, *sorted(self.others.get(offset, ()))]

    def was_skipped(self, offset: int) -> bool:
        """Whether workers skipped it, if an operator asked for it: by their word, or else by what verdicts say."""
        about = [head for head in self.heads if head.first <= offset < head.after]
        return any(offset in head.skipped for head in about) if about else offset in self.skipped


def topic_of(task: str, kind: str, region: str) -> str:
    """A region's topic of updates, verdicts or aggregates."""
    return f"fl.{task}.{kind}.{region}"


def whole(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Every offset from 0 on: where the log holds no record (a transaction's marker) one without key and value."""
    expected = 0
    for offset, timestamp_ms, key, value in entries:
        for missing in range(expected, offset):
            yield missing, timestamp_ms, None, None
        expected = offset + 1
        yield offset, timestamp_ms, key, value


def read_derived(
    logs: Logs,
    heads: Heads,
    task: Task,
    slot: Slot,
    findings: Findings,
    *,
    strangers: bool,
    revoked: Mapping[str, int],
) -> Derived:
    """Read one partition's verdicts and windows, and find what contradicts itself there (invariants 1 and 3).

    ``strangers``: whether others than workers may have written verdicts. ``revoked``: since when certificates are (ms).
    """
    derived = Derived()
    region, partition = slot
    derived.heads = heads_of(task, slot, heads.get((topic_of(task.name, "verdicts", region), partition), ()))
    derived.has_strangers = strangers and bool(derived.heads)
    _read_verdicts(
        logs.get((topic_of(task.name, "verdicts", region), partition), ()),
        slot,
        derived,
        findings,
        canonical=task.notary.canonical,
    )
    for _, timestamp_ms, _, value in logs.get((topic_of(task.name, "aggregates", region), partition), ()):
        window, serial = _authentic_window(task, slot, timestamp_ms, value)
        if window is None:
            findings.ignored += 1
            continue
        if timestamp_ms >= revoked.get(serial, timestamp_ms + 1):
            derived.doubtful.setdefault(window.record["sequence"], []).append(window)
            continue
        sequence = window.record["sequence"]
        known = derived.windows.setdefault(sequence, window)
        if known.sha256 != window.sha256:
            findings.violate(
                3, f"{region}[{partition}]: two different aggregates have the sequence {sequence}"
            )
    derived.settle()
    _check_chain(f"{region}[{partition}]", derived.windows, findings)
    return derived


def _read_verdicts(
    entries: Iterable[Entry], slot: Slot, derived: Derived, findings: Findings, *, canonical: bool
) -> None:
    name = f"{slot[0]}[{slot[1]}]"
    contributions: dict[tuple[str, int], int] = {}
    twice: set[int] = set()
    for _, _, _, value in entries:
        try:
            verdict = encoding.decode(value or b"", "Verdict", canonical=canonical)
        except Undecodable:
            findings.ignored += 1
            continue
        offset = verdict["offset"]
        if derived.verdicts.setdefault(offset, value or b"") != value:
            derived.others.setdefault(offset, set()).add(value or b"")
            if derived.has_strangers:
                findings.ignored += 1
            elif offset not in twice:
                twice.add(offset)
                findings.double += 1
                findings.violate(1, f"{name}@{offset} has two different verdicts")
        if verdict["outcome"] == SKIPPED:
            derived.skipped.add(offset)
        if verdict["outcome"] == "accepted" and not derived.has_strangers:
            device, base = verdict["device_id"], verdict["base_version"]
            first = contributions.setdefault((device, base), offset)
            if first != offset and offset not in twice:
                twice.add(offset)
                findings.double += 1
                findings.violate(
                    1, f"{name}: {device} is accepted on version {base} at {first} and at {offset}"
                )
    findings.verdicts += len(derived.verdicts)


def _authentic_window(
    task: Task, slot: Slot, timestamp_ms: int, value: bytes | None
) -> tuple[Window | None, str]:
    """The window in a record, if a worker of this region signed it for this partition, and with which certificate."""
    try:
        sealed = wire.open_sealed(task.notary, value or b"")
    except Undecodable:
        return None, ""
    record = sealed.record
    if sealed.kind != "RegionalAggregate" or not sealed.authentic_at(timestamp_ms):
        return None, ""
    assert record is not None and sealed.signer is not None
    where = (sealed.signer.region, record["task"], record["region"], record["partition"])
    if where != (slot[0], task.name, *slot):
        return None, ""
    return Window(record, arithmetic.sha256(sealed.payload)), sealed.signer.serial


def _check_chain(name: str, windows: Mapping[int, Window], findings: Findings) -> None:
    """The windows by themselves: each begins where the one before it ended, and names its hash."""
    next_offset, previous_sha256 = 0, ""
    for expected, sequence in enumerate(sorted(windows)):
        if sequence != expected:
            findings.violate(3, f"{name}: aggregate {expected} was never published, {sequence} was")
            return
        window = windows[sequence]
        follows = {"first_offset": next_offset, "previous_sha256": previous_sha256}
        findings.compare(3, f"aggregate {sequence} of {name}", follows, window.record)
        next_offset, previous_sha256 = window.record["next_offset"], window.sha256
