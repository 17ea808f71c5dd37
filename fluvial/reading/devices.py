"""How a task's devices stand: who had which share of the last versions, who is suspected, why, and since when.

A worker keeps it in its partition's state, and each window's snapshot has it. Nothing here is decided again: it is what
the newest published window of each partition says. Reasons come from the newest verdicts, which nobody signs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aggregation.defences import SCORES_REMEMBERED, SHARE_VERSIONS
from aggregation.errors import FluvialError, IntegrityProblem, UsageProblem
from aggregation.fold.rejections import RejectionReason
from aggregation.reasons import Reason
from fluvial.reading.replay import read_aggregates
from fluvial.reading.verdicts import verdict_document
from schemas.avro import CodecError
from schemas.topics import aggregates_topic, updates_topic, verdicts_topic
from schemas.verdicts import decode_verdict
from schemas.windows import Standings, standings_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from aggregation.fold.events import Verdict
    from aggregation.policy import Policy
    from aggregation.server.aggregates import Aggregate, Slot
    from backends.store.task_store import TaskStore
    from fluvial.reading.task_view import TaskView

VERDICTS_READ_MAX: Final = 1000
"""How far back in each partition's verdicts a device's last refusal is looked for."""
WINDOWS_READ: Final = 32
"""Records at an aggregates topic's end that are read first; where none is a window, twice as many before them."""
_SCORED_OUTCOME: Final = RejectionReason.ANOMALOUS.outcome


@dataclass(frozen=True, slots=True)
class Refusal:
    """A device's newest ``anomalous`` verdict, and when it was written (milliseconds since 1970)."""

    verdict: Verdict
    written_ms: int


class Told(NamedTuple):
    """What the newest verdicts tell of a partition's devices, and how many records among them are none.

    ``refusals``: each device's newest anomalous one. ``lifted``: the offset of the Pardon that ended a quarantine, by
    device and by the version until which that would have lasted.
    """

    refusals: Mapping[str, Refusal]
    strays: int = 0
    lifted: Mapping[tuple[str, int], int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class DeviceStanding:
    """One device at the task's newest version, by the newest window of its partition.

    accepted: updates of the last ``SHARE_VERSIONS`` versions. anomalous: of its last ``scored`` ones, at most
    ``SCORES_REMEMBERED``; both begin at 0 again with a quarantine. since, until: the version at which its quarantine
    began, and the first without it; None outside. refusal: None where none stands in the verdicts that were read.
    lifted: the offset of the Pardon that has ended this quarantine behind the window; None where none has.
    """

    slot: Slot
    device_id: str
    accepted: int
    anomalous: int
    scored: int
    since: int | None
    until: int | None
    revoked: bool
    refusal: Refusal | None
    lifted: int | None = None

    @property
    def quarantined(self) -> bool:
        """Whether its updates are refused for now."""
        return self.until is not None and self.lifted is None

    @property
    def by_suspicion(self) -> tuple[Any, ...]:
        """Sorts the most suspected first: quarantine, longest first; anomalous ones, their share; what was accepted."""
        share = self.anomalous / self.scored if self.scored else 0.0
        return (-(self.until or -1), -self.anomalous, -share, -self.accepted, self.slot, self.device_id)

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "device_id": self.device_id,
            "region": self.slot[0],
            "partition": self.slot[1],
            "accepted": self.accepted,
            "anomalous": self.anomalous,
            "scored": self.scored,
            "quarantined": self.quarantined,
            "quarantined_since": self.since,
            "quarantined_until": self.until,
            "lifted_at": self.lifted,
            "revoked": self.revoked,
            "last_anomalous": None if self.refusal is None else _refusal_document(self.slot, self.refusal),
        }


