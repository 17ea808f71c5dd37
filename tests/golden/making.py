"""A federation in memory while it is being recorded: its task, its keys, and all that is appended to its logs."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from aggregation.optimizers import initial_state
from aggregation.policy import policy_from_toml
from backends import keys
from backends.clock import SYSTEM_CLOCK
from backends.memory.clock import ManualClock
from backends.memory.log import MemoryLog, MemoryReader, MemoryWriter
from backends.memory.store import MemoryStore
from backends.store.task_store import TaskStore
from fluvial.local.create import MERGER, NONCE_BYTES, OPERATOR, FirstVersion, worker_name
from fluvial.session.in_process import InProcessFederation, memory_log_of
from producers.sdk.bases import Base
from producers.sdk.updates import Author, Contribution, honest_record, seal_update
from schemas.certificates import CONTROL, Role
from schemas.checkpoints import encode_model, encode_optimizer
from schemas.manifests import NEWEST_GENESIS, Genesis, Region
from schemas.objects import sha256_hex
from schemas.topics import updates_topic
from tests import factories
from tests.golden.recorded import TASK
from tests.small_federation import defect

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aggregation.codecs import CodecName
    from aggregation.server.aggregates import Slot
    from schemas.envelope import KeyPair, Signer

PARTITIONS: Final = {"eu": 2, "us": 1}
DAYS: Final = 3650
OTHER_OPERATOR: Final = "operator-2"
LAYOUT: Final = factories.BUFFERED
POLICY: Final = """
[updates]
bytes_max = 3000
norm_clip = 0.6
norm_max = 20.0

[staleness]
versions_max = 2

[window]
updates_max = 3
seconds_max = 1.0

[buffer]
updates = 40
seconds_max = 6.0

[server]
optimizer = "adam"
learning_rate = 0.1
adaptivity = 0.01
divide_by = "weights"

