"""The processes of a simulated federation: workers, mergers, guardians and devices, killed and started again.

All that they run is production's: ``RegionWorker``, ``MergeLoop``, ``Device``; what it is told of the outside world is
the simulation's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aggregation.errors import FluvialError
from backends.settings import Settings, StoreSettings
from backends.store.task_store import TaskStore
from schemas.topics import aggregates_topic, updates_topic
from stream_apps.merger.loop import MergeLoop
from stream_apps.merger.merger import Merger
from stream_apps.process_context import ProcessContext
from stream_apps.worker.region import RegionWorker
from tests import factories
from tests.simulation.crowd import Followed, SimulatedDevice
from tests.simulation.framework import Group, Member
from tests.simulation.guardian import SimulatedGuardian
from tests.simulation.keys import remembering
from tests.simulation.memory_log import MemoryReader, MemoryWriter, Place, seeded
from tests.simulation.memory_store import MemoryStore
from tests.simulation.scenario import EPOCH_MS, PARTITIONS, TASK
from tests.simulation.scheduler import Killed, Process, SimulatedClock

if TYPE_CHECKING:
    from backends.log import LogRecord
    from tests.simulation.federation import Federation

WORKERS = 2
MERGERS = 2
GUARDIANS = 2
UNTOUCHED = ("creator", "crowd")
"""Processes that no fault strikes."""
TICK_EVERY_S = 0.8
MERGE_EVERY_S = 0.6
RESTART_S_MAX = 4.0
SETTINGS = Settings(
    home=Path("/nowhere"),
    bootstrap_servers="simulated:9092",
    store=StoreSettings(kind="file", path=Path("/nowhere")),
)


class Staff:
    """All processes by their names, the consumer groups of the workers, and the mergers."""

    def __init__(self, federation: Federation) -> None:
        self._federation = federation
        self._incarnations = 0
        self.processes: dict[str, Process] = {}
        self.mergers: dict[str, Member] = {}
        self.groups = {
            region: Group(
                [(updates_topic(TASK, region), number) for number in range(count)],
                seeded(federation.seed, f"group {region}"),
                federation.trace,
            )
            for region, count in PARTITIONS.items()
        }

    def hire(self) -> None:
        """Start every worker and merger, the guardians of a guided task, and the devices."""
        for region in PARTITIONS:
            for number in range(WORKERS):
                self.start(f"worker-{region}-{number}")
        for number in range(MERGERS):
            self.start(f"merger-{number}")
        for number in range(GUARDIANS if self._federation.genesis.is_guided else 0):
            self.start(f"guardian-{number}")
        self._start_crowd()

    def process(self, name: str) -> Process:
        """A new process of that name, in the place of an earlier one."""
        self._incarnations += 1
        run = self._federation
        random = seeded(run.seed, f"{name} {self._incarnations}")
        process = Process(run.loop, random, name, run.trace)
        process.before_effect = self._maybe_crash
        self.processes[name] = process
        return process

    def store(self, process: Process) -> TaskStore:
        """The task's store, as a process reaches it."""
        return TaskStore(MemoryStore(process, self._federation.objects), TASK)

    def _maybe_crash(self, process: Process, what: str) -> None:
        run = self._federation
        if run.healthy or process.name in UNTOUCHED or process.rng.random() >= run.strikes.crashing:
            return
        run.strikes.count("kill")
        run.trace(process.name, "dies at", what)
        self.restart(process.name)
        raise Killed

    def restart(self, name: str) -> None:
        """Kill -9, and start again after a while."""
        self.processes[name].kill()
        down_s = self._federation.strikes.rng.random() ** 2 * RESTART_S_MAX
        self._federation.loop.later(down_s, lambda: self.start(name))

    def start(self, name: str) -> None:
        """Start a process by its name: ``worker-<region>-<n>``, ``merger-<n>`` or ``guardian-<n>``."""
        self._federation.trace("start", name)
        process = self.process(name)
        if name.startswith("worker"):
            self._start_worker(process, name.split("-")[1])
        elif name.startswith("guardian"):
            self._start_guardian(process)
        else:
            self._start_merger(process)

    def kill_all(self) -> None:
        """Kill every process; nothing starts again."""
        for process in list(self.processes.values()):
            process.kill()

    def _context(self, process: Process, signer: Any, name: str) -> ProcessContext:
        run = self._federation
        return ProcessContext.of(
            genesis=run.genesis,
            store=self.store(process),
            writer=MemoryWriter(process, run.log, refused=lambda: self._refused(process)),
            key_pair=signer,
            name=name,
            open_reader=lambda _purpose: MemoryReader(process, run.log),
            trust=run.trust,
            clock=SimulatedClock(process, EPOCH_MS / 1000),
        )

    def _refused(self, process: Process) -> float:
        run = self._federation
        return 0.0 if run.healthy or not process.name.startswith("worker") else run.strikes.refusing

    def _member(self, process: Process) -> Member:
        run = self._federation
        member = Member(process, run.log, faithful=lambda: run.healthy)

        def failed(error: Exception) -> None:
            run.trace(process.name, "ends:", error)
            run.ended.append(f"{process.name}: {error}")
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
            self._federation.trace(process.name, "resumes at", dict(offsets))
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
        places = [(aggregates_topic(TASK, region), n) for region, n in self._federation.genesis.slots]
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
        guardian = SimulatedGuardian(
            self._context(process, signer, process.name), process, self._federation.log
        )
        process.start_task(guardian.live(self._member(process).failed))

    def _start_crowd(self) -> None:
        run = self._federation
        process = self.process("crowd")
        followed = Followed(process, run.log, run.genesis, run.trust)
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
                        run.genesis,
                        followed,
                        self.store(process),
                        run.log,
                        settings=SETTINGS,
                        unsure=lambda: 0.0 if run.healthy else run.strikes.unsure,
                        epoch_s=EPOCH_MS / 1000,
                        acknowledge=run.acknowledge,
                    )
                    life = process.thread(lambda device=device: device.live(lambda: not run.healthy))  # type: ignore[misc]
                    process.watch(life)
                number += 1
