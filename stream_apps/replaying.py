"""Folding a partition's log again, outside its workers: the step that audit, lineage and merger share.

Nothing is taken from a worker: records come from the log, signatures are checked against the genesis' CAs, and the
objects that a barrier names are loaded by their hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import assert_never

from aggregation.errors import FluvialError, IntegrityProblem
from aggregation.fold.events import Barrier, Event, Parked, Verdict, WindowClosed
from aggregation.fold.state import PartitionState, initial
from aggregation.fold.transition import fold_into
from aggregation.server.aggregates import Aggregate, Slot
from backends.log import LogRecord
from backends.store.task_store import TaskStore
from schemas.certificates import Trust
from schemas.edges import partitions_of
from schemas.manifests import Genesis
from schemas.records import decode_record
from schemas.windows import EncodedWindow, direction_of_guide, encode_window, restore_state, state_names


@dataclass(frozen=True, slots=True)
class Replayed:
    """One record folded again: what it said, its verdict, and the window that it closed, if it did."""

    event: Event
    verdict: Verdict
    encoded: EncodedWindow | None


class FoldRaised(IntegrityProblem):
    """FLV-5014: folding the record at ``offset`` raised what no record should be able to cause, a defect."""

    def __init__(self, record: LogRecord, cause: Exception) -> None:
        super().__init__(
            "FLV-5014",
            f"folding offset {record.offset} raised {type(cause).__name__}: {cause}",
            where=f"{record.topic}[{record.partition}]@{record.offset}",
            hint="this is a defect of ours: please report it with this record; `fluvial park` parks it",
        )
        self.offset = record.offset


class PartitionReplay:
    """Folds one partition from ``state`` on. Records have to come in order, the first at ``state.next_offset``.

    ``parked`` says what to fold in the place of records that operators had skipped, by offset.
    """

    def __init__(
        self,
        state: PartitionState,
        trust: Trust,
        objects: TaskStore,
        parked: Mapping[int, Parked] = MappingProxyType({}),
    ) -> None:
        self.state = state
        self._trust = trust
        self._objects = objects
        self._parked = parked

    def step(self, record: LogRecord) -> Replayed:
        """Fold one record.

        Raises ``IntegrityProblem``: FLV-3001 (a gap), FLV-4001 or FLV-4103 (an object that a barrier names is missing
        or is not what its hash says), and ``FoldRaised`` (FLV-5014), which leaves the state half-changed: begin again.
        """
        try:
            return self._step(record)
        except (FluvialError, MemoryError):
            raise  # running out of memory says nothing of the record
        except Exception as error:  # whatever a defect is; it is named, and the record with it
            raise FoldRaised(record, error) from error

    def _step(self, record: LogRecord) -> Replayed:
        state = self.state
        event = self._parked.get(record.offset) or decode_record(
            record.value, record.timestamp_ms, self._trust, state.policy
        )
        loaded = self._loaded(event) if isinstance(event, Barrier) and state.applies(event) else event
        verdict: Verdict | None = None
        encoded: EncodedWindow | None = None
        for effect in fold_into(state, record.offset, loaded):
            match effect:
                case Verdict():
                    verdict = effect
                case WindowClosed():
                    encoded = encode_window(state, effect)
                case _:
                    assert_never(effect)
        if verdict is None:
            raise IntegrityProblem(
                "FLV-3001", f"offset {record.offset} came twice, expected {state.next_offset}"
            )
        return Replayed(event, verdict, encoded)

    def _loaded(self, barrier: Barrier) -> Barrier:
        state = self.state
        same = barrier.policy_sha256 == state.policy_sha256
        return replace(
            barrier,
            policy=state.policy if same else self._objects.policy(barrier.policy_sha256),
            reference=self._objects.reference(barrier.reference_sha256, state.layout),
            guide=self._objects.guide(barrier.guide_sha256, state.layout, self._trust),
        )


def start_of_log(genesis: Genesis, slot: Slot) -> PartitionState:
    """The state before offset 0 of a partition."""
    region, partition = slot
    return initial(
        task=genesis.task,
        region=region,
        partition=partition,
        partitions=partitions_of(genesis, region),
        layout=genesis.tensor_layout,
        policy=genesis.first_policy,
        model_sha256=genesis.model_sha256,
    )


def resume_after(objects: TaskStore, genesis: Genesis, aggregate: Aggregate) -> PartitionState:
    """The state right after the window of ``aggregate``, from the snapshot that it names, checked by its hash."""
    snapshot = objects.get_object(aggregate.state_sha256)
    policy_sha256, reference_sha256, guide_sha256 = state_names(snapshot)
    layout = genesis.tensor_layout
    first = genesis.first_policy
    return restore_state(
        snapshot,
        aggregate,
        partitions=partitions_of(genesis, aggregate.region),
        layout=layout,
        policy=first if policy_sha256 == first.sha256 else objects.policy(policy_sha256),
        reference=objects.reference(reference_sha256, layout),
        guide=direction_of_guide(objects.guide(guide_sha256, layout, genesis.trust))
        if guide_sha256
        else None,
    )
