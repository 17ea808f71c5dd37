"""Make a small recorded federation of the newest format, ``federation.v5``: one that is there is never written again.

Run ``python -m tests.golden.make_federation``; commit what it adds. Workers and merger run in memory with keys of
their own, on a clock that begins now: keys, signatures and times are of that one run.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from aggregation.codecs import CodecName
from aggregation.fold.rejections import REJECTIONS
from aggregation.optimizers import initial_state
from aggregation.partitioning import partition_of
from aggregation.policy import policy_from_toml
from aggregation.server.aggregates import Slot
from backends import keys
from backends.clock import SYSTEM_CLOCK
from backends.memory.clock import ManualClock
from backends.memory.log import MemoryLog, MemoryReader, MemoryWriter
from backends.memory.store import MemoryStore
from backends.store.task_store import TaskStore
from backends.tasks import TaskFile
from fluvial.local.create import MERGER, NONCE_BYTES, OPERATOR, FirstVersion, worker_name
from fluvial.reading.verdicts import verdict_document
from fluvial.session.in_process import InProcessFederation, memory_log_of
from producers.sdk.bases import Base
from producers.sdk.updates import Author, Contribution, honest_record, seal_update
from schemas.certificates import CONTROL, Role
from schemas.checkpoints import encode_model, encode_optimizer
from schemas.envelope import KeyPair, Signer
from schemas.manifests import NEWEST_GENESIS, Genesis, Region
from schemas.objects import manifest_key, sha256_hex
from schemas.signing import FIRST_DOMAIN
from schemas.topics import updates_topic, verdicts_topic
from schemas.verdicts import decode_verdict
from tests import factories
from tests.golden.old_federation import audited
from tests.golden.recorded import HERE, TASK, Recording
from tests.small_federation import defect
from tests.strangers.recording import write

PARTITIONS: Final = {"eu": 2, "us": 1}
DAYS: Final = 3650
EXPIRED_DAYS: Final = -1 / 1440
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


async def run(making: Making) -> None:  # noqa: C901 - one history, in its order
    """Four versions, every outcome that a record can have, and windows at the end that no version holds."""
    slots = making.genesis.slots
    eu, other, us = slots
    await making.running.start()

    for slot in slots:
        for n, name in enumerate(devices(slot)):
            making.update(slot, name, codec=("int8", "float32", "int4")[n % 3])
    undecodable(making, eu)
    not_authentic(making, us)
    await making.version()

    for slot in slots:
        making.update(slot, devices(slot, 7)[6], late=1)
        for name in devices(slot):
            making.update(slot, name)
    misplaced(making, eu, other)
    out_of_bounds(making, us)
    await making.version()

    victim = devices(other)[0]
    for partition in range(PARTITIONS["eu"]):
        revoke = {"device_id": victim, "certificate_serial": "", "reason": "stolen"}
        making.control("Revoke", ("eu", partition), revoke)
    making.update(other, victim)
    for slot in slots:
        for name in devices(slot)[1:]:
            making.update(slot, name, codec="float32")
    making.update(us, devices(us)[0], size=-0.3)
    park(making, eu, devices(eu)[0])
    await making.version()

    barred(making, slots)
    making.update(eu, devices(eu, 5)[4], late=3)
    for slot in slots:
        making.update(slot, devices(slot, 7)[6], late=1)
        for name in devices(slot)[1:]:
            making.update(slot, name)
    await making.version()

    for name in devices(us):
        making.update(us, name)
    making.update(eu, devices(eu)[1])
    await making.settle()


def undecodable(making: Making, slot: Slot) -> None:
    """What nobody can read, what no worker knows, what is too large, and the same update twice."""
    name = devices(slot, 5)[4]
    value = making.update(slot, name)
    for spoiled in (
        value,
        value[:-9],
        b"not a record",
        None,
        b"\xc3\x01" + bytes(8) + value[10:],
        bytes(3001),
    ):
        making.append(*slot, spoiled)


def not_authentic(making: Making, slot: Slot) -> None:
    """What another task, another CA's device, an expired certificate and a device that plays merger have signed."""
    *_, first, second = devices(slot, 6)
    making.update(slot, first, sign=lambda signer: signer.of_task(FIRST_DOMAIN))
    making.update(slot, first, key_pair=making.key_pair(slot[0], Role.DEVICE, first, folder=making.strange))
    making.update(slot, second, key_pair=making.key_pair(slot[0], Role.DEVICE, second, days=EXPIRED_DAYS))
    barrier = {
        "region": slot[0],
        "version": 99,
        "manifest_sha256": sha256_hex(b""),
        "model_sha256": sha256_hex(b""),
        "reference_sha256": "",
        "policy_sha256": making.policy.sha256,
        "floor": 0,
        "reason": "version",
    }
    making.control("Barrier", slot, barrier, (slot[0], Role.DEVICE, first))


def misplaced(making: Making, slot: Slot, other: Slot) -> None:
    """Updates that stand where they do not belong, or name what there is not."""
    name = devices(slot, 5)[4]
    assert partition_of(name, PARTITIONS[other[0]]) != other[1]
    making.update(other, name)
    changes: list[dict[str, Any]] = [
        {"task": "another"},
        {"region": "us"},
        {"base_sha256": sha256_hex(b"")},
        {"base_version": 99},
    ]
    for changed in changes:
        making.update(slot, name, change=lambda record, changed=changed: record.update(changed))  # type: ignore[misc]


