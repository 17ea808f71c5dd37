"""A defect of ours, on purpose: one record makes every worker's fold raise, until an operator parks it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aggregation.fold.events import Event, Parked
from aggregation.policy import Policy
from schemas.records import decode_record, skip_in
from schemas.topics import updates_topic
from stream_apps.worker import folding as worker
from tests import factories

if TYPE_CHECKING:
    import random

    from aggregation.server.aggregates import Slot
    from backends.log import LogRecord
    from schemas.certificates import Trust
    from schemas.manifests import Genesis
    from tests.simulation.memory_log import MemoryLog

NOTICED_AFTER_S = 3.0


class Defect:
    """``poisoned`` is the one value that raises; production's ``decode_record`` decides about all others."""

    def __init__(self, log: MemoryLog, genesis: Genesis, trust: Trust, rng: random.Random) -> None:
        self._log = log
        self._genesis = genesis
        self._trust = trust
        self._rng = rng
        self.poisoned: bytes | None = None

    def install(self) -> None:
        """From now on the workers of this process have the defect."""
        vars(worker)["decode_record"] = self._decode

    def remove(self) -> None:
        """The workers are as they were."""
        vars(worker)["decode_record"] = decode_record

    def _decode(self, value: bytes | None, timestamp_ms: int, trust: Trust, policy: Policy) -> Event:
        if value is not None and value == self.poisoned:
            raise ZeroDivisionError("a defect")
        return decode_record(value, timestamp_ms, trust, policy)

    def strike(self) -> None:
        """The record stands in a log, and from time to time an operator looks; whoever likes may copy it."""
        if self.poisoned is None:
            region, partition = self._rng.choice(self._genesis.slots)
            self.poisoned = self._rng.randbytes(24)
            self._log.append((updates_topic(self._genesis.task, region), partition), None, self.poisoned)
            self._log.loop.later(NOTICED_AFTER_S, self._look)

    def _look(self) -> None:
        """The operator: a Skip for every place where the record stands and none names it."""
        for slot in self._genesis.slots:
            for record in self._records(slot, 0):
                if record.value == self.poisoned and self._skipped(slot, record.offset) is None:
                    self._park(slot, record.offset)
        self._log.loop.later(NOTICED_AFTER_S, self._look)

    def _park(self, slot: Slot, offset: int) -> None:
        record = {
            "task": self._genesis.task,
            "region": slot[0],
            "partition": slot[1],
            "offset": offset,
            "reason": "it makes the fold raise",
        }
        place = (updates_topic(self._genesis.task, slot[0]), slot[1])
        self._log.append(
            place, None, factories.operator_signer().of_task(self._genesis.domain).sign("Skip", record)
        )

    def _records(self, slot: Slot, start: int) -> list[LogRecord]:
        return self._log.records[updates_topic(self._genesis.task, slot[0]), slot[1]][start:]

    def _skipped(self, slot: Slot, offset: int) -> Parked | None:
        for record in self._records(slot, offset + 1):
            skip = skip_in(record.value, record.timestamp_ms, self._trust)
            if skip is not None and (skip.region, skip.partition, skip.offset) == (*slot, offset):
                return Parked(record.offset, skip.reason)
        return None

    def event(self, slot: Slot, record: LogRecord) -> Event | None:
        """What a reader folds that has not the defect: ``Parked`` for the record that was parked, else None."""
        return self._skipped(slot, record.offset) if record.value == self.poisoned else None
