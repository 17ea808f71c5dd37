"""How long a part was missed after it was killed, measured from topics: from what the broker wrote down, and when.

- A worker: from the kill to the verdict on the first record that was appended after it, in that partition of its region
  where this takes longest. Which partitions it had is not asked for, so this is no less than its own partitions took.
- A merger: from the kill to the first barrier, in any partition, of a version new to all partitions.

Both are upper bounds: they contain the time in which nothing was published, or not enough for a version. A kill is
``alone`` when, from ``BEFORE_S`` before it until it had recovered, no other fault was there that its recovery stands
on: on a service, on the fleet, on another worker of its region, on another merger.
"""

from __future__ import annotations

import statistics
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aggregation.fold.rejections import CONTROL
from backends.kafka.reading import LogReader
from fluvial.proof.chaos.schedule import FLEET
from fluvial.reading.progress import Place
from schemas.topics import updates_topic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from backends.settings import Settings
    from fluvial.proof.chaos.history import FaultRecord
    from fluvial.proof.chaos.parts import Cast
    from fluvial.reading.progress import RunFacts

BEFORE_S: Final = 8.0
"""What ended so shortly before a kill may still be felt."""
_BARRIER: Final = "barrier to version "

Appends = dict[tuple[str, int], list[int]]
"""By (region, partition): the LogAppendTime of every offset of the updates topic, milliseconds since 1970 UTC."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """One kill. ``seconds`` None: nothing shows that the part worked again."""

    role: str
    target: str
    killed_at: float
    seconds: float | None
    alone: bool

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "target": self.target,
            "killed_at": round(self.killed_at, 3),
            "seconds": None if self.seconds is None else round(self.seconds, 3),
            "alone": self.alone,
        }


def read_appends(settings: Settings, task: str, regions: Mapping[str, int]) -> Appends:
    """When every record of the updates topics was appended."""
    appends: Appends = {}
    with LogReader(settings, "fluvial-chaos-recovery") as reader:
        for region, partitions in regions.items():
            topic = updates_topic(task, region)
            for partition in range(partitions):
                low, end = reader.bounds(topic, partition)
                stamps = [record.timestamp_ms for record in reader.read(topic, partition, low, end)]
                appends[region, partition] = stamps
    return appends


def recoveries(
    records: Sequence[FaultRecord], crew: Cast, appends: Appends, facts: RunFacts
) -> list[Recovery]:
    """One for each kill of workers and mergers, in the order of the faults."""
    barriers = _first_barriers(appends, facts)
    found = []
    for record in records:
        target = record.fault.target
        role = "worker" if target in crew.workers else "merger" if target.startswith("merger") else ""
        if not role:
            continue
        for killed_at in record.killed_at:
            if role == "worker":
                seconds = _worker_seconds(killed_at, crew.workers[target], appends, facts)
            else:
                seconds = next((at - killed_at for at in barriers if at > killed_at), None)
            alone = not any(
                other is not record and _disturbs(other, record, crew, killed_at, seconds)
                for other in records
            )
            found.append(Recovery(role, target, killed_at, seconds, alone))
    return found


def summary(found: Sequence[Recovery]) -> dict[str, Any]:
    """``recovery_seconds`` of the result: by role and over all; and the same of those that were alone."""
    roles: dict[str, Any] = {
        role: {
            **_quantiles([one for one in found if one.role == role]),
            "alone": _quantiles([one for one in found if one.role == role and one.alone]),
        }
        for role in ("worker", "merger")
    }
    return {**roles, **_quantiles(list(found)), "kills": [one.document() for one in found]}


def _quantiles(found: Sequence[Recovery]) -> dict[str, float | int | None]:
    seconds = [one.seconds for one in found if one.seconds is not None]
    return {
        "p50": round(statistics.median(seconds), 3) if seconds else None,
        "max": round(max(seconds), 3) if seconds else None,
        "n": len(found),
    }


def _worker_seconds(killed_at: float, region: str, appends: Appends, facts: RunFacts) -> float | None:
    slowest: float | None = None
    for (place_region, partition), stamps in appends.items():
        if place_region != region:
            continue
        first = bisect_right(stamps, round(killed_at * 1000))
        if first >= len(stamps):
            continue  # nothing was appended any more: nothing to be missed
        judged = facts.verdicts.get(Place(region, partition, first))
        if judged is None:
            return None
        slowest = max(slowest or 0.0, judged.timestamp_ms / 1000 - killed_at)
    return slowest


def _first_barriers(appends: Appends, facts: RunFacts) -> list[float]:
    """When each version's first barrier was appended, ascending; seconds since 1970 UTC."""
    first: dict[int, float] = {}
    for place, judged in facts.verdicts.items():
        verdict = judged.verdict
        if verdict.outcome != CONTROL or not verdict.detail.startswith(_BARRIER):
            continue
        version = int(verdict.detail.removeprefix(_BARRIER).partition(" ")[0].rstrip(",:;"))
        stamps = appends.get((place.region, place.partition), [])
        if place.offset < len(stamps):
            at = stamps[place.offset] / 1000
            first[version] = min(first.get(version, at), at)
    return sorted(first.values())


def _disturbs(
    other: FaultRecord, record: FaultRecord, crew: Cast, killed_at: float, seconds: float | None
) -> bool:
    recovered_at = killed_at + (seconds if seconds is not None else BEFORE_S)
    if other.ended_at + BEFORE_S < killed_at or other.began_at > recovered_at:
        return False
    one, target = other.fault.target, record.fault.target
    if other.fault.on_ground or one in {FLEET, target}:
        return True
    if target in crew.workers:
        return one in crew.workers and crew.workers[one] == crew.workers[target]
    # A merger may wait for a guide, or make a version without.
    return one.startswith(("merger", "guardian"))
