"""``cohorts``: of each cohort a share of its own, drawn as ``share`` does; certificates say who is of which."""

from __future__ import annotations

from typing import ClassVar

from aggregation.selection.shape import Candidate, Selection, SelectionParameters
from aggregation.selection.share import is_drawn


class Cohorts(Selection):
    """As ``share``, with the share of the device's cohort; of no cohort that the policy names, with ``share``.

    A share of 0 stays 0, however many turns pass.
    """

    name: ClassVar[str] = "cohorts"
    asks_cohort: ClassVar[bool] = True

    def selects(self, parameters: SelectionParameters, candidate: Candidate) -> bool:
        """See ``Selection``."""
        return is_drawn(_share_of(parameters, candidate.cohort), candidate)

    def selects_ever(self, parameters: SelectionParameters, cohort: str) -> bool:
        """See ``Selection``."""
        return _share_of(parameters, cohort) > 0.0


def _share_of(parameters: SelectionParameters, cohort: str) -> float:
    return parameters.cohorts.get(cohort, parameters.share)
