"""The page of refusals: counts by reason, then records, from what was followed, reading nothing."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from aggregation.errors import UsageProblem
from aggregation.fold.events import Verdict
from aggregation.fold.rejections import ACCEPTED, RejectionReason
from fluvial.console.limits import ROWS_MAX
from fluvial.console.queries import Query, cursor, number, text_of
from fluvial.reading.explanations import explain
from fluvial.reading.verdicts import verdict_document

if TYPE_CHECKING:
    from aggregation.server.aggregates import Slot
    from fluvial.console.paging import Page
    from fluvial.console.recent import Placed


def refused_page(page: Page, query: Query) -> dict[str, Any]:
    """Counts of all reasons in ``region`` (or everywhere), and the newest records of ``reason`` below ``before``."""
    region, reason = text_of(query, "region"), text_of(query, "reason")
    limit = number(query, "limit", ROWS_MAX, low=1, high=ROWS_MAX) or ROWS_MAX
    at = cursor(query, "before", 2)
    if region is not None:
        require_region(page, region)
    recent = page.recent
    with recent.lock:
        counts: Counter[str] = Counter()
        for (name, outcome), count in recent.outcomes.items():
            if outcome != ACCEPTED and region in {None, name}:
                counts[outcome] += count
        found = [
            one
            for one in recent.refusals
            if region in {None, one.slot[0]} and reason in {None, one.verdict.outcome}
        ]
        since_ms = recent.since_ms
        canaries = sum(count for name, count in recent.canaries.items() if region in {None, name})
    found.sort(key=_place, reverse=True)  # a tail comes partition by partition
    rest = [one for one in found if at is None or _place(one) < at]
    shown = rest[:limit]
    return {
        "reasons": [
            {"reason": outcome, "count": count, **explanation(outcome)}
            for outcome, count in counts.most_common()
        ],
        "since_ms": since_ms,
        "canaries": canaries,
        "records": [record_document(page, one.slot, one.verdict, one.timestamp_ms) for one in shown],
        "shown": len(shown),
        "of": len(found),
        "next": "{}.{}".format(*_place(shown[-1])) if shown and len(rest) > limit else None,
    }


def _place(one: Placed) -> tuple[int, int]:
    return one.timestamp_ms, one.number


def explanation(outcome: str, detail: str = "") -> dict[str, Any]:
    """What a reason means, and what to do: of one record, with its ``detail``, about its own cause."""
    found = explain(outcome, detail)
    return {
        "explanation": found.sentence,
        "error_id": found.error_id or None,
        "hint": found.hint or None,
    }


def require_region(page: Page, region: str) -> None:
    """UsageProblem FLV-6204 where the task has no such region."""
    if region not in page.genesis.partitions:
        raise UsageProblem(
            "FLV-6204",
            f"task {page.task} has no region {region[:80]!r}",
            hint=f"its regions are {', '.join(page.genesis.partitions)}",
        )


SCORED: Final = frozenset({ACCEPTED, RejectionReason.ANOMALOUS.outcome})
"""Outcomes of updates that got as far as their anomaly scores."""
MEASURED: Final = SCORED | {RejectionReason.NORM_EXCEEDED.outcome}
"""Outcomes of updates that got as far as their norm; in all other verdicts 0 means that nobody measured it."""


def record_document(page: Page, slot: Slot, verdict: Verdict, timestamp_ms: int | None) -> dict[str, Any]:
    """A Record of the API. What it adds to a verdict is when it was judged, and the command that shows it whole.

    What was never measured is None: a verdict has 0 there.
    """
    measured = verdict.norm > 0 or verdict.outcome in MEASURED
    scored = verdict.outcome in SCORED
    document = verdict_document(slot, verdict)
    return document | {
        "norm": document["norm"] if measured else None,
        # Exactly 0 is what stands there as long as there are too few peers, or no last step, to compare with.
        "norm_deviations": (document["norm_deviations"] or None) if scored else None,
        "cosine": (document["cosine"] or None) if scored else None,
        "timestamp_ms": timestamp_ms,
        "command": inspect_command(page, slot, verdict.offset),
    }


def inspect_command(page: Page, slot: Slot, offset: int) -> str:
    """What shows one record whole on the command line."""
    return page.say(f"inspect {slot[0]} {slot[1]} {offset}")
