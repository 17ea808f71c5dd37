"""A synthetic task for benchmarks: any number of parameters, honest keys, real records, no training."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from aggregation import codecs
from aggregation.layout import Layout
from aggregation.optimizers import initial_state
from aggregation.partitioning import partition_of
from aggregation.policy import policy_from_mapping
from backends.kafka.admin import declare_topics
from backends.kafka.writing import LogWriter
from backends.keys import authority_path, certificate_pem, create_authority, issue, load_key_pair
from backends.settings import Settings
from backends.store.factory import open_object_store
from backends.store.task_store import TaskStore
from backends.tasks import TaskFile, keys_folder, write_task_file
from schemas.certificates import CONTROL, Role
from schemas.checkpoints import encode_direction, encode_model, encode_optimizer
from schemas.envelope import Signer
from schemas.manifests import Genesis, Region, TensorEntry
from schemas.objects import sha256_hex
from schemas.topics import topics_of, updates_topic


@dataclass(frozen=True)
class Synthetic:
    """A task whose first ``versions`` versions exist in its logs as barriers only (no manifests behind them)."""

    settings: Settings
    task: str
    region: str
    partitions: int
    layout: Layout
    genesis: Genesis
    devices: dict[str, Signer]
    writer: LogWriter

    def model_sha256(self, version: int) -> str:
        """The made-up model hash of a version; version 0's is real."""
        return self.genesis.model_sha256 if version == 0 else sha256_hex(f"{self.task}/{version}".encode())

    def update(
        self, device: str, base_version: int, tensors: list[dict[str, Any]], update_id: str = ""
    ) -> bytes:
        """One signed update record."""
        record = {
            "task": self.task,
            "region": self.region,
            "device_id": device,
            "base_version": base_version,
            "base_sha256": self.model_sha256(base_version),
            "update_id": update_id,
            "num_examples": 32,
            "local_loss": 0.5,
            "codec": "int8",
            "tensors": tensors,
            "client_metrics": {},
            "created_at": round(time.time() * 1000),
        }
        return self.devices[device].sign("ClientUpdate", record)

    def publish(self, device: str, value: bytes) -> Any:
        """Append an update to its partition; returns the delivery future."""
        return self.writer.append(
            updates_topic(self.task, self.region),
            value,
            key=device.encode(),
            partition=partition_of(device, self.partitions),
        )


def layout_of(parameters: int) -> Layout:
    """A small network's shape: four tensors, ``parameters`` in all."""
    hidden = parameters // 100
    first, second = hidden * 89, hidden * 9
    rest = parameters - first - second - 10
    return Layout.of(
        [("in.weight", (hidden, 89)), ("in.bias", (rest,)), ("out.weight", (9, hidden)), ("out.bias", (10,))]
    )


def tensors_of(layout: Layout, seed: int) -> list[dict[str, Any]]:
    """One int8 delta of plausible size, as a record holds it."""
    rng = np.random.default_rng(seed)
    delta = (rng.standard_normal(layout.parameters) * 0.003).astype(np.float32)
    return [
        {"name": e.name, "shape": list(e.shape), "scale": e.scale, "data": e.data}
        for e in codecs.encode_delta(delta, layout, "int8", rng)
    ]


def create(
    settings: Settings,
    *,
    task: str,
    parameters: int,
    partitions: int,
    devices: int,
    policy: dict[str, Any],
    region: str = "eu",
) -> Synthetic:
    """Make keys, genesis, version 0 and topics."""
    keys = keys_folder(settings.home, task)
    for name in (region, CONTROL):
        create_authority(keys, name)
    issue(keys, region, Role.WORKER, f"worker-{region}")
    issue(keys, CONTROL, Role.MERGER, "merger")
    layout, document = layout_of(parameters), policy_from_mapping(policy)
    model = encode_model(np.zeros(layout.parameters, dtype=np.float32), layout)
    optimizer = encode_optimizer(initial_state(document.server, layout.parameters))
    genesis = Genesis(
        task=task,
        regions={region: Region(partitions, certificate_pem(authority_path(keys, region)))},
        control_authority=certificate_pem(authority_path(keys, CONTROL)),
        layout=tuple(TensorEntry(spec.name, spec.shape) for spec in layout.tensors),
        policy=msgspec.json.decode(document.canonical()),
        model_sha256=sha256_hex(model),
        optimizer_sha256=sha256_hex(optimizer),
    )
    store = TaskStore(open_object_store(settings.store), task)
    store.put_object(document.canonical())
    store.write_checkpoint(0, model, optimizer)
    store.commit(0, genesis.canonical())
    write_task_file(
        settings.home,
        TaskFile(
            task=task,
            genesis_sha256=sha256_hex(genesis.canonical()),
            reference="synthetic",
            regions=(region,),
        ),
    )
    declare_topics(settings, topics_of(task, {region: partitions}))
    signers = {
        f"d-{i:05d}": load_key_pair(issue(keys, region, Role.DEVICE, f"d-{i:05d}")).of_task(genesis.domain)
        for i in range(devices)
    }
    return Synthetic(
        settings, task, region, partitions, layout, genesis, signers, LogWriter(settings, "benchmark")
    )


def write_barriers(made: Synthetic, versions: int) -> None:
    """Move every partition to version ``versions`` by signed barriers, each with a real reference direction."""
    store = TaskStore(open_object_store(made.settings.store), made.task)
    direction = np.random.default_rng(7).standard_normal(made.layout.parameters)
    reference = store.put_object(encode_direction(codecs.direction_of(direction, made.layout)))
    signer = load_key_pair(_merger_key(made.settings.home, made.task)).of_task(made.genesis.domain)
    for version in range(1, versions + 1):
        barrier = {
            "task": made.task,
            "region": made.region,
            "version": version,
            "manifest_sha256": sha256_hex(b"benchmark"),
            "model_sha256": made.model_sha256(version),
            "reference_sha256": reference,
            "policy_sha256": made.genesis.first_policy.sha256,
            "floor": 0,
            "reason": "version",
        }
        value = signer.sign("Barrier", barrier)
        for partition in range(made.partitions):
            made.writer.append(updates_topic(made.task, made.region), value, partition=partition)
    made.writer.flush()


def _merger_key(home: Path, task: str) -> Path:
    return keys_folder(home, task) / CONTROL / Role.MERGER.value / "merger.pem"
