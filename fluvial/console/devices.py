"""Who takes part: devices counted by what is authentic of them, the least recently seen forgotten past ``DEVICES_MAX``.

A verdict's device id is its certificate's. That the device is of the region in whose log the record stands follows from
those outcomes only whose checks come after that of the region: a record that claims another region, or was put into
another region's log, is an authentic id's and proves no place. It counts for the device of that id, where there is one.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from aggregation.fold.rejections import ACCEPTED, AGGREGATED, RejectionReason
from fluvial.console.bounded import Newest
from fluvial.console.limits import DEVICES_MAX

COUNTED: Final = frozenset({ACCEPTED, AGGREGATED})
"""Outcomes of what was added: an edge stands among the devices of the region above it, with its windows."""
PLACED: Final = frozenset(
    {
        *COUNTED,
        *(
            reason.outcome
            for reason in (
                RejectionReason.WRONG_PARTITION,
                RejectionReason.FUTURE_BASE,
                RejectionReason.ROUND_OVER,
                RejectionReason.TOO_STALE,
                RejectionReason.UNKNOWN_BASE,
                RejectionReason.NOT_SELECTED,
                RejectionReason.DUPLICATE,
                RejectionReason.NOT_FINITE,
                RejectionReason.OUT_OF_RANGE,
                RejectionReason.NORM_EXCEEDED,
                RejectionReason.ANOMALOUS,
                RejectionReason.OVER_SHARE,
                RejectionReason.QUARANTINED,
                RejectionReason.BAD_AGGREGATE,
            )
        ),
    }
)
"""Outcomes of updates whose device is of the region in whose log they stand."""

Sort = Literal["recent", "refused", "accepted"]

_BUCKETS: Final = ((1, 1), (2, 3), (4, 7), (8, 15), (16, 31), (32, 63), (64, 127), (128, 255), (256, None))
_TOP: Final = 0.1


@dataclass(slots=True)
class Device:
    """What one device has done since the console follows. ``last_ms`` is its newest verdict's time.

    Where it is not ``placed``, ``region`` is only where it was seen last.
    """

    region: str
    device_id: str
    accepted: int = 0
    refused: int = 0
    last_ms: int = 0
    placed: bool = True

    def key(self, sort: Sort) -> tuple[int, str, str]:
        """By what it stands where in a list; the greatest first."""
        value = {"recent": self.last_ms, "refused": self.refused, "accepted": self.accepted}[sort]
        return value, self.region, self.device_id

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "device_id": self.device_id,
            "region": self.region,
            "placed": self.placed,
            "accepted": self.accepted,
            "refused": self.refused,
            "last_ms": self.last_ms,
        }


class Devices:
    """All devices seen. Not thread-safe: whoever holds it has a lock."""

    def __init__(self, devices_max: int = DEVICES_MAX) -> None:
        self._devices: Newest[tuple[str, str], Device] = Newest(devices_max)

    def __len__(self) -> int:
        return len(self._devices)

    @property
    def forgotten(self) -> int:
        """Devices that were let go."""
        return self._devices.forgotten

    def add(self, region: str, device_id: str, at_ms: int, outcome: str) -> None:
        """Count one verdict that stands in ``region``."""
        placed = outcome in PLACED
        key = (region if placed else "", device_id)
        device = self._devices.get(key) or Device(region, device_id, placed=placed)
        device.region = region
        if outcome in COUNTED:
            device.accepted += 1
        else:
            device.refused += 1
        device.last_ms = max(device.last_ms, at_ms)
        self._devices.put(key, device)

    def rows(self) -> list[Device]:
        """Each device once: those that are placed, and ids that no device of any region has shown to be its own.

        What proves no place is added to the device of its id; where several regions have one, it is nobody's.
        """
        placed: dict[tuple[str, str], Device] = {}
        elsewhere: list[Device] = []
        regions: defaultdict[str, list[str]] = defaultdict(list)
        for key, device in self._devices.items():
            if device.placed:
                placed[key] = device
                regions[device.device_id].append(device.region)
            else:
                elsewhere.append(device)
        for one in elsewhere:
            homes = regions.get(one.device_id, [])
            if not homes:
                placed["", one.device_id] = one
            elif len(homes) == 1:
                home = homes[0], one.device_id
                own = placed[home]
                placed[home] = replace(
                    own, refused=own.refused + one.refused, last_ms=max(own.last_ms, one.last_ms)
                )
        return list(placed.values())


def page(
    devices: list[Device], sort: Sort, after: tuple[int, str, str] | None, limit: int
) -> tuple[list[Device], bool]:
    """(the devices that follow ``after``, whether there are more), the greatest first."""
    rows = devices if after is None else [one for one in devices if one.key(sort) < after]
    rows = sorted(rows, key=lambda one: one.key(sort), reverse=True)
    return rows[:limit], len(rows) > limit


def participation(counts: list[int]) -> dict[str, Any]:
    """How evenly accepted updates come from devices.

    ``gini`` is the Gini coefficient of the counts, 0 when all are equal: with ascending x_1..x_n,
    (2 · Σ i·x_i) / (n · Σ x_i) − (n + 1) / n. ``top_tenth_share`` is the share of the busiest tenth, at least one.
    """
    given = sorted(count for count in counts if count > 0)
    total, devices = sum(given), len(given)
    histogram = [
        {
            "updates_min": low,
            "updates_max": high,
            "devices": sum(1 for count in given if low <= count and (high is None or count <= high)),
        }
        for low, high in _BUCKETS
    ]
    while len(histogram) > 1 and histogram[-1]["devices"] == 0:
        histogram.pop()
    if not total:
        return {"gini": None, "top_tenth_share": None, "histogram": []}
    weighted = sum(rank * count for rank, count in enumerate(given, start=1))
    top = max(1, round(devices * _TOP))
    return {
        "gini": round(max(0.0, 2 * weighted / (devices * total) - (devices + 1) / devices), 4),
        "top_tenth_share": round(sum(given[-top:]) / total, 4),
        "histogram": histogram,
    }
