"""What counts as accepted, refused, or neither: one definition, for status, report, console, metrics and dashboards.

A record is *judged* when it is an update's: control records are none, and what an operator's Skip parked nobody
judged. A window of an edge that counts is none either: its updates were judged in the edge's log. A region's canary is
refused on purpose, so that its refusals are *canary* and in no other number; were one accepted, it would be in the
model, and counts. Everything else that is not accepted is refused.

Manifests and aggregates count by outcome alone, canaries among the refused: they are signed, and a canary is a
convention. Who knows how many there were takes them out here; who does not has them in.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

from aggregation.fold.rejections import ACCEPTED, AGGREGATED, CONTROL, PARKED
from aggregation.reasons import Reason
from schemas.canaries import is_canary

if TYPE_CHECKING:
    from aggregation.fold.events import Verdict

UNJUDGED: Final = frozenset({CONTROL, PARKED, AGGREGATED})
"""Outcomes that are in no number of updates."""


class Standing(Enum):
    """In which number a verdict is."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    CANARY = "canary"
    UNJUDGED = "unjudged"


def standing_of(outcome: str, region: str = "", device_id: str = "") -> Standing:
    """In which number one verdict of ``region`` is."""
    if outcome in UNJUDGED:
        return Standing.UNJUDGED
    if outcome == ACCEPTED:
        return Standing.ACCEPTED
    return Standing.CANARY if device_id and is_canary(region, device_id) else Standing.REFUSED


def updates_in(verdict: Verdict) -> int:
    """How many updates a verdict takes into its window: of one that counts itself, all of an edge's window."""
    if verdict.outcome == AGGREGATED and verdict.because.reason is Reason.EDGE_WINDOW:
        return int(verdict.because.named["accepted"])
    return int(verdict.outcome == ACCEPTED)


class Judged(NamedTuple):
    """How many updates were accepted and how many refused, canaries in neither."""

    accepted: int
    refused: int

    @property
    def updates(self) -> int:
        """All that were judged."""
        return self.accepted + self.refused

    @property
    def refused_share(self) -> float | None:
        """Between 0 and 1; None of nothing."""
        return self.refused / self.updates if self.updates else None

    @property
    def accepted_share(self) -> float | None:
        """Between 0 and 1; None of nothing."""
        return self.accepted / self.updates if self.updates else None


def judged_of(counts: Mapping[str, int], canaries: int = 0) -> Judged:
    """Of counts by outcome, among whose refusals are so many of canaries."""
    accepted = counts.get(ACCEPTED, 0)
    refused = sum(count for outcome, count in counts.items() if standing_of(outcome) is Standing.REFUSED)
    return Judged(accepted, refused - min(refused, max(0, canaries)))
