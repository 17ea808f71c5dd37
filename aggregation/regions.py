"""Names of regions, and of edges below them: ``eu.e1`` is an edge below ``eu``, ``eu.e1.hall`` one below that.

A region stands in the genesis document. An edge is none of those: it is a name below one, at a dot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Container

SEPARATOR: Final = "."
EDGE_PARTITIONS: Final = 1
"""An edge's log has one partition."""


def parent_of(edge: str) -> str:
    """What an edge publishes its windows to: its name before the last dot; "" where there is none."""
    return edge.rpartition(SEPARATOR)[0]


def root_of(name: str, regions: Container[str]) -> str:
    """The region of ``regions`` that a name is or is below, the longest such; "" where there is none."""
    while name and name not in regions:
        name = parent_of(name)
    return name


def is_edge(name: str, regions: Container[str]) -> bool:
    """Whether a name is that of an edge below one of ``regions``."""
    return name not in regions and root_of(name, regions) != ""


def is_within(name: str, ancestor: str) -> bool:
    """Whether a name is ``ancestor``, or is below it."""
    return name == ancestor or name.startswith(ancestor + SEPARATOR)
