"""The selections that there are, by name."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from aggregation.families import member_of
from aggregation.selection.cohorts import Cohorts
from aggregation.selection.everybody import Everybody
from aggregation.selection.share import Share
from aggregation.selection.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aggregation.selection.shape import Candidate, Selection, SelectionParameters

SELECTIONS: Final[Mapping[str, Selection]] = MappingProxyType(
    {selection.name: selection for selection in (Everybody(), Share(), Slots(), Cohorts())}
)


def selection_named(name: str) -> Selection:
    """The selection of this name; ``UsageProblem`` (FLV-2006) where there is none."""
    return member_of(SELECTIONS, name, called="selection")


def is_selected(parameters: SelectionParameters, candidate: Candidate) -> bool:
    """Whether a device may answer a version under the selection that ``parameters`` name."""
    return selection_named(parameters.kind).selects(parameters, candidate)
