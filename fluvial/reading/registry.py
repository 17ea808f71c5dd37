"""Every device that was heard of late: by its verdicts, and by its heartbeats where the task has a topic of them.

It is for looking. Verdicts and heartbeats are read back a bounded way, at most ``DEVICES_KEPT_MAX`` devices are kept,
and those heard longest ago are forgotten first. A heartbeat counts for the device that signed it, at the earlier of its
own time and the log's, so that a copy of an old one makes nobody alive.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from aggregation.defences import SHARE_VERSIONS
from aggregation.fold.rejections import ACCEPTED
from schemas.avro import CodecError
from schemas.certificates import BadCertificateError
from schemas.envelope import read_update
from schemas.heartbeats import heartbeat_in
from schemas.topics import HEARTBEAT_BYTES_MAX, heartbeats_topic, updates_topic, verdicts_topic
from schemas.verdicts import decode_verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aggregation.server.aggregates import Slot
    from backends.log import LogRecord
    from fluvial.reading.task_view import TaskView

VERDICTS_READ_MAX: Final = 20_000
"""How far back each partition's verdicts are read."""
HEARTBEATS_READ_MAX: Final = 20_000
DEVICES_KEPT_MAX: Final = 50_000
COHORTS_READ_MAX: Final = 200
"""Of so many shown devices without a heartbeat one update is read, for the cohort in its certificate."""


@dataclass(slots=True)
class Heard:
    """One device. ``last_ms``: when it was heard last, ms since 1970. ``offset``: of its newest judged update, or -1.

    versions: of which versions an update of it was accepted, the last ``SHARE_VERSIONS`` of them. outcomes: how many
    verdicts of each outcome. cohort: None where no certificate of it was read. state, reason: as its newest heartbeat
    says, "" for none.
    """

    region: str
    device_id: str
    partition: int | None = None
    last_ms: int = 0
    offset: int = -1
    outcome: str = ""
    versions: set[int] = field(default_factory=set)
    outcomes: Counter[str] = field(default_factory=Counter)
    cohort: str | None = None
    state: str = ""
    reason: str = ""
    beaten_ms: int = -1

    def participation(self, head: int) -> int:
        """Of how many of the last ``SHARE_VERSIONS`` versions before ``head`` it has an accepted update."""
        return sum(head - SHARE_VERSIONS < version + 1 <= head for version in self.versions)

    def document(self, head: int) -> dict[str, Any]:
        """For JSON."""
        return {
            "device_id": self.device_id,
            "region": self.region,
            "partition": self.partition,
            "cohort": self.cohort,
            "last_seen_ms": self.last_ms,
            "participation": self.participation(head),
            "verdicts": dict(sorted(self.outcomes.items())),
            "last_outcome": self.outcome or None,
            "state": self.state or None,
            "reason": self.reason or None,
        }


@dataclass(frozen=True, slots=True)
class Registry:
    """``shown`` of ``total`` devices, those heard last first. ``forgotten``: more than could be kept.

    ``heartbeats``: whether the task has a topic of them. ``strays``: records that are no verdict or heartbeat.
    """

    task: str
    head: int
    shown: tuple[Heard, ...]
    total: int
    forgotten: int
    heartbeats: bool
    strays: int

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "task": self.task,
            "version": self.head,
            "total": self.total,
            "shown": len(self.shown),
            "forgotten": self.forgotten,
            "heartbeats": self.heartbeats,
            "strays": self.strays,
            "participation_in_versions": SHARE_VERSIONS,
            "devices": [one.document(self.head) for one in self.shown],
        }


