"""What a fleet says while it runs, and what it did, in numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from producers.fleet.failures import FailedRounds


class Speaker(Protocol):
    """The one thing that a fleet needs to be heard: ``fluvial.terminal.output.Output`` is one."""

    def say(self, text: str) -> None:
        """One line of progress."""
        ...


@dataclass(frozen=True, slots=True)
class FleetSummary:
    """What a fleet has done.

    ``published`` counts acknowledged records by behaviour; ``failed`` records were never acknowledged; ``versions`` is
    the newest version that each region was told of; ``failed_rounds`` ended before there was a record. ``declined``:
    how often a device might not take part when it was asked, by kind of reason.
    """

    published: dict[str, int]
    failed: int
    seconds: float
    versions: dict[str, int]
    failed_rounds: FailedRounds = field(default_factory=FailedRounds)
    declined: dict[str, int] = field(default_factory=dict)

    @property
    def updates(self) -> int:
        """Records acknowledged."""
        return sum(self.published.values())

    @property
    def updates_per_second(self) -> float:
        """Records acknowledged a second, from the first announcement on."""
        return self.updates / self.seconds if self.seconds > 0 else 0.0

    def document(self) -> dict[str, Any]:
        """The summary as JSON wants it."""
        return {
            "updates": self.updates,
            "failed": self.failed,
            "failed_rounds": self.failed_rounds.document(),
            "declined": self.declined,
            "published": self.published,
            "seconds": round(self.seconds, 3),
            "updates_per_second": round(self.updates_per_second, 2),
            "versions": self.versions,
        }
