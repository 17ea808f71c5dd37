"""Where an edge stands: its own log, and the partition of the log above that hears it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aggregation.partitioning import partition_of
from aggregation.regions import is_edge, parent_of
from schemas.edges import partitions_of
from schemas.topics import edge_models_topic, models_topic, updates_topic

if TYPE_CHECKING:
    from schemas.manifests import Genesis


@dataclass(frozen=True, slots=True)
class EdgeStand:
    """An edge of a task: names of topics, and the partition above."""

    genesis: Genesis
    edge: str

    @property
    def parent(self) -> str:
        """The region or edge above."""
        return parent_of(self.edge)

    @property
    def updates(self) -> str:
        """The edge's own log."""
        return updates_topic(self.genesis.task, self.edge)

    @property
    def models(self) -> str:
        """Where the edge's devices hear of versions."""
        return edge_models_topic(self.genesis.task, self.edge)

    @property
    def parent_updates(self) -> str:
        """The log that hears the edge, and whose barriers are the edge's."""
        return updates_topic(self.genesis.task, self.parent)

    @property
    def parent_partition(self) -> int:
        """Its partition."""
        return partition_of(self.edge, partitions_of(self.genesis, self.parent))

    @property
    def parent_models(self) -> str:
        """Where versions are announced above."""
        task = self.genesis.task
        if is_edge(self.parent, self.genesis.regions):
            return edge_models_topic(task, self.parent)
        return models_topic(task)