@dataclass(frozen=True, slots=True)
class PartitionDevices:
    """One partition's devices, in no order.

    ``window`` is the newest published one, None before the first. ``version`` is the one at which they stand so, the
    task's newest; None where the window could not be read, or keeps nothing of devices. ``problem`` says why it could
    not be read. ``strays``: records among the verdicts that are none.
    """

    slot: Slot
    window: Aggregate | None
    version: int | None
    devices: tuple[DeviceStanding, ...]
    problem: FluvialError | None = None
    strays: int = 0

    @property
    def name(self) -> str:
        """Region and partition."""
        return f"{self.slot[0]}[{self.slot[1]}]"

    def document(self) -> dict[str, Any]:
        """For JSON."""
        window, problem = self.window, self.problem
        return {
            "region": self.slot[0],
            "partition": self.slot[1],
            "window": None if window is None else window.sequence,
            "next_offset": None if window is None else window.next_offset,
            "version": self.version,
            "devices": len(self.devices),
            "quarantined": sum(one.quarantined for one in self.devices),
            "strays": self.strays,
            "problem": None if problem is None else {"id": problem.error_id, "message": problem.message},
        }


@dataclass(frozen=True, slots=True)
class Devices:
    """What was asked for: ``shown`` of the ``total`` devices that were, the most suspected first."""

    task: str
    partitions: tuple[PartitionDevices, ...]
    shown: tuple[DeviceStanding, ...]
    total: int
    pardons: bool = False
    """Whether an operator can lift quarantines of this task."""

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "task": self.task,
            "total": self.total,
            "shown": len(self.shown),
            "accepted_in_versions": SHARE_VERSIONS,
            "scored_max": SCORES_REMEMBERED,
            "devices": [one.document() for one in self.shown],
            "partitions": [one.document() for one in self.partitions],
        }


def read_devices(view: TaskView, slots: Sequence[Slot], *, quarantined: bool, limit: int) -> Devices:
    """The devices of some partitions, the most suspected first, at most ``limit``; with ``quarantined`` only those.

    A partition whose newest window cannot be read has a ``problem``, and the others are shown. Raises UsageProblem
    FLV-6208 for a task that keeps nothing of its devices.
    """
    head = view.head()
    found = tuple(_partition(view, slot, head) for slot in slots)
    if not any(one.version is not None for one in found):
        _require_shares(view, view.genesis.first_policy)
    wanted = sorted(
        (one for partition in found for one in partition.devices if one.quarantined or not quarantined),
        key=lambda one: one.by_suspicion,
    )
    pardons = view.genesis.first_policy.knows_pardons
    return Devices(view.task, found, tuple(wanted[:limit]), len(wanted), pardons)


def _require_shares(view: TaskView, policy: Policy) -> None:
    if policy.counts_shares and policy.shares.per_version:
        return
    why = "shares.per_version is 0" if policy.counts_shares else f"it is of {policy.format}, before v3"
    raise UsageProblem(
        "FLV-6208",
        f"the policy of task {view.task} keeps no shares of its devices: {why}",
        hint=f"see their refused updates with `fluvial verdicts --task {view.task} --outcome {_SCORED_OUTCOME}`",
    )


def partition_of_task(view: TaskView, slot: Slot) -> PartitionDevices:
    """One partition's devices, at the task's newest version; what cannot be read of it is its ``problem``."""
    return _partition(view, slot, view.head())


def _partition(view: TaskView, slot: Slot, head: int) -> PartitionDevices:
    window = _newest_window(view, slot)
    if window is None:
        return PartitionDevices(slot, None, None, ())
    return partition_devices(view.objects, window, head, lambda: _told(view, slot))


def partition_devices(
    objects: TaskStore,
    window: Aggregate,
    head: int,
    told: Callable[[], Told],
) -> PartitionDevices:
    """A partition's devices as its ``window`` has them, at version ``head``; one object of the store, and a policy.

    ``told`` gives what the newest verdicts say.
    """
    slot = window.slot
    try:
        standings = standings_in(objects.get_object(window.state_sha256), window)
        policy = None if standings is None else objects.policy(standings.policy_sha256)
    except IntegrityProblem as problem:
        return PartitionDevices(slot, window, None, (), problem)
    if standings is None or policy is None or not policy.shares.per_version:
        return PartitionDevices(slot, window, None, ())
    # The barriers of newer versions may stand behind the window, and an idle partition closes none for them.
    version = max(head, standings.version)
    standings.shares.forget_before(version)
    known = told()
    devices = tuple(_standings(slot, standings, version, policy, known))
    return PartitionDevices(slot, window, version, devices, strays=known.strays)