[anomaly]
cosine_min = -0.4
history_updates = 16
history_updates_min = 4
"""


def first_version(folder: Path) -> FirstVersion:
    """Version 0, of the CAs in ``folder``."""
    policy = policy_from_toml(POLICY)
    model = encode_model(factories.delta(0, LAYOUT, size=1.0), LAYOUT)
    optimizer = encode_optimizer(initial_state(policy.server, LAYOUT.trainable.parameters))
    pem = {name: keys.certificate_pem(keys.authority_path(folder, name)) for name in (*PARTITIONS, CONTROL)}
    genesis = Genesis(
        task=TASK,
        regions={name: Region(count, pem[name]) for name, count in PARTITIONS.items()},
        control_authority=pem[CONTROL],
        layout=factories.entries(LAYOUT),
        policy=json.loads(policy.canonical()),
        model_sha256=sha256_hex(model),
        optimizer_sha256=sha256_hex(optimizer),
        nonce=secrets.token_hex(NONCE_BYTES),
        format=NEWEST_GENESIS,
    )
    return FirstVersion(genesis, model, optimizer, ())


def make_keys(folder: Path) -> None:
    """CAs, and a key for every worker, the merger and two operators."""
    for name in (CONTROL, *PARTITIONS):
        keys.create_authority(folder, name)
    for region in PARTITIONS:
        keys.issue(folder, region, Role.WORKER, worker_name(region), days=DAYS)
    keys.issue(folder, CONTROL, Role.MERGER, MERGER, days=DAYS)
    for name in (OPERATOR, OTHER_OPERATOR):
        keys.issue(folder, CONTROL, Role.OPERATOR, name, days=DAYS)


@dataclass
class Making:
    """The federation while it runs. ``folder`` has its keys; ``strange`` has those of CAs that it does not know."""

    folder: Path
    strange: Path
    seed: int = 0
    parked: set[tuple[Slot, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        for folder in (self.folder, self.strange):
            make_keys(folder)
        first = first_version(self.folder)
        self.genesis = first.genesis
        self.policy = self.genesis.first_policy
        self.clock = ManualClock(round(SYSTEM_CLOCK.time()))
        self.log: MemoryLog = memory_log_of(self.genesis, self.clock)
        self.store = TaskStore(MemoryStore(), TASK)
        assert first.write(self.store) is not None
        self.running = InProcessFederation(
            self.genesis,
            self.store,
            writer=MemoryWriter(self.log),
            open_reader=lambda _purpose: MemoryReader(self.log),
            workers={
                region: self.key_pair(region, Role.WORKER, worker_name(region)) for region in PARTITIONS
            },
            merger=self.key_pair(CONTROL, Role.MERGER, MERGER),
            clock=self.clock,
        )

    @property
    def head(self) -> int:
        """The newest version."""
        return self.running.merger.head.number

    def key_pair(
        self, region: str, role: Role, name: str, *, folder: Path | None = None, days: float = DAYS
    ) -> KeyPair:
        """A key, issued if it is not there."""
        return keys.load_key_pair(keys.issue(folder or self.folder, region, role, name, days=days))

    def append(self, region: str, partition: int, value: bytes | None) -> int:
        """Append any bytes to an updates topic; returns the offset."""
        topic = updates_topic(TASK, region)
        return self.log.append(topic, partition, None, value, ()).offset  # type: ignore[arg-type]

    def control(
        self,
        kind: str,
        slot: Slot,
        said: dict[str, Any],
        by: tuple[str, Role, str] = (CONTROL, Role.OPERATOR, OPERATOR),
    ) -> int:
        """A signed control record in one partition."""
        signer = self.key_pair(*by).of_task(self.genesis.domain)
        return self.append(*slot, signer.sign(kind, {"task": TASK, **said}))

    def base(self, version: int) -> Base:
        """A version to train from."""
        document = self.store.manifest(version) if version else self.genesis
        held = self.store.checkpoint(
            version, document.model_sha256, document.optimizer_sha256, self.genesis.tensor_layout
        )
        return Base(version, document.model_sha256, held.model, self.policy)

    def update(
        self,
        slot: Slot,
        name: str,
        *,
        late: int = 0,
        codec: CodecName = "int8",
        size: float = 0.1,
        key_pair: KeyPair | None = None,
        change: Callable[[dict[str, Any]], object] = lambda record: None,
        sign: Callable[[Signer], Signer] = lambda signer: signer,
    ) -> bytes:
        """Append an update to ``slot``; ``change`` and ``sign`` spoil it."""
        self.seed += 1
        pair = key_pair or self.key_pair(slot[0], Role.DEVICE, name)
        author = Author(self.genesis, slot[0], name, sign(pair.of_task(self.genesis.domain)), self.seed)
        outcome = Contribution(delta(self.seed, size), 10, 0.5, {"epochs": 1.0})
        record = honest_record(
            author,
            self.base(self.head - late),
            LAYOUT,
            codec=codec,
            outcome=outcome,
            created_at_ms=round(self.clock.time() * 1000),
        )
        change(record)
        value = seal_update(author, record)
        self.append(*slot, value)
        return value

    async def settle(self) -> None:
        """Fold what came, then let windows and the buffer reach their deadlines."""
        with defect(self.parked):
            await self.running.fold()
            self.clock.sleep(self.policy.window.seconds_max)
            await self.running.tick()
            await self.running.settle()

    async def version(self) -> None:
        """The next version, of what came."""
        before = self.head
        await self.settle()
        if self.head == before:
            self.clock.sleep(self.policy.buffer.seconds_max)
            await self.settle()
        assert self.head == before + 1, f"version {self.head} after {before}"


def delta(seed: int, size: float) -> npt.NDArray[np.float32]:
    """Updates that mostly agree: one direction for all, and a part of each one's own."""
    weights = LAYOUT.trainable.parameters
    values = factories.delta(seed, LAYOUT, size=abs(size))
    values[:weights] += np.float32(size) * np.sign(factories.delta(9999, LAYOUT)[:weights])
    return values


def devices(slot: Slot, count: int = 3) -> list[str]:
    """Some devices of a partition."""
    return factories.devices(count, partition=slot[1], partitions=PARTITIONS[slot[0]])
