"""A task on the real stack, with the parts of the merger and the workers played: tests say exactly what devices find.

The merger's part is a signed announcement, the workers' is the pure fold; the whole pipeline has suites of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from aggregation.fold.events import Verdict
from aggregation.fold.state import PartitionState, initial
from aggregation.fold.transition import fold_into
from backends import keys
from backends.kafka.reading import LogReader
from backends.kafka.writing import LogWriter
from backends.store.factory import open_object_store
from backends.store.task_store import TaskStore
from backends.tasks import TaskFile, keys_folder
from fluvial.local.create import create_task
from fluvial.terminal.output import quiet_output
from producers.sdk.device import Device
from producers.sdk.updates import Contribution
from schemas.certificates import CONTROL, Role
from schemas.objects import model_key
from schemas.records import decode_record
from schemas.topics import models_topic, updates_topic

if TYPE_CHECKING:
    from backends.settings import Settings

REGIONS = {"eu": 2, "us": 1}


@dataclass
class Stage:
    """One task, with what the merger and the workers would do."""

    settings: Settings
    file: TaskFile

    def __post_init__(self) -> None:
        self.task = self.file.task
        self.store = TaskStore(open_object_store(self.settings.store), self.task)
        self.genesis = self.store.genesis(self.file.genesis_sha256)
        self.keys = keys_folder(self.settings.home, self.task)
        self.writer = LogWriter(self.settings, f"test-{self.task}")

    def announce(self, version: int, *, role: Role = Role.MERGER) -> None:
        """Announce the first model once more, as ``version``, to all regions."""
        self.store.store.put(
            model_key(self.task, version), self.store.model_bytes(0, self.genesis.model_sha256)
        )
        region = CONTROL if role is Role.MERGER else "eu"
        key_pair = keys.load_key_pair(keys.issue(self.keys, region, role, "merger"))
        signer = key_pair.of_task(self.genesis.domain)
        for name in self.genesis.regions:
            record = {
                "task": self.task,
                "region": name,
                "version": version,
                "manifest_sha256": "0" * 64,
                "model_sha256": self.genesis.model_sha256,
                "policy_sha256": self.genesis.first_policy.sha256,
            }
            value = signer.sign("ModelAnnouncement", record)
            self.writer.append_now(models_topic(self.task), value, key=name.encode(), partition=0)

    def device(self, name: str, region: str = "eu", **options: Any) -> Device:
        path = keys.issue(self.keys, region, Role.DEVICE, name)
        return Device.open(
            self.settings,
            task=self.task,
            region=region,
            key=path,
            genesis_sha256=self.file.genesis_sha256,
            **options,
        )

    def fold(self) -> dict[tuple[str, int, int], Verdict]:
        """The verdict on every record of every updates topic, by region, partition and offset."""
        verdicts: dict[tuple[str, int, int], Verdict] = {}
        trust = self.genesis.trust
        with LogReader(self.settings, f"test-fold-{self.task}") as reader:
            for region, partition in self.genesis.slots:
                state, topic = self._state(region, partition), updates_topic(self.task, region)
                for record in reader.read(topic, partition, 0, reader.bounds(topic, partition)[1]):
                    event = decode_record(record.value, record.timestamp_ms, trust, state.policy)
                    for effect in fold_into(state, record.offset, event):
                        if isinstance(effect, Verdict):
                            verdicts[region, partition, record.offset] = effect
        return verdicts

    def _state(self, region: str, partition: int) -> PartitionState:
        return initial(
            task=self.task,
            region=region,
            partition=partition,
            partitions=self.genesis.partitions[region],
            layout=self.genesis.tensor_layout,
            policy=self.genesis.first_policy,
            model_sha256=self.genesis.model_sha256,
        )


def create(settings: Settings, name: str, **options: Any) -> TaskFile:
    arguments: dict[str, Any] = {
        "reference": "digits",
        "regions": REGIONS,
        "output": quiet_output(),
    } | options
    return create_task(settings, name=name, **arguments)


def contribution(stage: Stage, value: float = 0.001) -> Contribution:
    return Contribution(np.full(stage.genesis.tensor_layout.parameters, value, dtype=np.float32), 10, 0.5)
