"""How far the evaluator is, and whether its newest versions have an evaluation: from records of evaluations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from schemas.metrics import PROBLEM, PROBLEM_ID, PROBLEMS

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Evaluated:
    """``version``: the newest that was published, -1 for none. ``without``: so many of the newest have no evaluation.

    ``problem`` and ``error_id`` say why the newest has none; "" where it has.
    """

    version: int = -1
    without: int = 0
    problem: str = ""
    error_id: str = ""

    def document(self, head: int) -> dict[str, Any]:
        """For JSON, beside the newest version ``head``."""
        return {
            "version": None if self.version < 0 else self.version,
            "behind": max(0, head - self.version),
            "without_evaluation": self.without,
            "problem": self.problem or None,
            "error_id": self.error_id or None,
        }


def evaluated_of(evaluations: Mapping[int, Mapping[str, Any]]) -> Evaluated:
    """Of records of evaluations by version, as many as are known."""
    version = max(evaluations, default=-1)
    if version < 0:
        return Evaluated()
    without = 0
    while problem_in(evaluations.get(version - without)):
        without += 1
    newest = evaluations[version]
    error_id = newest.get(PROBLEM_ID)
    return Evaluated(
        version, without, problem_in(newest), error_id if without and isinstance(error_id, str) else ""
    )


def problem_in(evaluation: Mapping[str, Any] | None) -> str:
    """Why a record says that its version has no evaluation; "" where it has one, or there is no record."""
    problem = None if evaluation is None else evaluation.get(PROBLEM)
    return problem if isinstance(problem, str) and problem in PROBLEMS else ""
