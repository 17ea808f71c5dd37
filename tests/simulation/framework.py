"""What Faust and the consumer group do to the workers and mergers, as a model that a seed drives.

Partitions move when a member dies, sleeps longer than the session, or joins; agents are cancelled in the middle of a
portion when they do; records come in portions that were fetched before, some twice, some not at all; a member that
slept goes on with what it had. Group offsets are committed too, and are advice to nobody, as in production.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from aggregation.errors import FluvialError
from backends.log import LogRecord
from tests.simulation.scheduler import Process

if TYPE_CHECKING:
    import random

    from tests.simulation.memory_log import MemoryLog, Place

SESSION_TIMEOUT_S = 6.0
HEARTBEAT_S = 1.5
FETCH_RECORDS_MAX = 6
AWAY_S = 0.3
DROPPED = 0.01
REPEATED = 0.03
OLD_REPEATED = 0.01

Deliver = Callable[[list[LogRecord]], Awaitable[None]]
Resume = Callable[[Iterable["Place"]], Awaitable[Mapping["Place", int]]]


class Member:
    """A process's consumer: what it is assigned, and the task for each partition that feeds its agent."""

    def __init__(self, process: Process, log: MemoryLog, *, faithful: Callable[[], bool]) -> None:
        self.process = process
        self.log = log
        self.assigned: frozenset[Place] = frozenset()
        self.generation = -1
        self.resume: Resume
        self.deliver: Deliver
        self.failed: Callable[[Exception], None]
        self.committed: dict[Place, int] = {}
        self._faithful = faithful
        self._feeding: dict[Place, asyncio.Task[None]] = {}
        self._rebalancing = asyncio.Lock()

    async def adopt(self, places: frozenset[Place], generation: int) -> None:
        """A rebalance, as its member sees it: agents are cancelled, then every partition is sought anew."""
        async with self._rebalancing:
            if generation >= self.generation:
                await self._adopt(places, generation)

    async def _adopt(self, places: frozenset[Place], generation: int) -> None:
        for task in self._feeding.values():
            task.cancel()
        if self._feeding:
            await asyncio.wait(list(self._feeding.values()))
        self._feeding = {}
        self.assigned, self.generation = places, generation
        try:
            offsets = await self.resume(sorted(places))
        except FluvialError as error:
            self.failed(error)
            return
        for place in sorted(places):
            start = offsets.get(place, self.committed.get(place, 0))
            self._feeding[place] = asyncio.create_task(self._feed(place, start))

    async def _feed(self, place: Place, offset: int) -> None:
        """Fetch, buffer, deliver: the agent of one partition."""
        rng = self.process.rng
        try:
            while True:
                await self.process.sleep(self.process.latency_s())
                await self.log.more(place, offset, self.process)
                if self.log.away:
                    await self.process.sleep(AWAY_S)
                    continue
                fetched = self.log.records[place][offset : offset + FETCH_RECORDS_MAX]
                taken = fetched[: rng.randint(1, FETCH_RECORDS_MAX)]
                portion = [one for record in taken for one in self._as_delivered(record, rng)]
                offset += len(taken)
                if portion:
                    await self.deliver(portion)
                self.committed[place] = offset
        except (FluvialError, ArithmeticError, LookupError, ValueError, TypeError, AssertionError) as error:
            self.failed(error)

    def _as_delivered(self, record: LogRecord, rng: random.Random) -> list[LogRecord]:
        chance = rng.random()
        if self._faithful() or chance > DROPPED + REPEATED + OLD_REPEATED:
            return [record]
        if chance < DROPPED:
            return []
        if chance < DROPPED + REPEATED:
            return [record, record]
        records = self.log.records[record.topic, record.partition]
        return [records[rng.randint(0, record.offset)], record]


class Group:
    """A consumer group: who is alive in it, and who has which partition."""

    def __init__(self, places: list[Place], rng: random.Random, trace: Callable[..., None]) -> None:
        self.places = places
        self.members: list[Member] = []
        self._seen: dict[Member, float] = {}
        self._rng = rng
        self._trace = trace
        self._generation = 0

    def join(self, member: Member) -> None:
        """A process starts."""
        self.members.append(member)
        self._seen[member] = member.process.loop.now_s
        self.rebalance()
        self._beat(member)

    def _beat(self, member: Member) -> None:
        """A heartbeat. It comes too late from a process that slept: then it joins anew."""
        if member not in self.members:
            self.join(member)
            return
        self._seen[member] = member.process.loop.now_s
        member.process.later(HEARTBEAT_S, lambda: self._beat(member))

    def expire(self, now_s: float) -> None:
        """Put out those who have not been heard of for a session; call it now and then."""
        silent = [one for one in self.members if now_s - self._seen[one] > SESSION_TIMEOUT_S]
        for one in silent:
            self._trace("group puts out", one.process.name)
            self.members.remove(one)
        if silent:
            self.rebalance()

    def leave(self, member: Member) -> None:
        """A process that was restarted under the same name takes its own place."""
        if member in self.members:
            self.members.remove(member)

    def rebalance(self) -> None:
        """Share the partitions out anew. Who does not hear of it goes on as before, until it wakes."""
        self._generation += 1
        if not self.members:
            return
        shares: dict[Member, set[Place]] = {member: set() for member in self.members}
        order = self._rng.sample(self.members, len(self.members))
        for number, place in enumerate(self.places):
            shares[order[number % len(order)]].add(place)
        for member, share in shares.items():
            self._tell(member, frozenset(share), self._generation)

    def _tell(self, member: Member, places: frozenset[Place], generation: int) -> None:
        def hear() -> None:
            if generation == self._generation:
                member.process.start_task(member.adopt(places, generation))

        member.process.later(member.process.latency_s(), hear)
