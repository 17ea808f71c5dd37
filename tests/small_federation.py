"""A whole federation in one process, on any log and any store, without Faust: every call is one visible step.

Devices and what tests spoil come from ``tests.factories``. What workers and the merger do is done by themselves
(``fluvial.session.in_process``): nothing here folds, merges or makes a manifest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from confluent_kafka import Producer
from cryptography.hazmat.primitives.serialization import Encoding

from aggregation.defences import defence_named
from aggregation.fold.events import Effect, Event, Parked
from aggregation.fold.state import PartitionState
from aggregation.fold.transition import fold_into
from aggregation.layout import Layout
from aggregation.optimizers import initial_state
from aggregation.policy import Policy
from aggregation.server.aggregates import Slot
from backends.kafka.reading import LogReader
from backends.kafka.writing import LogWriter
from backends.log import LogRecord, RecordWriter, TopicReader
from backends.memory.clock import ManualClock
from backends.memory.log import MemoryLog, MemoryReader, MemoryWriter
from backends.memory.store import MemoryStore
from backends.object_store import ObjectStore
from backends.settings import Settings, StoreSettings
from backends.store.factory import open_object_store
from backends.store.task_store import TaskStore
from backends.tasks import TaskFile, write_task_file
from fluvial.proof.audit.sources import Sources
from fluvial.session.in_process import InProcessFederation
from schemas.checkpoints import encode_model, encode_optimizer
from schemas.envelope import KeyPair, Signer
from schemas.manifests import BEFORE_V5, NEWEST_GENESIS, Genesis, Manifest, Region
from schemas.objects import sha256_hex
from schemas.topics import Topic, aggregates_topic, metrics_topic, models_topic, topics_of, updates_topic
from stream_apps.worker import folding
from tests import factories
from tests.waiting import WAIT_S

PARTITIONS = {"eu": 2, "us": 1}
IN_MEMORY: Final = Settings(
    home=Path("/nowhere"),
    bootstrap_servers="memory",
    store=StoreSettings(kind="file", path=Path("/nowhere")),
)
"""No broker and no folder: for tests of what takes a reader and a store. Commands open their own."""


@dataclass
class SmallFederation:
    """One task on ``settings``. ``create`` it, then ``send``, ``fold`` and ``merge`` as often as wanted."""

    settings: Settings = IN_MEMORY
    task: str = factories.TASK
    partitions: Mapping[str, int] = field(default_factory=lambda: dict(PARTITIONS))
    policy: Policy = field(
        default_factory=lambda: factories.policy(window={"updates_max": 4}, server={"momentum": 0.5})
    )
    layout: Layout = field(
        default_factory=lambda: Layout.of([("hidden.weight", (3, 5)), ("out.weight", (7,))])
    )
    document_format: str = NEWEST_GENESIS
    nonce: str = factories.NONCE

    def __post_init__(self) -> None:
        self.clock = ManualClock(factories.NOW_MS / 1000)
        store: ObjectStore
        self.writer: RecordWriter
        self.open_reader: Callable[[str], TopicReader]
        topics = self.topics
        if self.settings is IN_MEMORY:
            log = MemoryLog({topic.name: topic.partitions for topic in topics}, self.clock)
            store, self.writer = MemoryStore(), MemoryWriter(log)
            self.open_reader = lambda _purpose: MemoryReader(log)
        else:
            store = open_object_store(self.settings.store)
            self.writer = writer = LogWriter(self.settings, f"small-federation-{self.task}")
            self.open_reader = lambda purpose: LogReader(self.settings, f"small-federation-{purpose}")
            for topic in topics:
                # The test cluster makes what it is asked for.
                writer._producer.list_topics(topic.name, timeout=WAIT_S)
        self.objects = TaskStore(store, self.task)
        self.manifests: list[Manifest] = []
        self.parked: dict[tuple[Slot, int], Parked] = {}
        """Records at which the workers' fold raises, until they find the operator's Skip that stands behind."""
        self._create()
        self._running = InProcessFederation(
            self.genesis,
            self.objects,
            writer=self.writer,
            open_reader=self.open_reader,
            workers={region: factories.worker_signer("w-1", region) for region in self.partitions},
            merger=factories.merger_signer(),
            clock=self.clock,
        )
        # The merger is not resumed: it was there before the task, so it has no version 0 to tell of again.
        asyncio.run(self._running.resume_workers())

    def _create(self) -> None:
        rng = np.random.default_rng(7)
        model = rng.normal(0.0, 1.0, self.layout.parameters).astype(np.float32)
        model[self.layout.trainable.parameters :] = 1.0
        model[self.layout.model_parameters :] = 0.0
        model_bytes = encode_model(model, self.layout)
        optimizer_bytes = encode_optimizer(
            initial_state(self.policy.server, self.layout.trainable.parameters)
        )
        pem = {
            r: factories.authority(r).public_bytes(Encoding.PEM).decode()
            for r in (*self.partitions, "control")
        }
        self.genesis = Genesis(
            task=self.task,
            regions={name: Region(count, pem[name]) for name, count in self.partitions.items()},
            control_authority=pem["control"],
            layout=factories.entries(self.layout),
            policy=msgspec.json.decode(self.policy.canonical()),
            model_sha256=sha256_hex(model_bytes),
            optimizer_sha256=sha256_hex(optimizer_bytes),
            nonce=None if self.document_format in BEFORE_V5 else self.nonce,
            format=self.document_format,
        )
        self.objects.put_object(self.policy.canonical())
        self.objects.write_checkpoint(0, model_bytes, optimizer_bytes)
        assert self.objects.commit(0, self.genesis.canonical())
        self.trust = self.genesis.trust
        self.models = [self.genesis.model_sha256]
        self.announce(0)

    @property
    def topics(self) -> tuple[Topic, ...]:
        """Its topics; one of guides, too, where its policy is guided."""
        guided = defence_named(self.policy.defence.kind).guided
        return topics_of(self.task, self.partitions, guided=guided)

    def signer(self, key_pair: KeyPair) -> Signer:
        """Who signs for this task with these keys."""
        return key_pair.of_task(self.genesis.domain)

    @property
    def task_file(self) -> TaskFile:
        """What this machine would know of the task."""
        sha256 = sha256_hex(self.genesis.canonical())
        return TaskFile(
            task=self.task, genesis_sha256=sha256, reference="digits", regions=tuple(sorted(self.partitions))
        )

    def write_task_file(self) -> None:
        """As ``fluvial task create`` would."""
        write_task_file(self.settings.home, self.task_file)

    @property
    def sources(self) -> Callable[[], Sources]:
        """Where an audit in this process may read."""
        return lambda: Sources(self.open_reader, self.objects.store)

    def spoiled(
        self, value_of: Callable[[LogRecord], bytes | None], *, without: Collection[str] = ()
    ) -> Callable[[], Sources]:
        """A copy in memory that nobody would write so.

        ``value_of`` gives each record's value, None to leave it out; the objects ``without`` are gone.
        """
        topics = self.topics
        log, store = MemoryLog({topic.name: topic.partitions for topic in topics}, self.clock), MemoryStore()
        for topic in topics:
            for partition in range(topic.partitions):
                for record in self.records(topic.name, partition):
                    value = value_of(record)
                    if value is not None:
                        log.append(record.topic, partition, record.key, value, record.headers)
        for key in set(self.objects.store.list(f"{self.task}/")) - set(without):
            store.put(key, self.objects.store.get(key))
        return lambda: Sources(lambda _purpose: MemoryReader(log), store)

    @property
    def states(self) -> dict[Slot, PartitionState]:
        """What every worker's partition has come to."""
        workers = self._running.workers
        return {(region, p): workers[region].partitions[p].state for region, p in self.genesis.slots}

    @property
    def away(self) -> set[str]:
        """Regions whose worker is away; tests put some in."""
        return self._running.away

    @property
    def version(self) -> int:
        """The head."""
        return len(self.manifests)

    def append(self, region: str, partition: int, value: bytes | None) -> int:
        """Append any bytes to an updates topic; returns the offset."""
        return self.writer.append_now(updates_topic(self.task, region), value, partition=partition).offset  # type: ignore[arg-type]

    def send(self, per_partition: int = 3, *, seed: int | None = None) -> None:
        """Good updates of other devices in every partition, on the head version."""
        seed = self.version * 100 if seed is None else seed
        for region, count in self.partitions.items():
            for p in range(count):
                for device in factories.devices(per_partition, partition=p, partitions=count):
                    seed += 1  # another delta each: equal sums would share an object
                    self.append(region, p, self.update(region, device, seed=seed))

    def update(self, region: str, device: str, *, seed: int = 0, **changed: Any) -> bytes:
        """A signed update on the head version."""
        base = changed.pop("base", self.version)
        return factories.update_bytes(
            device,
            by=self.signer(changed.pop("by", factories.device_signer(device, region))),
            seed=seed,
            base=base,
            base_sha256=changed.pop("base_sha256", self.models[base]),
            region=region,
            task=self.task,
            layout=self.layout,
            **changed,
        )

    def fold(self) -> None:
        """Every worker's work: fold what is new in the logs, publish verdicts, objects, aggregates."""
        with defect(self.parked):
            asyncio.run(self._running.fold())

    def publish_payload(self, region: str, partition: int, payload: bytes) -> None:
        """An aggregate record with this payload, signed by a worker of the region."""
        value = self.signer(factories.worker_signer("w-1", region)).sign_payload("RegionalAggregate", payload)
        self.writer.append_now(aggregates_topic(self.task, region), value, partition=partition)

    def merge(self) -> Manifest:
        """The merger's work at its deadline: all windows that wait become a version, told to everybody."""

        async def run() -> bool:
            await self._running.take()
            self.clock.sleep(self.policy.buffer.seconds_max)
            return await self._running.merge_if_due()

        assert asyncio.run(run()), "no update waits"
        manifest = self.objects.manifest(self._running.merger.head.number)
        self.manifests.append(manifest)
        self.models.append(manifest.model_sha256)
        return manifest

    def tell(self, **changed: Any) -> None:
        """Barriers and announcements of the head once more; ``changed`` spoils a barrier's field."""
        manifest = self.manifests[-1]
        for region, count in self.partitions.items():
            for p in range(count):
                fields = {
                    "task": self.task,
                    "region": region,
                    "manifest_sha256": sha256_hex(manifest.canonical()),
                    "model_sha256": manifest.model_sha256,
                    "reference_sha256": manifest.reference_sha256,
                }
                by = self.signer(factories.merger_signer())
                value = factories.barrier_bytes(manifest.version, self.policy, by=by, **(fields | changed))
                self.append(region, p, value)
        self.announce(manifest.version)

    def announce(self, version: int, **changed: Any) -> None:
        """Announcements of a version, one a region."""
        document = self.manifests[version - 1] if version else self.genesis
        for region in self.partitions:
            fields = {
                "task": self.task,
                "region": region,
                "version": version,
                "manifest_sha256": sha256_hex(document.canonical()),
                "model_sha256": document.model_sha256,
                "policy_sha256": self.policy.sha256,
            }
            value = self.signer(factories.merger_signer()).sign("ModelAnnouncement", fields | changed)
            self.writer.append_now(models_topic(self.task), value, partition=0)

    def evaluated(self, version: int, accuracy: float) -> None:
        """As an evaluator would."""
        record = {
            "kind": "evaluation",
            "task": self.task,
            "version": version,
            "accuracy": accuracy,
            "loss": 1.0 - accuracy,
        }
        self.writer.append_now(metrics_topic(self.task), msgspec.json.encode(record), partition=0)

    def rounds(self, versions: int, *, per_partition: int = 3) -> None:
        """That many versions, each of good updates from every partition; the last one's barriers close the windows."""
        for _ in range(versions):
            self.send(per_partition)
            self.close_windows()
            self.fold()
            self.merge()

    def close_windows(self) -> None:
        """Ticks of the workers, for every window that is not empty."""
        self.fold()
        self.clock.sleep(self.policy.window.seconds_max)
        asyncio.run(self._running.tick())

    def records(self, topic: str, partition: int) -> list[LogRecord]:
        """A partition of one of the task's topics, whole."""
        with self.open_reader("records") as reader:
            return list(reader.read(topic, partition, *reader.bounds(topic, partition)))


