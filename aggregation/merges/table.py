"""The merges that there are, by name."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from aggregation.families import member_of
from aggregation.merges.geometric_median import GeometricMedian
from aggregation.merges.krum import Krum
from aggregation.merges.mean import Mean
from aggregation.merges.mixing import Mixing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aggregation.merges.shape import Merge

MERGES: Final[Mapping[str, Merge]] = MappingProxyType(
    {merge.name: merge for merge in (Mean(), GeometricMedian(), Krum(), Mixing())}
)


def merge_named(name: str) -> Merge:
    """The merge of this name; ``UsageProblem`` (FLV-2006) where there is none."""
    return member_of(MERGES, name, called="merge")
