"""The defences that there are, by name."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from aggregation.defences.guide import Guide
from aggregation.defences.median import Median
from aggregation.defences.peers import Peers
from aggregation.defences.undefended import Undefended
from aggregation.families import member_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aggregation.defences.shape import Defence

DEFENCES: Final[Mapping[str, Defence]] = MappingProxyType(
    {defence.name: defence for defence in (Median(), Undefended(), Peers(), Guide())}
)


def defence_named(name: str) -> Defence:
    """The defence of this name; ``UsageProblem`` (FLV-2006) where there is none."""
    return member_of(DEFENCES, name, called="defence")
