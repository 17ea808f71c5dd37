"""A verdict in words that help: the error id of its page, and what its device can do about it."""

from __future__ import annotations

from aggregation.errors import Finding
from aggregation.fold.events import Verdict
from aggregation.fold.rejections import ACCEPTED, PARKED, PARKED_HINT_FOR_DEVICES, REJECTIONS


def accepted(verdict: Verdict) -> bool:
    """Whether the update counts."""
    return verdict.outcome == ACCEPTED


def hint_for(outcome: str) -> str:
    """What a device can do about an outcome; "" for one that asks nothing of it."""
    if outcome == PARKED:
        return PARKED_HINT_FOR_DEVICES
    rejection = REJECTIONS.get(outcome)
    return rejection.hint_for_devices if rejection else ""


def problem_of(verdict: Verdict, where: str) -> Finding | None:
    """A refused verdict as an error to show or raise; None when it was accepted. ``where`` names device and record."""
    rejection = REJECTIONS.get(verdict.outcome)
    if rejection is None:
        return None
    return Finding(
        rejection.error_id, f"update refused: {verdict.detail}", where=where, hint=rejection.hint_for_devices
    )
