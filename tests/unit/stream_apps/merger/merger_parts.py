"""A small task over a log in memory and a file store: what the tests of the merger's parts are made of."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Self

import msgspec
import numpy as np
from cryptography.hazmat.primitives.serialization import Encoding

from aggregation.errors import ConnectionProblem
from aggregation.fold.state import NO_SHA256
from aggregation.optimizers import initial_state
from aggregation.server.merge import Checkpoint
from backends.log import Headers, LogRecord, Outgoing, Position, Together, append_each
from backends.observer import UNOBSERVED, Observer
from backends.store.file import FileStore
from backends.store.task_store import TaskStore
from schemas import avro
from schemas.checkpoints import encode_model, encode_optimizer, encode_sums
from schemas.manifests import Genesis, Region, TensorEntry
from schemas.objects import sha256_hex
from schemas.topics import aggregates_topic, updates_topic
from schemas.windows import aggregate_of
from stream_apps.process_context import ProcessContext
from tests import factories

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from aggregation.policy import Policy
    from aggregation.server.aggregates import Aggregate, Slot
    from backends.object_store import ObjectStore

TASK = factories.TASK
PARTITIONS = {"eu": 2, "us": 1}
LAYOUT = factories.LAYOUT
POLICY = factories.policy(buffer={"updates": 6, "seconds_max": 60.0})


class Logs:
    """Topics in memory: a reader and a writer. What is appended stands there, and is acknowledged by a flush.

    ``refused`` says which topics the broker takes no record of; ``steps`` has every append and flush in order.
    """

    def __init__(self, *, refused: str = "") -> None:
        self.records: dict[tuple[str, int], list[LogRecord]] = {}
        self.steps: list[str] = []
        self.waiting: list[tuple[Future[Position], Position]] = []
        self.refused = refused
        self.reached: dict[tuple[str, int], int] = {}
        """How long a log is at least, by (topic, partition): windows are published of records that nobody reads."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def append(
        self,
        topic: str,
        value: bytes,
        *,
        key: bytes | None = None,
        partition: int = -1,
        headers: Headers = (),
    ) -> Future[Position]:
        place = self.records.setdefault((topic, partition), [])
        future: Future[Position] = Future()
        self.waiting.append((future, Position(topic, partition, len(place))))
        place.append(LogRecord(topic, partition, len(place), factories.NOW_MS, key, value, headers))
        self.steps.append(f"{topic}[{partition}]")
        return future

    def append_together(self, topic: str, records: Sequence[Outgoing], *, partition: int) -> Together:
        return append_each(self, topic, records, partition=partition)

    def append_now(self, topic: str, value: bytes, **options: Any) -> Position:
        future = self.append(topic, value, **options)
        self.flush()
        return future.result(timeout=0)

    def poll(self) -> None:
        return None

    def flush(self, timeout_s: float = 60.0) -> None:
        assert timeout_s > 0
        for future, position in self.waiting:
            if self.refused and position.topic.startswith(self.refused):
                future.set_exception(ConnectionProblem("FLV-3100", "the broker refused it"))
            else:
                future.set_result(position)
        self.waiting = []
        self.steps.append("flush")

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        return 0, max(len(self.records.get((topic, partition), ())), self.reached.get((topic, partition), 0))

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[LogRecord]:
        yield from self.records.get((topic, partition), [])[start:end]

    def last(self, topic: str, partition: int) -> LogRecord | None:
        found = self.records.get((topic, partition))
        return found[-1] if found else None


class ManualClock:
    """A clock that a test moves. To sleep is to be told that no test waits for an outage to end."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    def time(self) -> float:
        return factories.NOW_MS / 1000

    def sleep(self, seconds: float) -> None:
        raise AssertionError(f"it waits {seconds} s for an outage to end")


def small_task(
    folder: Path,
    *,
    logs: Logs | None = None,
    store: ObjectStore | None = None,
    policy: Policy = POLICY,
    observer: Observer = UNOBSERVED,
    clock: ManualClock | None = None,
) -> ProcessContext:
    """A merger's context on a task whose version 0 stands in the store."""
    objects = TaskStore(store or FileStore(folder), TASK)
    logs = logs or Logs()
    model = np.linspace(-1.0, 1.0, LAYOUT.parameters, dtype=np.float32)
    checkpoint = Checkpoint(model, initial_state(policy.server, LAYOUT.parameters))
    files = encode_model(model, LAYOUT), encode_optimizer(checkpoint.optimizer)
    pem = {
        name: factories.authority(name).public_bytes(Encoding.PEM).decode()
        for name in (*PARTITIONS, factories.CONTROL)
    }
    genesis = Genesis(
        task=TASK,
        regions={name: Region(count, pem[name]) for name, count in PARTITIONS.items()},
        control_authority=pem[factories.CONTROL],
        layout=tuple(TensorEntry(spec.name, spec.shape) for spec in LAYOUT.tensors),
        policy=msgspec.json.decode(policy.canonical()),
        model_sha256=sha256_hex(files[0]),
        optimizer_sha256=sha256_hex(files[1]),
    )
    objects.put_object(policy.canonical())
    objects.write_checkpoint(0, *files)
    objects.commit(0, genesis.canonical())
    return ProcessContext.of(
        genesis=genesis,
        store=objects,
        writer=logs,
        key_pair=factories.merger_signer(),
        name="m-1",
        open_reader=lambda _purpose: logs,
        clock=clock or ManualClock(),
        observer=observer,
    )


def publish_window(
    context: ProcessContext, logs: Logs, slot: Slot, *, after: Aggregate | None = None, accepted: int = 3
) -> Aggregate:
    """One closed window of a partition, as a worker publishes it: sums stored, record appended."""
    sums = np.full(LAYOUT.parameters, 1000 * accepted, dtype=np.int64)
    record = {
        "task": TASK,
        "region": slot[0],
        "partition": slot[1],
        "sequence": after.sequence + 1 if after else 0,
        "first_offset": after.next_offset if after else 0,
        "next_offset": (after.next_offset if after else 0) + max(1, accepted),
        "version": 0,
        "policy_sha256": context.policy.sha256,
        "counts": {"accepted": accepted},
        "accepted": accepted,
        "weight_total": accepted << 16,
        "staleness_total": 0,
        "staleness_max": 0,
        "update_bytes": 500 * accepted,
        "sum_sha256": context.store.put_object(encode_sums(sums)) if accepted else "",
        "state_sha256": factories.sha("state"),
        "contributors_sha256": factories.sha("contributors"),
        "previous_sha256": after.sha256 if after else NO_SHA256,
    }
    payload = avro.encode("RegionalAggregate", record)
    value = factories.worker_signer("w-1", slot[0]).sign_payload("RegionalAggregate", payload)
    logs.append_now(aggregates_topic(TASK, slot[0]), value, partition=slot[1])
    one = aggregate_of(record, payload)
    logs.reached[updates_topic(TASK, slot[0]), slot[1]] = one.next_offset
    return one
