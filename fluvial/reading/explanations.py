"""What a verdict means to a person: one sentence and the next step for every outcome."""

from __future__ import annotations

from dataclasses import dataclass

from aggregation.fold.rejections import ACCEPTED, CONTROL, PARKED, REJECTIONS


@dataclass(frozen=True, slots=True)
class Explanation:
    """``error_id``, ``hint`` and ``page`` are "" where the outcome is no rejection."""

    sentence: str
    error_id: str = ""
    hint: str = ""

    @property
    def page(self) -> str:
        """The documentation page of a rejection."""
        return f"docs/errors/{self.error_id}.md" if self.error_id else ""


def explain(outcome: str | None) -> Explanation:
    """The explanation of an outcome; None means that there is no verdict yet."""
    match outcome:
        case None:
            return Explanation("no worker has folded this offset yet (see the lag in `fluvial status`)")
        case str() if outcome == ACCEPTED:
            return Explanation("it counts")
        case str() if outcome == CONTROL:
            return Explanation("a control record, obeyed from this offset on")
        case str() if outcome == PARKED:
            return Explanation(
                "an operator parked it, because it made the fold itself raise: nobody judged it"
            )
        case _:
            rejection = REJECTIONS.get(outcome)
            if rejection is None:
                return Explanation(f"an outcome that this version of Fluvial does not know: {outcome}")
            return Explanation(
                "refused: it changes nothing but the counts", rejection.error_id, rejection.hint_for_operators
            )
