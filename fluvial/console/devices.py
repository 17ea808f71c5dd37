"""Who takes part: devices counted by id, the least recently seen forgotten past ``DEVICES_MAX``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from fluvial.console.bounded import Newest
from fluvial.console.limits import DEVICES_MAX

Sort = Literal["recent", "refused", "accepted"]

_BUCKETS: Final = ((1, 1), (2, 3), (4, 7), (8, 15), (16, 31), (32, 63), (64, 127), (128, 255), (256, None))
_TOP: Final = 0.1


@dataclass(slots=True)
class Device:
    """What one device has done since the console follows. ``last_ms`` is its newest verdict's time."""

    region: str
    device_id: str
    accepted: int = 0
    refused: int = 0
    last_ms: int = 0

    def key(self, sort: Sort) -> tuple[int, str, str]:
        """By what it stands where in a list; the greatest first."""
        value = {"recent": self.last_ms, "refused": self.refused, "accepted": self.accepted}[sort]
        return value, self.region, self.device_id

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "device_id": self.device_id,
            "region": self.region,
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

    def add(self, region: str, device_id: str, at_ms: int, *, accepted: bool) -> None:
        """Count one verdict."""
        device = self._devices.get((region, device_id)) or Device(region, device_id)
        if accepted:
            device.accepted += 1
        else:
            device.refused += 1
        device.last_ms = max(device.last_ms, at_ms)
        self._devices.put((region, device_id), device)

    def rows(self) -> list[Device]:
        """A copy of the list; the devices themselves go on being counted."""
        return [device for _, device in self._devices.items()]


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
