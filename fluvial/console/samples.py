"""How far every partition was, once a look: from it follow rates, trends, and for how long a record has waited."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from aggregation.server.aggregates import Slot
from fluvial.console.limits import FLOW_SECONDS

Trend = Literal["none", "falling", "steady", "rising"]

SAMPLES_MAX: Final = 130
_STEADY_SHARE: Final = 0.1


class Reached(NamedTuple):
    """One partition at one moment, one past the last: appended, judged (-1: unknown), in windows; windows, merged."""

    log_end: int
    folded_to: int
    sealed_to: int
    windows: int
    merged: int

    @property
    def lag_records(self) -> int:
        """Records without a verdict."""
        return max(0, self.log_end - self.folded_to) if self.folded_to >= 0 else 0

    @property
    def windows_waiting(self) -> int:
        """Windows in no version yet."""
        return max(0, self.windows - self.merged)


@dataclass(frozen=True, slots=True)
class Sample:
    """All partitions at ``at_ms``; ``head`` is the newest version."""

    at_ms: int
    slots: Mapping[Slot, Reached]
    head: int


class Samples:
    """The newest samples. Written by one thread; readers get copies."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=SAMPLES_MAX)

    def add(self, sample: Sample) -> None:
        """The newest."""
        self._samples.append(sample)

    def all(self) -> list[Sample]:
        """Oldest first."""
        return list(self._samples)


def before(samples: list[Sample], seconds: float = FLOW_SECONDS) -> Sample | None:
    """The newest sample that is at least so much older than the last; the oldest where all are younger."""
    if len(samples) < 2:  # noqa: PLR2004 (a difference has two ends)
        return None
    wanted_ms = samples[-1].at_ms - seconds * 1000
    return next((one for one in reversed(samples[:-1]) if one.at_ms <= wanted_ms), samples[0])


def rate(samples: list[Sample], count: Callable[[Sample], int]) -> float | None:
    """How much ``count`` grows in a second; None before there are two samples."""
    then = before(samples)
    if then is None:
        return None
    seconds = (samples[-1].at_ms - then.at_ms) / 1000
    return round(max(0, count(samples[-1]) - count(then)) / seconds, 3) if seconds > 0 else None


def trend(samples: list[Sample], count: Callable[[Sample], int]) -> Trend:
    """Whether ``count`` grows; "none" when it is 0 and was."""
    then = before(samples)
    now = count(samples[-1]) if samples else 0
    was = count(then) if then is not None else now
    if not now and not was:
        return "none"
    if abs(now - was) <= _STEADY_SHARE * max(now, was):
        return "steady"
    return "rising" if now > was else "falling"