class Gathering:
    """What is known so far, of at most ``kept_max`` devices."""

    def __init__(self, kept_max: int = DEVICES_KEPT_MAX) -> None:
        self.forgotten = 0
        self.strays = 0
        self._kept_max = kept_max
        self._devices: OrderedDict[tuple[str, str], Heard] = OrderedDict()

    def __len__(self) -> int:
        return len(self._devices)

    def by_last(self) -> list[Heard]:
        """All of them, those heard last first; of equal times by region and id."""
        return sorted(self._devices.values(), key=lambda one: (-one.last_ms, one.region, one.device_id))

    def verdict(self, slot: Slot, record: LogRecord, log_end: int) -> None:
        """Take one record of a verdicts topic."""
        try:
            verdict = decode_verdict(record.value or b"")
        except CodecError:
            self.strays += 1
            return
        if not 0 <= verdict.offset < log_end:
            self.strays += 1
            return
        if not verdict.device_id:
            return
        one = self._of(slot[0], verdict.device_id, record.timestamp_ms)
        one.partition = slot[1]
        one.outcomes[verdict.outcome] += 1
        if verdict.offset > one.offset:
            one.offset, one.outcome = verdict.offset, verdict.outcome
        if verdict.outcome == ACCEPTED:
            one.versions.add(verdict.base_version)
            while len(one.versions) > SHARE_VERSIONS:
                one.versions.remove(min(one.versions))

    def heartbeat(self, view: TaskView, record: LogRecord) -> None:
        """Take one record of a topic of heartbeats."""
        found = heartbeat_in(
            record.value, record.timestamp_ms, view.trust, view.task, bytes_max=HEARTBEAT_BYTES_MAX
        )
        if isinstance(found, str):
            self.strays += 1
            return
        beat, signer = found
        one = self._of(beat.region, beat.device_id, min(beat.sent_ms, record.timestamp_ms))
        if beat.sent_ms > one.beaten_ms:
            one.beaten_ms, one.state, one.reason, one.cohort = (
                beat.sent_ms,
                beat.state,
                beat.reason,
                signer.cohort,
            )

    def _of(self, region: str, device_id: str, at_ms: int) -> Heard:
        key = region, device_id
        one = self._devices.setdefault(key, Heard(region, device_id))
        one.last_ms = max(one.last_ms, at_ms)
        self._devices.move_to_end(key)
        if len(self._devices) > self._kept_max:
            self._devices.popitem(last=False)
            self.forgotten += 1
        return one


def read_registry(view: TaskView, slots: Sequence[Slot], *, limit: int) -> Registry:
    """The devices of some partitions, at most ``limit``, those heard last first."""
    found = Gathering()
    for slot in slots:
        topic = verdicts_topic(view.task, slot[0])
        _, log_end = view.reader.bounds(updates_topic(view.task, slot[0]), slot[1])
        low, high = view.reader.bounds(topic, slot[1])
        for record in view.reader.read(topic, slot[1], max(low, high - VERDICTS_READ_MAX), high):
            found.verdict(slot, record, log_end)
    beats = _read_heartbeats(view, found)
    wanted = found.by_last()
    regions = {region for region, _ in slots}
    wanted = [one for one in wanted if one.region in regions]
    shown = wanted[:limit]
    for one in [one for one in shown if one.cohort is None and one.partition is not None][:COHORTS_READ_MAX]:
        one.cohort = _cohort_of(view, one)
    return Registry(
        view.task,
        view.head(),
        tuple(shown),
        len(wanted),
        found.forgotten,
        heartbeats=beats,
        strays=found.strays,
    )


def _read_heartbeats(view: TaskView, found: Gathering) -> bool:
    """Whether the task has a topic of heartbeats; what stands at its end is taken."""
    topic = heartbeats_topic(view.task)
    if not view.file.has_heartbeats:
        return False
    low, high = view.reader.bounds(topic, 0)
    for record in view.reader.read(topic, 0, max(low, high - HEARTBEATS_READ_MAX), high):
        found.heartbeat(view, record)
    return True


def _cohort_of(view: TaskView, one: Heard) -> str | None:
    """What the certificate of its newest judged record names; None where that record names nobody."""
    assert one.partition is not None
    topic = updates_topic(view.task, one.region)
    if one.offset < view.reader.bounds(topic, one.partition)[0]:
        return None  # the log has lost it, or somebody wrote a verdict of it
    for record in view.reader.read(topic, one.partition, one.offset, one.offset + 1):
        try:
            return view.trust.identify(read_update(record.value or b"", view.trust.rules).certificate).cohort
        except (CodecError, BadCertificateError):
            return None
    return None