def _newest_window(view: TaskView, slot: Slot) -> Aggregate | None:
    """The newest of the windows that stand nearest to the topic's end; None where there is none.

    What no worker signed is passed over, and so is a window beyond its log's end.
    """
    _, log_end = view.reader.bounds(updates_topic(view.task, slot[0]), slot[1])
    low, high = view.reader.bounds(aggregates_topic(view.task, slot[0]), slot[1])
    count = WINDOWS_READ
    while high > low:
        start = max(low, high - count)
        published = read_aggregates(view.reader, view.trust, view.task, slot, start=start, end=high)
        found = [
            one.aggregate
            for one in published
            if one.aggregate is not None and one.aggregate.next_offset <= log_end
        ]
        if found:
            return max(found, key=lambda one: one.sequence)
        high, count = start, count * 2
    return None


def _standings(
    slot: Slot, standings: Standings, version: int, policy: Policy, told: Told
) -> Iterator[DeviceStanding]:
    shares = standings.shares
    for device in sorted({device for device, _ in shares} | shares.quarantined.keys()):
        share, until = shares.of(device, version, policy.shares), shares.quarantined.get(device)
        yield DeviceStanding(
            slot,
            device,
            share.total,
            share.refused.bit_count(),
            share.scored,
            None if until is None else max(0, until - policy.defence.quarantine_versions),
            until,
            device in standings.revoked,
            told.refusals.get(device),
            None if until is None else told.lifted.get((device, until)),
        )


def _told(view: TaskView, slot: Slot) -> Told:
    """What the newest verdicts of a partition tell of its devices.

    A verdict of an offset beyond the log's end is none either: whoever planted it must not hide those that come.
    """
    topic = verdicts_topic(view.task, slot[0])
    _, log_end = view.reader.bounds(updates_topic(view.task, slot[0]), slot[1])
    low, high = view.reader.bounds(topic, slot[1])
    found: dict[str, Refusal] = {}
    lifted: dict[tuple[str, int], int] = {}
    strays = 0
    for record in view.reader.read(topic, slot[1], max(low, high - VERDICTS_READ_MAX), high):
        try:
            verdict = decode_verdict(record.value or b"")
        except CodecError:
            strays += 1
            continue
        if verdict.offset >= log_end:
            strays += 1
            continue
        if verdict.because.reason is Reason.PARDON:
            named = verdict.because.named
            lifted[str(named["device_id"]), int(named["until"])] = verdict.offset
        known = found.get(verdict.device_id)
        if verdict.outcome == _SCORED_OUTCOME and (known is None or known.verdict.offset <= verdict.offset):
            found[verdict.device_id] = Refusal(verdict, record.timestamp_ms)
    return Told(found, strays, lifted)


def _refusal_document(slot: Slot, refusal: Refusal) -> dict[str, Any]:
    told = verdict_document(slot, refusal.verdict)
    names = ("offset", "base_version", "reason", "values", "detail", "norm", "cosine")
    return {name: told[name] for name in names} | {"written_at_ms": refusal.written_ms}


def age_s(refusal: Refusal) -> float:
    """How long ago a verdict was written, in seconds."""
    return max(0.0, time.time() - refusal.written_ms / 1000)


def problems_of(partitions: Iterable[PartitionDevices]) -> list[tuple[PartitionDevices, FluvialError]]:
    """The partitions whose newest window could not be read, each with why."""
    return [(one, one.problem) for one in partitions if one.problem is not None]
