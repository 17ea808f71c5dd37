"""One simulated federation: its task, its processes, and the faults that strike them. ``run`` is one schedule.

Everything that is not the outside world is production's code: ``RegionWorker``, ``MergeLoop``, ``Device``, the fold,
the merge, the store's layout, the signatures.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from cryptography.hazmat.primitives.serialization import Encoding

from aggregation.errors import FluvialError
from aggregation.fold import state as partition_state
from aggregation.fold.rejections import ACCEPTED
from aggregation.layout import BUFFERS, Layout, TensorSpec
from aggregation.optimizers import initial_state
from backends.settings import Settings, StoreSettings
from backends.store.task_store import TaskStore
from fluvial.proof.checker import fold as checker_fold
from producers.sdk.device import Receipt
from schemas.certificates import Trust
from schemas.checkpoints import encode_model, encode_optimizer
from schemas.manifests import NEWEST_GENESIS, Genesis, Region, decode_manifest
from schemas.objects import manifest_key, model_key, sha256_hex
from schemas.topics import aggregates_topic, models_topic, topics_of, updates_topic, verdicts_topic
from schemas.verdicts import decode_verdict
from stream_apps.merger.loop import MergeLoop
from stream_apps.merger.merger import Merger
from stream_apps.process_context import ProcessContext
from stream_apps.worker import merged_windows
from stream_apps.worker.region import RegionWorker
from tests import factories
from tests.simulation.crowd import Followed, Intruder, SimulatedDevice
from tests.simulation.defect import Defect
from tests.simulation.framework import Group, Member
from tests.simulation.guardian import SimulatedGuardian
from tests.simulation.keys import RememberingTrust, remember_in_checker, remembering
from tests.simulation.liars import Liar, Planter
from tests.simulation.memory_log import MemoryLog, MemoryReader, MemoryWriter, Place, seeded
from tests.simulation.memory_store import MemoryObjects, MemoryStore, StoreFaults
from tests.simulation.policies import policy_of
from tests.simulation.scheduler import Killed, Process, SimulatedClock, VirtualLoop

if TYPE_CHECKING:
    from aggregation.policy import Policy
    from backends.log import LogRecord

TASK = "sim"
PARTITIONS = {"eu": 2, "us": 1}
WORKERS = 2
MERGERS = 2
GUARDIANS = 2
LAYOUT = Layout.of(
    [TensorSpec("w", (3,)), TensorSpec("b", ()), TensorSpec("var", (2,), BUFFERS, nonnegative=True)]
)
EPOCH_MS = factories.NOW_MS
SETTINGS = Settings(
    home=Path("/nowhere"),
    bootstrap_servers="simulated:9092",
    store=StoreSettings(kind="file", path=Path("/nowhere")),
)
STRIKES = (
    "kill",
    "pause",
    "log away",
    "store away",
    "store full",
    "clock",
    "rebalance",
    "intruder",
    "defect",
    "liar",
    "planter",
)
UNTOUCHED = ("creator", "crowd")
PAUSE_S_MAX = 9.0
AWAY_S_MAX = 4.0
CLOCK_JUMP_S = 3600.0
QUIET_S = 1.5
FAULTY_S = 8.0
HEALING_S_MAX = 90.0
TICK_EVERY_S = 0.8
MERGE_EVERY_S = 0.6
RESTART_S_MAX = 4.0

merged_windows.RECORDS_FOLDED_AGAIN = 8  # type: ignore[misc] # else no run is long enough to go on from a window


@cache
def _genesis(policy: Policy) -> tuple[Genesis, bytes, bytes]:
    model = np.array([0.5, -0.25, 0.125, 1.0, 1.0, 1.0], dtype=np.float32)
    model_bytes = encode_model(model, LAYOUT)
    optimizer = encode_optimizer(initial_state(policy.server, LAYOUT.trainable.parameters))
    pem = {
        name: factories.authority(name).public_bytes(Encoding.PEM).decode()
        for name in (*PARTITIONS, factories.CONTROL)
    }
    genesis = Genesis(
        task=TASK,
        regions={name: Region(count, pem[name]) for name, count in PARTITIONS.items()},
        control_authority=pem[factories.CONTROL],
        layout=factories.entries(LAYOUT),
        policy=msgspec.json.decode(policy.canonical()),
        model_sha256=sha256_hex(model_bytes),
        optimizer_sha256=sha256_hex(optimizer),
        nonce=factories.NONCE,
        format=NEWEST_GENESIS,
    )
    return genesis, model_bytes, optimizer


@cache
def _trust(policy: Policy) -> Trust:
    remember_in_checker()
    trust = _genesis(policy)[0].trust
    return RememberingTrust(trust.authorities, trust.rules, trust.domain)


@dataclass
class Acknowledged:
    """One update that its device was told is safe."""

    region: str
    partition: int
    offset: int
    update_id: str
    device: str


@dataclass
class Federation:
    """A whole run. After ``run`` the log, the store and what devices were told are there to be checked."""

    seed: int
    trace_lines: list[str] | None = None
    faults: dict[str, int] = field(default_factory=dict)
    acknowledged: list[Acknowledged] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        random.seed(self.seed)  # tenacity's back-off draws from the global generator
        self.loop = VirtualLoop()
        self.policy, self.layout = policy_of(self.seed), LAYOUT
        self.genesis, model, optimizer = _genesis(self.policy)
        self.genesis_sha256 = self.genesis.sha256
        self.trust = _trust(self.policy)
        topics = topics_of(TASK, PARTITIONS, guided=self.genesis.is_guided)
        self.log = MemoryLog(self.loop, {topic.name: topic.partitions for topic in topics}, EPOCH_MS)
        self.objects = MemoryObjects(self.loop)
        self.rng = seeded(self.seed, "faults")
        self.defect = Defect(self.log, self.genesis, self.trust, seeded(self.seed, "defect"))
        self.healthy = False
        self.processes: dict[str, Process] = {}
        self.incarnations = 0
        self.mergers: dict[str, Member] = {}
        self.groups = {
            region: Group(
                [(updates_topic(TASK, region), number) for number in range(count)],
                seeded(self.seed, f"group {region}"),
                self.trace,
            )
            for region, count in PARTITIONS.items()
        }
        # Each run has a character of its own: some are calm, some are all crashes, some all lost answers.
        self.crashing = self.rng.choice((0.0, 0.002, 0.01, 0.03))
        self.unsure = self.rng.choice((0.0, 0.05, 0.3))
        self.store_faults = StoreFaults(
            refused=self.rng.choice((0.0, 0.01, 0.1)),
            answer_lost=self.rng.choice((0.0, 0.02, 0.1)),
            repeated=self.rng.choice((0.0, 0.05, 0.3)),
            damaged=self.rng.choice((0.0, 0.0, 0.02)),
        )
        # From a stream of its own: the runs in which the broker refuses nothing are as they were without this.
        self.refusing = seeded(self.seed, "refusals").choice((0.0, 0.0, 0.0, 0.05))
        # Every fourth run forgets its oldest bases for lack of room.
        for bounded in (partition_state, checker_fold):
            setattr(bounded, "COUNTED_MAX", 3 if self.seed % 4 == 0 else 1_000_000)  # noqa: B010 (it is final)
        self._create(model, optimizer)

    def trace(self, *what: object) -> None:
        """Note an event, for whoever reproduces the run."""
        if self.trace_lines is not None:
            self.trace_lines.append(f"{self.loop.now_s:9.4f} " + " ".join(map(str, what)))

    def _create(self, model: bytes, optimizer: bytes) -> None:
        process = self._process("creator")
        store = TaskStore(MemoryStore(process, self.objects), TASK)
        announced = {
            "task": TASK,
            "version": 0,
            "manifest_sha256": self.genesis_sha256,
            "model_sha256": self.genesis.model_sha256,
            "policy_sha256": self.policy.sha256,
        }

        def create() -> None:
            store.put_object(self.policy.canonical())
            store.write_checkpoint(0, model, optimizer)
            store.commit(0, self.genesis.canonical())
            for region in PARTITIONS:
                signer = factories.merger_signer().of_task(self.genesis.domain)
                value = signer.sign("ModelAnnouncement", announced | {"region": region})
                self.log.append((models_topic(TASK), 0), region.encode(), value)

        done = process.thread(create)
        self.loop.run_until_complete(done)
        done.result()

    # -- processes

    def _process(self, name: str) -> Process:
        self.incarnations += 1
        process = Process(self.loop, seeded(self.seed, f"{name} {self.incarnations}"), name, self.trace)
        process.before_effect = self._maybe_crash
        self.processes[name] = process
        return process

    def _maybe_crash(self, process: Process, what: str) -> None:
        if self.healthy or process.name in UNTOUCHED or process.rng.random() >= self.crashing:
            return
        self._count("kill")
        self.trace(process.name, "dies at", what)
        self.restart(process.name)
        raise Killed

    def restart(self, name: str) -> None:
        """Kill -9, and start again after a while."""
        self.processes[name].kill()
        down_s = self.rng.random() ** 2 * RESTART_S_MAX
        self.loop.later(down_s, lambda: self.start(name))

    def start(self, name: str) -> None:
        """Start a process by its name: ``worker-<region>-<n>``, ``merger-<n>`` or ``guardian-<n>``."""
        self.trace("start", name)
        process = self._process(name)
        if name.startswith("worker"):
            self._start_worker(process, name.split("-")[1])
        elif name.startswith("guardian"):
            self._start_guardian(process)
        else:
            self._start_merger(process)

    def _context(self, process: Process, signer: Any, name: str) -> ProcessContext:
        return ProcessContext.of(
            genesis=self.genesis,
            store=TaskStore(MemoryStore(process, self.objects), TASK),
            writer=MemoryWriter(process, self.log, refused=lambda: self._refused(process)),
            key_pair=signer,
            name=name,
            open_reader=lambda _purpose: MemoryReader(process, self.log),
            trust=self.trust,
            clock=SimulatedClock(process, EPOCH_MS / 1000),
        )

    def _refused(self, process: Process) -> float:
        return 0.0 if self.healthy or not process.name.startswith("worker") else self.refusing

    def _member(self, process: Process) -> Member:
        member = Member(process, self.log, faithful=lambda: self.healthy)

        def failed(error: Exception) -> None:
            self.trace(process.name, "ends:", error)
            self.ended.append(f"{process.name}: {error}")
            if process.alive:
                self.restart(process.name)

        member.failed = failed
        return member

    def _start_worker(self, process: Process, region: str) -> None:
        context = self._context(
            process, remembering(factories.worker_signer(process.name, region)), process.name
        )
        worker = RegionWorker(context, region)
        member = self._member(process)

        async def resume(assigned: Iterable[Place]) -> Mapping[Place, int]:
            offsets = await worker.resume(partition for _, partition in assigned)
            self.trace(process.name, "resumes at", dict(offsets))
            return {(updates_topic(TASK, region), partition): at for partition, at in offsets.items()}

        async def tick() -> None:
            while True:
                await process.sleep(TICK_EVERY_S)
                await worker.tick(sorted(partition for _, partition in member.assigned))

        member.resume, member.deliver = resume, worker.process_all
        group = self.groups[region]
        for old in [one for one in group.members if one.process.name == process.name]:
            group.leave(old)
        group.join(member)
        process.start_task(tick())

    def _start_merger(self, process: Process) -> None:
        regions = {aggregates_topic(TASK, region): region for region in PARTITIONS}
        places = [(aggregates_topic(TASK, region), n) for region, n in self.genesis.slots]
        member = self._member(process)

        async def run() -> None:
            signer = remembering(factories.merger_signer(process.name))
            context = self._context(process, signer, process.name)
            try:
                merger = MergeLoop(await process.thread(lambda: Merger(context)))
            except FluvialError as error:
                member.failed(error)
                return
            await self._merge(process, member, merger, places, regions)

        process.start_task(run())

    async def _merge(
        self,
        process: Process,
        member: Member,
        merger: MergeLoop,
        places: list[Place],
        regions: Mapping[str, str],
    ) -> None:
        async def resume(assigned: Iterable[Place]) -> Mapping[Place, int]:
            offsets = await merger.resume()
            return {place: offsets[(regions[place[0]], place[1])] for place in assigned}

        async def deliver(portion: list[LogRecord]) -> None:
            for record in portion:
                await merger.offer(record, regions[record.topic])

        member.resume, member.deliver = resume, deliver
        self.mergers[process.name] = member
        await member.adopt(frozenset(places), 0)
        try:
            while True:
                await process.sleep(MERGE_EVERY_S)
                await merger.merge_if_due()
        except FluvialError as error:
            member.failed(error)

    def _start_guardian(self, process: Process) -> None:
        signer = remembering(factories.guardian_signer(process.name))
        guardian = SimulatedGuardian(self._context(process, signer, process.name), process, self.log)
        process.start_task(guardian.live(self._member(process).failed))

    # -- devices

    def _start_crowd(self) -> None:
        process = self._process("crowd")
        followed = Followed(process, self.log, self.genesis, self.trust)
        process.start_task(followed.follow())
        number = 0
        for region, partitions in PARTITIONS.items():
            for partition in range(partitions):
                for device_id in factories.devices(
                    2, partition=partition, partitions=partitions, start=10 * number
                ):
                    device = SimulatedDevice(
                        process,
                        device_id,
                        region,
                        self.genesis,
                        followed,
                        TaskStore(MemoryStore(process, self.objects), TASK),
                        self.log,
                        settings=SETTINGS,
                        unsure=lambda: 0.0 if self.healthy else self.unsure,
                        epoch_s=EPOCH_MS / 1000,
                        acknowledge=self._acknowledge,
                    )
                    life = process.thread(lambda device=device: device.live(lambda: not self.healthy))  # type: ignore[misc]
                    process.watch(life)
                number += 1

    def _acknowledge(self, device: str, region: str, receipt: Receipt) -> None:
        one = Acknowledged(region, receipt.partition, receipt.offset, receipt.update_id, device)
        self.acknowledged.append(one)

    # -- faults

    def _count(self, kind: str) -> None:
        self.faults[kind] = self.faults.get(kind, 0) + 1

    def _plan_faults(self) -> None:
        """Strikes at random times, of random kinds; how many, and which, is the run's character."""
        kinds = self.rng.sample(STRIKES, self.rng.randint(1, len(STRIKES)))
        for _ in range(self.rng.randint(0, 14)):
            kind = self.rng.choice(kinds)
            self.loop.later(self.rng.random() * FAULTY_S, lambda kind=kind: self._strike(kind))  # type: ignore[misc]

    def _strike(self, kind: str) -> None:
        if self.healthy:
            return
        rng = self.rng
        self._count(kind)
        name = rng.choice([name for name in sorted(self.processes) if name not in UNTOUCHED])
        process = self.processes[name]
        self.trace("fault:", kind, name)
        strikes: dict[str, Callable[[], object]] = {
            "kill": lambda: self.restart(name) if process.alive else None,
            "pause": lambda: self._for_a_while(process.pause, process.wake, PAUSE_S_MAX),
            "log away": lambda: self._away(self.log, "away"),
            "store away": lambda: self._away(self.store_faults, "away"),
            "store full": lambda: self._away(self.store_faults, "full"),
            "clock": lambda: self._jump(process),
            "rebalance": self.groups[rng.choice(sorted(self.groups))].rebalance,
            "defect": self.defect.strike,
            "intruder": lambda: self.trace("intruder:", self.intruder.act()),
            "liar": lambda: self.trace("liar:", self.liar.act()),
            "planter": self._plant,
        }
        strikes[kind]()

    def _plant(self) -> None:
        self.trace("planter:", self.planter.act(self.versions))
        self.loop.later(self.rng.random() * AWAY_S_MAX, self._discard)

    def _discard(self) -> None:
        """As an operator does with `fluvial task discard`."""
        written = self.objects.history.items()
        self.planter.remove({value for key, values in written if "/versions/" in key for value in values})

    def _for_a_while(
        self, begin: Callable[[], object], end: Callable[[], object], seconds_max: float
    ) -> None:
        begin()
        self.loop.later(self.rng.random() * seconds_max, end)

    def _away(self, part: object, attribute: str) -> None:
        self._for_a_while(
            lambda: setattr(part, attribute, True), lambda: setattr(part, attribute, False), AWAY_S_MAX
        )

    def _jump(self, process: Process) -> None:
        process.clock_jump_s = self.rng.uniform(-CLOCK_JUMP_S, CLOCK_JUMP_S)
        self.log.clock_jump_ms = round(self.rng.uniform(-CLOCK_JUMP_S, CLOCK_JUMP_S) * 1000)

    def _expire(self) -> None:
        for group in self.groups.values():
            group.expire(self.loop.now_s)
        self.loop.later(1.0, self._expire)

    # -- what came of it

    @property
    def versions(self) -> int:
        """Versions committed above 0."""
        number = 0
        while manifest_key(TASK, number + 1) in self.objects.objects:
            number += 1
        return number

    def digest(self) -> str:
        """A hash of all that was written, in its order: one seed, one digest."""
        digest = hashlib.sha256()
        for (place, offset), _ in sorted(self.log.order.items(), key=lambda item: item[1]):
            record = self.log.records[place][offset]
            digest.update(f"{place} {offset} {record.timestamp_ms} ".encode() + (record.value or b""))
        for key, data in self.objects.objects.items():
            digest.update(key.encode() + data)
        return digest.hexdigest()

    # -- the run

    def run(self) -> None:
        """Faults for a while, then healing, until everything is drained; AssertionError when it never is."""
        asyncio.set_event_loop(self.loop)
        try:
            self.objects.faults = self.store_faults
            self.intruder = Intruder(self.log, self.genesis, seeded(self.seed, "intruder"))
            self.liar = Liar(self.log, self.genesis, seeded(self.seed, "liar"))
            self.planter = Planter(self.objects, TASK, seeded(self.seed, "planter"))
            self.defect.install()
            for region in PARTITIONS:
                for number in range(WORKERS):
                    self.start(f"worker-{region}-{number}")
            for number in range(MERGERS):
                self.start(f"merger-{number}")
            if self.genesis.is_guided:
                for number in range(GUARDIANS):
                    self.start(f"guardian-{number}")
            self._start_crowd()
            self._plan_faults()
            self._expire()
            self._advance(FAULTY_S)
            self._heal()
            self._drain()
        finally:
            self.defect.remove()
            self.log.away = True  # what is still on its way now came after the end
            for process in list(self.processes.values()):
                process.kill()
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
            asyncio.set_event_loop(None)
            self.loop.close()

    def _advance(self, seconds: float) -> None:
        self.loop.later(seconds, self.loop.stop)
        self.loop.run_forever()
        if self.loop.unhandled:
            raise self.loop.unhandled[0]

    def _heal(self) -> None:
        self.trace("healing")
        self.healthy = True
        self.log.away = False
        self.objects.faults = StoreFaults()
        self._discard()
        for process in self.processes.values():
            if process.paused:
                process.wake()
        # A record that the framework has lost is found by the next one, or at the next rebalance: here is one.
        for group in self.groups.values():
            group.rebalance()
        for member in self.mergers.values():
            member.process.start_task(member.adopt(member.assigned, member.generation + 1))

    def _drain(self) -> None:
        deadline_s = self.loop.now_s + HEALING_S_MAX
        size = -1
        while self.loop.now_s < deadline_s:
            before, size = size, sum(map(len, self.log.records.values()))
            if size == before and not self.undrained():
                return
            self._advance(QUIET_S)
        raise Undrained(
            f"after {HEALING_S_MAX:g} s without faults: {'; '.join(self.undrained()) or 'still growing'}"
        )

    def undrained(self) -> list[str]:
        """What still waits: offsets without a verdict, accepted updates of which no version says what became, barriers."""
        found = []
        accepted = 0
        for region, partition in self.genesis.slots:
            records = self.log.records[updates_topic(TASK, region), partition]
            verdicts = {}
            for record in self.log.records[verdicts_topic(TASK, region), partition]:
                verdict = decode_verdict(record.value or b"")
                verdicts[verdict.offset] = verdict.outcome
            if missing := set(range(len(records))) - verdicts.keys():
                found.append(f"{region}[{partition}] has no verdict on {sorted(missing)[:5]}")
            accepted += sum(outcome == ACCEPTED for outcome in verdicts.values())
        version = self.versions
        manifests = [self.objects.objects[manifest_key(TASK, number + 1)] for number in range(version)]
        made = [decode_manifest(data) for data in manifests]
        merged = sum(one.accepted + one.dropped for one in made)
        if merged != accepted:
            found.append(f"{accepted} updates are accepted, {merged} are in versions")
        if model_key(TASK, version) not in self.objects.objects:
            found.append(f"version {version} has no model")
        return found


class Undrained(AssertionError):
    """After healing, something never came to its end."""
