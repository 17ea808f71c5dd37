"""Who the devices are: arithmetic. Pace, delays, days, drop-outs follow from a seed and a device's number.

Nothing is kept of a device that does not train: a population of a hundred thousand is as large as one of ten. A trace
(``trace``) takes the place of the arithmetic where there is one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, Protocol

import numpy as np

from aggregation.errors import UsageProblem
from fluvial.simulating.draws import Floats, Indices, normal, uniform

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

DEVICES_MAX: Final = 1 << 20
ROUND_S_MAX: Final = 86_400.0
DAY_S_MAX: Final = 7 * 86_400.0
SPREAD_MAX: Final = 5.0
TAIL_MAX: Final = 100.0
SLOWEST: Final = 10_000.0
"""No round takes longer than so many medians: a tail has an end."""
LOOKS_A_DAY: Final = 288
RISING_SPREAD: Final = 1 / 24
"""Of a day: the standard deviation of when devices of one time zone rise."""
_PACE, _DELAY, _PHASE, _LOST, _LOST_AT = 0, 2, 4, 6, 7
Delays = Literal["none", "lognormal", "pareto"]
NO_DELAYS: Final = "none"


class Population(Protocol):
    """Which devices there are, when they are there, and how long their rounds take. All of it follows from a number."""

    @property
    def devices(self) -> int:
        """How many, numbered from 0."""
        ...

    @property
    def cohorts(self) -> Sequence[str]:
        """Of each device, what its certificate names, "" for none; () where nobody says."""
        ...

    @property
    def always_there(self) -> bool:
        """Whether everybody is available all the time."""
        ...

    @property
    def name(self) -> str:
        """What decides about devices, in words."""
        ...

    def seeded(self, seed: int) -> Population:
        """The same, drawn from another seed."""
        ...

    def available(self, devices: Indices, now_s: float) -> npt.NDArray[np.bool_]:
        """bool[n]: which of ``devices`` (int64[n]) may begin a round at that time."""
        ...

    def next_change(self, now_s: float) -> float:
        """When to look again who is there, where somebody was wanted and nobody was."""
        ...

    def rounds(self, devices: Indices, number: int, now_s: float) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """(float64[n], bool[n]): for how many seconds each works from now on, and whether nothing comes of it.

        No device has two rounds of one ``number``.
        """
        ...


@dataclass(frozen=True, slots=True)
class Drawn:
    """Devices by arithmetic. UsageProblem FLV-6450 when a value is out of bounds.

    round_s: median seconds of a round. speed_spread: sigma of the log-normal pace that a device keeps. delays: how one
    round differs from another, ``tail`` being sigma of a log-normal of median 1, or the shape of a Pareto (the smaller,
    the heavier; Pareto I, scaled to the median 1). day_s: seconds of a day, 0 for none; a device is available for
    ``awake`` of it. ``zones``: device d lives in time zone d mod zones, and these are spread over the day; devices of
    one zone rise at about the same time. dropouts: share of the rounds that are lost somewhere on their way.
    """

    devices: int = 1000
    seed: int = 0
    round_s: float = 1.0
    speed_spread: float = 0.5
    delays: Delays = "lognormal"
    tail: float = 1.0
    day_s: float = 0.0
    awake: float = 0.4
    zones: int = 1
    dropouts: float = 0.0

    def __post_init__(self) -> None:
        rules = {
            "devices": (1 <= self.devices <= DEVICES_MAX, f"1 to {DEVICES_MAX}"),
            "seed": (0 <= self.seed < 1 << 32, "0 to 2**32 - 1"),
            "round_s": (0 < self.round_s <= ROUND_S_MAX, f"above 0, at most {ROUND_S_MAX:g}"),
            "speed_spread": (0 <= self.speed_spread <= SPREAD_MAX, f"0 to {SPREAD_MAX:g}"),
            "tail": (0 < self.tail <= TAIL_MAX, f"above 0, at most {TAIL_MAX:g}"),
            "day_s": (0 <= self.day_s <= DAY_S_MAX, f"0 to {DAY_S_MAX:g}"),
            "awake": (0 < self.awake <= 1, "above 0, at most 1"),
            "zones": (self.zones >= 1, "1 or more"),
            "dropouts": (0 <= self.dropouts < 1, "0 to below 1"),
        }
        for name, (holds, bound) in rules.items():
            if not holds:
                raise UsageProblem(
                    "FLV-6450",
                    f"simulation setting {name} = {getattr(self, name)!r} is out of bounds: it has to be {bound}",
                    hint="see `fluvial simulate --help`",
                )

    @property
    def cohorts(self) -> Sequence[str]:
        """See ``Population``: it is the task's data that may say, or nothing."""
        return ()

    @property
    def always_there(self) -> bool:
        """See ``Population``."""
        return self.day_s == 0.0 or self.awake == 1.0

    @property
    def name(self) -> str:
        """See ``Population``."""
        tail = "" if self.delays == NO_DELAYS else f"({self.tail:g})"
        day = "" if self.always_there else f", {self.awake:.0%} of a day of {self.day_s:g} s"
        lost = f", {self.dropouts:.0%} lost" if self.dropouts else ""
        return f"{self.devices} devices, delays {self.delays}{tail}{day}{lost}"

    def seeded(self, seed: int) -> Drawn:
        """See ``Population``."""
        return replace(self, seed=seed)

    def available(self, devices: Indices, now_s: float) -> npt.NDArray[np.bool_]:
        """See ``Population``."""
        if self.always_there:
            return np.ones(devices.shape, dtype=np.bool_)
        return self._awake_for(devices, now_s) > 0.0

    def next_change(self, now_s: float) -> float:
        """See ``Population``."""
        return now_s + self.day_s / LOOKS_A_DAY

    def rounds(self, devices: Indices, number: int, now_s: float) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """See ``Population``: a device that goes to bed in the middle, or drops out, has worked for nothing."""
        pace = np.exp(self.speed_spread * normal(self.seed, _PACE, devices))
        seconds = self.round_s * np.minimum(pace * self._delay(devices, number), SLOWEST)
        lost = uniform(self.seed, _LOST, devices, number) < self.dropouts
        seconds = np.where(lost, seconds * uniform(self.seed, _LOST_AT, devices, number), seconds)
        if not self.always_there:
            left = self._awake_for(devices, now_s)
            lost |= seconds > left
            seconds = np.minimum(seconds, left)
        return seconds, lost

    def _delay(self, devices: Indices, number: int) -> Floats:
        if self.delays == NO_DELAYS:
            return np.ones(devices.shape)
        if self.delays == "lognormal":
            found: Floats = np.exp(self.tail * normal(self.seed, _DELAY, devices, number))
            return found
        draws = uniform(self.seed, _DELAY, devices, number)
        return (2.0 * draws) ** (-1.0 / self.tail)

    def _awake_for(self, devices: Indices, now_s: float) -> Floats:
        """float64[n]: seconds until each goes to bed; 0 while it sleeps."""
        phase = (devices % self.zones) / self.zones + RISING_SPREAD * normal(self.seed, _PHASE, devices)
        rose = np.remainder(now_s - self.day_s * phase, self.day_s)
        return np.maximum(self.awake * self.day_s - rose, 0.0)


def finite(text: str) -> float:
    """A finite number, or ValueError."""
    value = float(text)
    if not math.isfinite(value):
        message = "not a finite number"
        raise ValueError(message)
    return value
