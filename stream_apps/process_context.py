"""The ways in and out that a worker's partitions, or a merger, are given: production's or the simulator's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from aggregation.layout import Layout
from aggregation.policy import Policy
from backends.clock import SYSTEM_CLOCK, Clock
from backends.kafka.reading import LogReader
from backends.kafka.writing import LogWriter
from backends.log import RecordReader, RecordWriter
from backends.object_store import StoreUnavailable
from backends.observer import UNOBSERVED, Observer
from backends.outages import retry_through_outage
from backends.settings import Settings
from backends.store.factory import open_object_store
from backends.store.task_store import TaskStore
from schemas.certificates import Trust
from schemas.envelope import KeyPair, Signer
from schemas.manifests import Genesis


@dataclass(frozen=True, slots=True)
class ProcessContext:
    """The task, and the ways in and out of one process. ``open_reader`` takes what the reader is for.

    ``genesis_sha256`` is 32 bytes.
    """

    genesis: Genesis
    genesis_sha256: bytes
    layout: Layout
    policy: Policy
    trust: Trust
    store: TaskStore
    writer: RecordWriter
    signer: Signer
    name: str
    open_reader: Callable[[str], RecordReader]
    clock: Clock = SYSTEM_CLOCK
    observer: Observer = UNOBSERVED

    @classmethod
    def of(
        cls,
        *,
        genesis: Genesis,
        store: TaskStore,
        writer: RecordWriter,
        key_pair: KeyPair,
        name: str,
        open_reader: Callable[[str], RecordReader],
        trust: Trust | None = None,
        clock: Clock = SYSTEM_CLOCK,
        observer: Observer = UNOBSERVED,
    ) -> ProcessContext:
        """What follows from the genesis document, beside what is given: also for which task this process signs."""
        return cls(
            genesis=genesis,
            genesis_sha256=hashlib.sha256(genesis.canonical()).digest(),
            layout=genesis.tensor_layout,
            policy=genesis.first_policy,
            trust=trust or genesis.trust,
            store=store,
            writer=writer,
            signer=key_pair.of_task(genesis.domain),
            name=name,
            open_reader=open_reader,
            clock=clock,
            observer=observer,
        )


def open_task(
    settings: Settings, task: str, genesis_sha256: str, observer: Observer = UNOBSERVED
) -> tuple[TaskStore, Genesis]:
    """A task's store and its genesis document, checked against its hash. Waits for the store if it is away."""
    store = TaskStore(open_object_store(settings.store, observer), task)
    genesis = retry_through_outage(
        "read the genesis document", lambda: store.genesis(genesis_sha256), (StoreUnavailable,)
    )
    return store, genesis


def open_process_context(
    settings: Settings,
    task: str,
    genesis_sha256: str,
    key_pair: KeyPair,
    name: str,
    *,
    observer: Observer = UNOBSERVED,
) -> ProcessContext:
    """The real outside of one process. Reads the genesis document, and waits for the store if it is away."""
    store, genesis = open_task(settings, task, genesis_sha256, observer)
    return ProcessContext.of(
        genesis=genesis,
        store=store,
        writer=LogWriter(settings, f"fluvial-{name}", give_up=False, observer=observer),
        key_pair=key_pair,
        name=name,
        open_reader=lambda purpose: LogReader(settings, f"fluvial-{name}-{purpose}"),
        observer=observer,
    )
