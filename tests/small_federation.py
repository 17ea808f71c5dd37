"""A whole federation in one process: devices, workers and merger over any Kafka and any store, without Faust.

Written from the pure functions alone, so that what audits and operators' commands read does not come from the code
that they share with nobody. Windows close at every barrier; every call is one visible step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from confluent_kafka import Producer
from cryptography.hazmat.primitives.serialization import Encoding

from aggregation.fold.events import Barrier, Parked, Verdict
from aggregation.fold.state import PartitionState
from aggregation.fold.transition import fold_into
from aggregation.layout import Layout
from aggregation.optimizers import initial_state
from aggregation.policy import Policy
from aggregation.server.aggregates import Aggregate, Slot
from aggregation.server.merge import Checkpoint, add_sums, merge
from backends.kafka.reading import LogReader
from backends.kafka.writing import LogWriter
from backends.settings import Settings, StoreSettings
from backends.store.factory import open_object_store
from backends.store.task_store import TaskStore
from backends.tasks import TaskFile, write_task_file
from schemas.certificates import Trust
from schemas.checkpoints import decode_direction, encode_direction, encode_model, encode_optimizer
from schemas.manifests import Genesis, Manifest, Region, TensorEntry, input_of, next_cursors, sum_counts
from schemas.objects import sha256_hex
from schemas.records import decode_record
from schemas.topics import (
    aggregates_topic,
    metrics_topic,
    models_topic,
    topics_of,
    updates_topic,
    verdicts_topic,
)
from schemas.windows import EncodedWindow, encode_verdict, encode_window
from tests import factories

PARTITIONS = {"eu": 2, "us": 1}


@dataclass
class SmallFederation:
    """One task on ``settings``. ``create`` it, then ``send``, ``fold`` and ``merge`` as often as wanted."""

    settings: Settings
    task: str = factories.TASK
    partitions: Mapping[str, int] = field(default_factory=lambda: dict(PARTITIONS))
    policy: Policy = field(
        default_factory=lambda: factories.policy(window={"updates_max": 4}, server={"momentum": 0.5})
    )
    layout: Layout = field(
        default_factory=lambda: Layout.of([("hidden.weight", (3, 5)), ("out.weight", (7,))])
    )

    def __post_init__(self) -> None:
        self.objects = TaskStore(open_object_store(self.settings.store), self.task)
        self.writer = LogWriter(self.settings, f"small-federation-{self.task}")
        self.pending: list[Aggregate] = []
        self.manifests: list[Manifest] = []
        for topic in topics_of(self.task, self.partitions):
            self.writer._producer.list_topics(
                topic.name, timeout=10
            )  # the test cluster makes what it is asked for
        self._create()

    def _create(self) -> None:
        rng = np.random.default_rng(7)
        model = rng.normal(0.0, 1.0, self.layout.parameters).astype(np.float32)
        self.checkpoint = Checkpoint(model, initial_state(self.policy.server, self.layout.parameters))
        model_bytes, optimizer_bytes = (
            encode_model(model, self.layout),
            encode_optimizer(self.checkpoint.optimizer),
        )
        pem = {
            r: factories.authority(r).public_bytes(Encoding.PEM).decode()
            for r in (*self.partitions, "control")
        }
        self.genesis = Genesis(
            task=self.task,
            regions={name: Region(count, pem[name]) for name, count in self.partitions.items()},
            control_authority=pem["control"],
            layout=tuple(TensorEntry(spec.name, spec.shape) for spec in self.layout.tensors),
            policy=msgspec.json.decode(self.policy.canonical()),
            model_sha256=sha256_hex(model_bytes),
            optimizer_sha256=sha256_hex(optimizer_bytes),
        )
        self.objects.put_object(self.policy.canonical())
        self.objects.write_checkpoint(0, model_bytes, optimizer_bytes)
        assert self.objects.commit(0, self.genesis.canonical())
        self.trust = Trust.from_pem(self.genesis.authorities)
        self.models = [self.genesis.model_sha256]
        self.states: dict[Slot, PartitionState] = {
            (region, p): replace(
                factories.state_of(
                    self.policy, partition=p, partitions=self.partitions[region], layout=self.layout
                ),
                task=self.task,
                region=region,
                models={0: self.genesis.model_sha256},
            )
            for region, p in self.genesis.slots
        }
        self.parked: dict[tuple[Slot, int], Parked] = {}
        """What ``fold`` takes in the place of a record, as workers do where an operator's Skip parks it."""
        self.cursors: dict[Slot, int] = dict.fromkeys(self.genesis.slots, 0)
        self.announce(0)

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
            by=changed.pop("by", factories.device_signer(device, region)),
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
        with LogReader(self.settings, f"small-federation-fold-{self.task}") as reader:
            for (region, p), state in self.states.items():
                topic = updates_topic(self.task, region)
                end = reader.bounds(topic, p)[1]
                for record in reader.read(topic, p, state.next_offset, end):
                    event = self.parked.get(((region, p), record.offset)) or decode_record(
                        record.value,
                        record.timestamp_ms,
                        self.trust,
                        state.policy,
                    )
                    if isinstance(event, Barrier) and state.applies(event):
                        event = self._loaded(event)
                    for effect in fold_into(state, record.offset, event):
                        if isinstance(effect, Verdict):
                            self.writer.append(
                                verdicts_topic(self.task, region), encode_verdict(effect), partition=p
                            )
                        else:
                            self.publish(encode_window(state, effect))
        self.writer.flush()

    def _loaded(self, barrier: Barrier) -> Barrier:
        reference = decode_direction(self.objects.get_object(barrier.reference_sha256), self.layout)
        return replace(barrier, policy=self.objects.policy(barrier.policy_sha256), reference=reference)

    def publish(self, encoded: EncodedWindow) -> None:
        """A window's objects and record."""
        for data in encoded.objects.values():
            self.objects.put_object(data)
        self.publish_payload(encoded.aggregate.region, encoded.aggregate.partition, encoded.payload)
        self.pending.append(encoded.aggregate)

    def publish_payload(self, region: str, partition: int, payload: bytes) -> None:
        """An aggregate record with this payload, signed by a worker of the region."""
        value = factories.worker_signer("w-1", region).sign_payload("RegionalAggregate", payload)
        self.writer.append_now(aggregates_topic(self.task, region), value, partition=partition)

    def merge(self) -> Manifest:
        """The merger's work: all pending windows become a version, told to everybody."""
        chosen = tuple(self.pending)
        self.pending = []
        accepted = sum(one.accepted for one in chosen)
        weight_total = sum(one.weight_total for one in chosen)
        total = add_sums(
            (self.objects.sums(one.sum_sha256, self.layout) for one in chosen if one.sum_sha256),
            self.layout.parameters,
        )
        step = merge(
            self.checkpoint,
            total,
            updates=accepted,
            weight_total=weight_total,
            policy=self.policy,
            layout=self.layout,
        )
        model, optimizer = (
            encode_model(step.checkpoint.model, self.layout),
            encode_optimizer(step.checkpoint.optimizer),
        )
        parent = self.manifests[-1] if self.manifests else self.genesis
        manifest = Manifest(
            task=self.task,
            version=self.version + 1,
            parent_sha256=sha256_hex(parent.canonical()),
            policy_sha256=self.policy.sha256,
            inputs=tuple(input_of(one) for one in chosen),
            cursors=next_cursors(self.cursors, chosen),
            counts=sum_counts(chosen),
            accepted=accepted,
            weight_total=weight_total,
            staleness_total=sum(one.staleness_total for one in chosen),
            staleness_max=max(one.staleness_max for one in chosen),
            update_bytes=sum(one.update_bytes for one in chosen),
            model_sha256=sha256_hex(model),
            optimizer_sha256=sha256_hex(optimizer),
            reference_sha256=self.objects.put_object(encode_direction(step.reference)),
            floor=0,
        )
        assert self.objects.commit(manifest.version, manifest.canonical())
        self.objects.write_checkpoint(manifest.version, model, optimizer)
        self.objects.put_facts(
            manifest.version, {"created_at_ms": 1_790_000_000_000 + manifest.version * 1000, "merger": "m-1"}
        )
        self.checkpoint, self.cursors = step.checkpoint, manifest.slot_cursors
        self.manifests.append(manifest)
        self.models.append(manifest.model_sha256)
        self.tell()
        return manifest

    def tell(self, **changed: Any) -> None:
        """Barriers and announcements of the head; ``changed`` spoils a barrier's field."""
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
                self.append(
                    region, p, factories.barrier_bytes(manifest.version, self.policy, **(fields | changed))
                )
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
            value = factories.merger_signer().sign("ModelAnnouncement", fields | changed)
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
        """Ticks, as the workers' clocks would write them."""
        self.fold()
        for (region, p), state in self.states.items():
            signer = factories.worker_signer("w-1", region)
            tick = factories.tick_bytes(
                state.window.first_offset, partition=p, by=signer, region=region, task=self.task
            )
            self.append(region, p, tick)


@contextmanager
def on_mock_cluster(folder: Path) -> Iterator[Settings]:
    """Settings of librdkafka's own test cluster (real sockets, logs of a few MiB) and a file store, for one test."""
    cluster = Producer({"test.mock.num.brokers": 1, "log_level": 0})
    broker = next(iter(cluster.list_topics(timeout=10).brokers.values()))
    store = StoreSettings(kind="file", path=folder / "objects")
    yield Settings(home=folder, bootstrap_servers=f"{broker.host}:{broker.port}", store=store)
    cluster.flush(1)


def declare(settings: Settings, federation_task: str, partitions: Mapping[str, int]) -> None:
    """The task's topics, on a broker that does not make them by itself."""
    from backends.kafka.admin import declare_topics

    declare_topics(settings, topics_of(federation_task, partitions))


__all__ = ["PARTITIONS", "SmallFederation", "declare", "on_mock_cluster"]