@contextmanager
def defect(parked: Container[tuple[Slot, int]]) -> Iterator[None]:
    """The workers' fold raises at every record of ``parked`` (slot, offset) that no Skip has parked."""

    def defective(state: PartitionState, offset: int, event: Event) -> tuple[Effect, ...]:
        if ((state.region, state.partition), offset) in parked and not isinstance(event, Parked):
            raise ZeroDivisionError("a defect")
        return fold_into(state, offset, event)

    name = "fold_into"  # where the worker's folding has it from
    setattr(folding, name, defective)
    try:
        yield
    finally:
        setattr(folding, name, fold_into)


@contextmanager
def on_mock_cluster(folder: Path) -> Iterator[Settings]:
    """Settings of librdkafka's own test cluster (real sockets, logs of a few MiB) and a file store, for one test."""
    cluster = Producer({"test.mock.num.brokers": 1, "log_level": 0})
    broker = next(iter(cluster.list_topics(timeout=60).brokers.values()))
    store = StoreSettings(kind="file", path=folder / "objects")
    yield Settings(home=folder, bootstrap_servers=f"{broker.host}:{broker.port}", store=store)
    cluster.flush(1)


def declare(settings: Settings, federation_task: str, partitions: Mapping[str, int]) -> None:
    """The task's topics, on a broker that does not make them by itself."""
    from backends.kafka.admin import declare_topics

    declare_topics(settings, topics_of(federation_task, partitions))


__all__ = ["IN_MEMORY", "PARTITIONS", "SmallFederation", "declare", "defect", "on_mock_cluster"]
