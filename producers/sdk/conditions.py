"""Conditions under which a device takes part, as psutil and the file system answer them: for ``can_run``."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aggregation.errors import UsageProblem

DAYS_MAX: Final = 36_500.0
FILES_MAX: Final = 10_000
"""Files below a folder that are looked at for the newest."""
_DAY_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Conditions:
    """What has to hold; call it, and it says what does not, "" where all does. UsageProblem FLV-2513 for a bad bound.

    battery_min: share of a full battery, unless the device is on mains or has none. load_max: running processes a
    processor, on average over the last minute. memory_bytes_min: what programs could still take. data, data_days_max:
    the newest file of a file or folder is at most so many days old. What is not given is not asked for.

    Whether a network is metered, or a screen is off, only a platform can say: ask it in a function of your own, beside
    these (``lambda: "the network is metered" if metered() else conditions()``).
    """

    battery_min: float = 0.0
    load_max: float = math.inf
    memory_bytes_min: int = 0
    data: Path | str | None = None
    data_days_max: float = math.inf

    def __post_init__(self) -> None:
        rules = {
            "battery_min": (0.0 <= self.battery_min <= 1.0, "0 to 1"),
            "load_max": (self.load_max > 0.0, "above 0"),
            "memory_bytes_min": (self.memory_bytes_min >= 0, "0 or more"),
            "data_days_max": (
                0.0 < self.data_days_max <= DAYS_MAX or self.data_days_max == math.inf,
                f"above 0, at most {DAYS_MAX:g}",
            ),
            "data": (
                (self.data is None) == (self.data_days_max == math.inf),
                "given together with data_days_max",
            ),
        }
        for name, (holds, bound) in rules.items():
            if not holds:
                raise UsageProblem(
                    "FLV-2513",
                    f"the condition {name} = {getattr(self, name)!r}: it has to be {bound}",
                    hint="docs/devices.md has what each condition means",
                )

    def __call__(self) -> str:
        """What does not hold now, the first of it in words; "" where all holds."""
        return self._battery() or self._load() or self._memory() or self._age()

    def _battery(self) -> str:
        if not self.battery_min:
            return ""
        import psutil

        battery = psutil.sensors_battery()
        if battery is None or battery.power_plugged or battery.percent >= 100.0 * self.battery_min:
            return ""
        return f"the battery is at {battery.percent:.0f} %, below {self.battery_min:.0%}"

    def _load(self) -> str:
        if self.load_max == math.inf:
            return ""
        import psutil

        load = psutil.getloadavg()[0] / (psutil.cpu_count() or 1)
        return f"the machine is busy: {load:.2f} processes a processor" if load > self.load_max else ""

    def _memory(self) -> str:
        if not self.memory_bytes_min:
            return ""
        import psutil

        free = psutil.virtual_memory().available
        return f"{free >> 20} MiB of memory are free" if free < self.memory_bytes_min else ""

    def _age(self) -> str:
        if self.data is None:
            return ""
        path = Path(self.data)
        newest_s = newest(path)
        if newest_s is None:
            return f"there is no data at {path}"
        days = (time.time() - newest_s) / _DAY_S
        return f"the newest data is {days:.1f} days old" if days > self.data_days_max else ""


def newest(path: Path) -> float | None:
    """When a file, or the newest of the first ``FILES_MAX`` below a folder, was written; seconds since 1970.

    None where there is no file.
    """
    if path.is_file():
        return path.stat().st_mtime
    found: float | None = None
    for number, one in enumerate(path.rglob("*")):
        if number >= FILES_MAX:
            break
        if one.is_file():
            found = max(found or 0.0, one.stat().st_mtime)
    return found
