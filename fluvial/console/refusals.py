"""The page of refusals: counts by reason, then records, from what was followed, reading nothing."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from aggregation.errors import UsageProblem
from aggregation.fold.events import Verdict
from aggregation.fold.rejections import ACCEPTED
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
    found.sort(key=_place, reverse=True)  # a tail comes partition by partition
    rest = [one for one in found if at is None or _place(one) < at]
    shown = rest[:limit]
    return {
        "reasons": [
            {"reason": outcome, "count": count, **explanation(outcome)}
            for outcome, count in counts.most_common()
        ],
        "since_ms": since_ms,
        "records": [record_document(page, one.slot, one.verdict, one.timestamp_ms) for one in shown],
        "shown": len(shown),
        "of": len(found),
        "next": "{}.{}".format(*_place(shown[-1])) if shown and len(rest) > limit else None,
    }


def _place(one: Placed) -> tuple[int, int]:
    return one.timestamp_ms, one.number


def explanation(outcome: str) -> dict[str, Any]:
    """What a reason means, and what to do."""
    found = explain(outcome)
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


def record_document(page: Page, slot: Slot, verdict: Verdict, timestamp_ms: int | None) -> dict[str, Any]:
    """A Record of the API. What it adds to a verdict is when it was judged, and the command that shows it whole."""
    return verdict_document(slot, verdict) | {
        "timestamp_ms": timestamp_ms,
        "command": inspect_command(page, slot, verdict.offset),
    }


def inspect_command(page: Page, slot: Slot, offset: int) -> str:
    """What shows one record whole on the command line."""
    return page.say(f"inspect {slot[0]} {slot[1]} {offset}")
