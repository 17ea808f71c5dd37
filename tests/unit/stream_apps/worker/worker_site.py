"""One partition of a worker, in memory: a broker that answers when it is told to, a real store, a clock that is set."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding

from aggregation.errors import ConnectionProblem, FluvialError
from aggregation.server.aggregates import Aggregate
from backends.log import Headers, LogRecord, Outgoing, Position, Together, append_each
from backends.settings import StoreSettings
from backends.store.factory import open_object_store
from backends.store.task_store import TaskStore
from schemas.documents import genesis_v4
from schemas.manifests import Genesis, Region, TensorEntry
from schemas.records import aggregate_in, decode_record
from schemas.topics import aggregates_topic, updates_topic, verdicts_topic
from stream_apps.process_context import ProcessContext
from stream_apps.worker.partition import PartitionWorker
from stream_apps.worker.place import PartitionPlace
from tests import factories

if TYPE_CHECKING:
    from pathlib import Path

    from aggregation.fold.events import Event
    from aggregation.policy import Policy
    from backends.object_store import ObjectStore

TASK, REGION = factories.TASK, factories.REGION
UPDATES, VERDICTS = updates_topic(TASK, REGION), verdicts_topic(TASK, REGION)
AGGREGATES = aggregates_topic(TASK, REGION)
RULES = factories.policy(window={"updates_max": 3, "seconds_max": 2.0}, anomaly={"enabled": False})


class HandClock:
    """``Clock`` whose time is what a test says; sleeping is over at once."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def time(self) -> float:
        return factories.NOW_MS / 1000 + self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@dataclass
class Broker:
    """``RecordWriter`` and ``RecordReader`` of partition 0 of every topic.

    What is appended waits in ``pending`` for ``flush``, which answers it: with the next error of ``refusing`` for its
    topic, if there is one; those of ``refusing_at_once`` come from appending itself. ``happened`` tells appends and
    answers in their order.
    """

    records: dict[str, list[LogRecord]] = field(default_factory=lambda: defaultdict(list))
    pending: list[tuple[str, bytes, bytes | None, Headers, Future[Position]]] = field(default_factory=list)
    refusing: dict[str, list[FluvialError]] = field(default_factory=lambda: defaultdict(list))
    refusing_at_once: dict[str, list[FluvialError]] = field(default_factory=lambda: defaultdict(list))
    happened: list[str] = field(default_factory=list)
    before_flush: Callable[[], None] = lambda: None
    flushes: int = 0

    def put(self, topic: str, value: bytes | None, timestamp_ms: int = factories.NOW_MS) -> LogRecord:
        """Somebody's record at the end of a topic."""
        record = LogRecord(topic, 0, len(self.records[topic]), timestamp_ms, None, value)
        self.records[topic].append(record)
        return record

    def append(
        self,
        topic: str,
        value: bytes,
        *,
        key: bytes | None = None,
        partition: int = -1,
        headers: Headers = (),
    ) -> Future[Position]:
        if self.refusing_at_once[topic]:
            raise self.refusing_at_once[topic].pop(0)
        future: Future[Position] = Future()
        self.pending.append((topic, value, key, headers, future))
        return future

    def append_together(self, topic: str, records: Sequence[Outgoing], *, partition: int) -> Together:
        return append_each(self, topic, records, partition=partition)

    def append_now(self, topic: str, value: bytes, **more: Any) -> Position:
        future = self.append(topic, value, **more)
        self.flush()
        return future.result(timeout=0)

    def poll(self) -> None:
        """Answers come by ``flush`` alone."""

    def flush(self, timeout_s: float = 60.0) -> None:
        self.before_flush()
        self.flushes += 1
        pending, self.pending = self.pending, []
        for topic, value, key, headers, future in pending:
            kind = topic.split(".")[2]
            if self.refusing[topic]:
                self.happened.append(f"{kind} refused")
                future.set_exception(self.refusing[topic].pop(0))
                continue
            self.happened.append(kind)
            at = len(self.records[topic])
            self.records[topic].append(LogRecord(topic, 0, at, factories.NOW_MS, key, value, headers))
            future.set_result(Position(topic, 0, at))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        return 0, len(self.records[topic])

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[LogRecord]:
        self.happened.append(f"read {topic.split('.')[2]} from {start}")
        yield from self.records[topic][start:end]

    def last(self, topic: str, partition: int) -> LogRecord | None:
        return self.records[topic][-1] if self.records[topic] else None