def out_of_bounds(making: Making, slot: Slot) -> None:
    """Updates of another layout, with a value that is no number, with a variance below 0, and one that is too long."""
    name = devices(slot, 5)[4]
    nan, below, large = (
        np.full(count, value, "<f4").tobytes() for count, value in ((1, np.nan), (3, -1), (7, 50))
    )
    for index, data in ((0, nan), (4, below), (2, large)):
        making.update(
            slot,
            name,
            codec="float32",
            change=lambda record, index=index, data=data: record["tensors"][index].update(data=data),  # type: ignore[misc]
        )
    making.update(slot, name, change=lambda record: record["tensors"].pop())


def park(making: Making, slot: Slot, name: str) -> None:
    """A record at which the fold raises, an operator's Skip of it, and a Skip of one that was folded."""
    making.update(slot, name)
    offset = making.log.end(updates_topic(TASK, slot[0]), slot[1]) - 1
    making.parked.add((slot, offset))
    for skipped in (offset, 0):
        said = {"offset": skipped, "reason": "the fold raises on it"}
        making.control("Skip", slot, {"region": slot[0], "partition": slot[1], **said})


def barred(making: Making, slots: tuple[Slot, ...]) -> None:
    """An operator's certificate is revoked; what it signs then counts no more."""
    path = keys.signer_path(making.folder, CONTROL, Role.OPERATOR, OTHER_OPERATOR)
    other = (CONTROL, Role.OPERATOR, OTHER_OPERATOR)
    for slot in slots:
        stolen = {"device_id": "", "certificate_serial": keys.certificate_serial(path), "reason": "stolen"}
        making.control("Revoke", slot, stolen)
        made_up = {"device_id": devices(slot)[1], "certificate_serial": "", "reason": "made up"}
        making.control("Revoke", slot, made_up, other)


def expected(of: Recording, folder: Path) -> dict[str, Any]:
    """What the recording comes to; ``folder`` may be written to."""
    kept, genesis = of.objects(), of.genesis()
    manifests = [kept[manifest_key(TASK, 0)]]
    while manifest_key(TASK, len(manifests)) in kept:
        manifests.append(kept[manifest_key(TASK, len(manifests))])

    def audit(first: int, last: int) -> dict[str, Any]:
        report = audited(folder, kept, first, last, of=of)
        report.require_identical()
        return {name: value for name, value in report.document().items() if name not in {"seconds", "jobs"}}

    last = len(manifests) - 1
    whole = audit(1, last)
    partitions = [verdicts(of, slot) for slot in genesis.slots]
    outcomes = Counter(one["outcome"] for partition in partitions for one in partition["verdicts"])
    return {
        "task": TASK,
        "genesis_sha256": genesis.sha256,
        "digest": whole["digest"],
        "audit": whole,
        "audits_of_a_part": [audit(2, last - 1), audit(last, last)],
        "outcomes": dict(sorted(outcomes.items())),
        "versions": [version(number, data) for number, data in enumerate(manifests)],
        "partitions": partitions,
    }


def version(number: int, manifest: bytes) -> dict[str, Any]:
    """A version's hashes."""
    said = json.loads(manifest)
    hashes = {name: said[name] for name in ("model_sha256", "optimizer_sha256")}
    return {"version": number, "manifest_sha256": sha256_hex(manifest), **hashes}


def verdicts(of: Recording, slot: Slot) -> dict[str, Any]:
    """A partition's verdicts, as they read."""
    read = [decode_verdict(one.value or b"") for one in of.records(verdicts_topic(TASK, slot[0]), slot[1])]
    documents = [verdict_document(slot, one) for one in read]
    place = {"region": slot[0], "partition": slot[1]}
    return place | {
        "verdicts": [{k: v for k, v in document.items() if k not in place} for document in documents]
    }


def make(folder: Path) -> dict[str, Any]:
    """Run a federation and record it in ``folder``; returns what it comes to."""
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        made = place / folder.name
        making = Making(made / "task" / "keys", place / "strange")
        asyncio.run(run(making))
        reader = MemoryReader(making.log)
        write(
            made,
            TASK,
            PARTITIONS,
            lambda topic, partition: reader.read(topic, partition, *reader.bounds(topic, partition)),
            making.store.store,
        )
        file = TaskFile(
            task=TASK,
            genesis_sha256=making.genesis.sha256,
            reference="nowhere.py",
            regions=tuple(sorted(PARTITIONS)),
        )
        (made / "task" / "task.json").write_bytes(msgspec.json.format(msgspec.json.encode(file), indent=2))
        found = expected(Recording(made), place / "audited")
        (made / "expected.json").write_text(json.dumps(found, indent=1) + "\n")
        shutil.copytree(made, folder)
    return found


def main() -> int:
    """Make the federation of the newest format; 1 if it is there."""
    folder = HERE / f"federation.{NEWEST_GENESIS.rpartition('/')[2]}"
    if folder.exists():
        sys.stderr.write(f"RELEASED: {folder.name} is left as it is\n")
        return 1
    found = make(folder)
    never = sorted(REJECTIONS.keys() - found["outcomes"].keys())
    sys.stdout.write(f"made {folder.name}: {found['outcomes']}, never {', '.join(never) or 'nothing'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
