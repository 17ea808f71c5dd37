"""What a simulation counts as it goes: verdicts by outcome, bytes, rounds, the seconds that devices worked."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from aggregation.fold.rejections import ACCEPTED, CONTROL, PARKED
from backends.observer import Observer

if TYPE_CHECKING:
    from aggregation.fold.events import Event, Verdict
    from aggregation.server.aggregates import Slot
    from backends.log import Headers, LogRecord

_NO_DEVICES: Final = frozenset({CONTROL, PARKED})


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One version, and all that was done until it was made.

    ``seconds``: of the simulated clock. ``updates``: judged, of which ``accepted`` were. ``rounds``: ended, lost ones
    included; ``device_seconds``: for how long devices worked in these, the client work. ``bytes_up``: of updates, as
    they stand in the log; ``bytes_down``: of models that rounds began with. ``staleness``: of its updates, the mean in
    versions. ``metrics``: of the held-out examples; empty where it was not evaluated.
    """

    version: int
    seconds: float
    updates: int
    accepted: int
    rounds: int
    device_seconds: float
    bytes_up: int
    bytes_down: int
    staleness: float
    model_sha256: str
    metrics: dict[str, float]
    problem: str = ""


class Ledger(Observer):
    """Counts. The workers tell it of verdicts, the crowd of rounds."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.since_head: Counter[str] = Counter()
        """Of updates on the version ``head`` or a later one."""
        self.head = 0
        self.rounds = 0
        self.rounds_lost = 0
        self.device_seconds = 0.0
        self.bytes_up = 0
        self.bytes_down = 0

    @property
    def updates(self) -> int:
        """How many updates were judged."""
        return self.outcomes.total()

    @property
    def accepted(self) -> int:
        """How many of them count."""
        return self.outcomes[ACCEPTED]

    def judged(self, slot: Slot, record: LogRecord, event: Event, verdict: Verdict) -> Headers:  # noqa: ARG002 (the observer's signature)
        """See ``Observer``."""
        if verdict.outcome not in _NO_DEVICES:
            self.outcomes[verdict.outcome] += 1
            self.bytes_up += len(record.value or b"")
            if verdict.base_version >= self.head:
                self.since_head[verdict.outcome] += 1
        return ()

    def round_ended(self, seconds: float, *, lost: bool) -> None:
        """A device has worked for so long; nothing came of it where it was ``lost``."""
        self.rounds += 1
        self.rounds_lost += lost
        self.device_seconds += seconds

    def head_moved(self, version: int) -> None:
        """There is a new version."""
        self.head = version
        self.since_head = Counter()

    def totals(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "updates": self.updates,
            "verdicts": dict(self.outcomes.most_common()),
            "rounds": self.rounds,
            "rounds_lost": self.rounds_lost,
            "device_seconds": round(self.device_seconds, 3),
            "bytes_up": self.bytes_up,
            "bytes_down": self.bytes_down,
        }