class NotedStore:
    """``ObjectStore`` that tells of its puts and gets, in the broker's order of things."""

    def __init__(self, store: ObjectStore, happened: list[str]) -> None:
        self._store = store
        self._happened = happened

    def put(self, key: str, data: bytes) -> None:
        self._happened.append("object")
        self._store.put(key, data)

    def get(self, key: str, *, bytes_max: int | None = None) -> bytes:
        self._happened.append("get")
        return self._store.get(key, bytes_max=bytes_max)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def genesis_of(rules: Policy) -> Genesis:
    """A task of one region with one partition."""
    pem = {
        name: factories.authority(name).public_bytes(Encoding.PEM).decode()
        for name in (REGION, factories.CONTROL)
    }
    return Genesis(
        task=TASK,
        regions={REGION: Region(1, pem[REGION])},
        control_authority=pem[factories.CONTROL],
        layout=tuple(TensorEntry(spec.name, spec.shape) for spec in factories.LAYOUT.tensors),
        policy=msgspec.json.decode(rules.canonical()),
        model_sha256=factories.model_sha(0),
        optimizer_sha256=factories.sha("optimizer"),
        format=genesis_v4.FORMAT,
    )


class WorkerSite:
    """A partition's place, and what lies around it."""

    def __init__(self, folder: Path, rules: Policy = RULES, *, broker: Broker | None = None) -> None:
        self.broker = broker or Broker()
        self.clock = HandClock()
        self.rules = rules
        objects: Any = NotedStore(
            open_object_store(StoreSettings(kind="file", path=folder)), self.broker.happened
        )
        self.store = TaskStore(objects, TASK)
        self.context = ProcessContext.of(
            genesis=genesis_of(rules),
            store=self.store,
            writer=self.broker,
            key_pair=factories.worker_signer(),
            name="w-1",
            open_reader=lambda _purpose: self.broker,
            clock=self.clock,
        )
        self.place = PartitionPlace(self.context, REGION, 0)

    def worker(self) -> PartitionWorker:
        """Another worker of the same partition."""
        return PartitionWorker(self.context, REGION, 0)

    def update(self, number: int) -> LogRecord:
        """An honest update of one more device stands in the log."""
        return self.broker.put(UPDATES, factories.update_bytes(f"d-{number:04d}", seed=number))

    def junk(self) -> LogRecord:
        """A record that is refused stands in the log."""
        return self.broker.put(UPDATES, b"junk")

    def written(self, topic: str) -> list[bytes]:
        """The values that stand in a topic."""
        return [record.value or b"" for record in self.broker.records[topic]]

    def event(self, record: LogRecord) -> Event:
        """What a record says."""
        return decode_record(record.value, record.timestamp_ms, self.context.trust, self.rules)

    def newest(self) -> Aggregate:
        """The window that was published last."""
        record = self.broker.records[AGGREGATES][-1]
        read = aggregate_in(record.value, record.timestamp_ms, self.context.trust, TASK, (REGION, 0))
        assert isinstance(read, Aggregate)
        return read


def away() -> ConnectionProblem:
    """What a broker says of a record that it did not take."""
    return ConnectionProblem("FLV-3100", "the broker refused the record")


async def process(one: PartitionWorker, what: list[LogRecord]) -> None:
    """Give a worker records one after another, as Faust does."""
    for record in what:
        await one.process(record)
