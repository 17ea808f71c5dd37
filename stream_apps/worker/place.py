"""Which partition a worker's parts work on, and what all of them need for it: topics, readers, log fields, retries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aggregation.fold.state import PartitionState
from aggregation.server.aggregates import Slot
from backends.log import RecordReader
from backends.outages import OUTAGES, Outage, Result, retry_through_outage_async
from schemas.topics import aggregates_topic, updates_topic, verdicts_topic
from schemas.vouching import HeadPlace
from stream_apps.process_context import ProcessContext


@dataclass(frozen=True, slots=True)
class PartitionPlace:
    """One partition of one region, as one process reaches it."""

    context: ProcessContext
    region: str
    partition: int

    @property
    def task(self) -> str:
        """The task's name."""
        return self.context.genesis.task

    @property
    def slot(self) -> Slot:
        """(region, partition)."""
        return (self.region, self.partition)

    @property
    def head(self) -> HeadPlace:
        """Of which log the heads among its verdicts speak."""
        return HeadPlace(self.context.genesis_sha256, self.slot)

    @property
    def updates(self) -> str:
        """The topic that is folded."""
        return updates_topic(self.task, self.region)

    @property
    def verdicts(self) -> str:
        """The topic of what became of each offset."""
        return verdicts_topic(self.task, self.region)

    @property
    def aggregates(self) -> str:
        """The topic of closed windows."""
        return aggregates_topic(self.task, self.region)

    def open_reader(self, purpose: str) -> RecordReader:
        """A reader of its own, named by what it is for."""
        return self.context.open_reader(f"{purpose}-{self.region}-{self.partition}")

    async def retry(
        self, what: str, action: Callable[[], Result], while_raising: tuple[Outage, ...] = OUTAGES
    ) -> Result:
        """A blocking ``action`` on a thread, again and again while it raises one of these."""
        return await retry_through_outage_async(what, action, while_raising, self.context.clock)

    def fields(self, offset: int, state: PartitionState) -> dict[str, object]:
        """The fields of a log line."""
        here: dict[str, object] = {"region": self.region, "partition": self.partition, "offset": offset}
        return here | {"version": state.version, "sequence": state.sequence}

    def __str__(self) -> str:
        return f"{self.updates}[{self.partition}]"
