"""One simulated federation: its task, its processes, and the faults that strike them. ``run`` is one schedule.

Everything that is not the outside world is production's code: ``RegionWorker``, ``MergeLoop``, ``Device``, the fold,
the merge, the store's layout, the signatures.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aggregation.fold import state as partition_state
from aggregation.fold.rejections import ACCEPTED
from aggregation.server.lateness import lateness_under
from fluvial.proof.checker import fold as checker_fold
from schemas.manifests import decode_manifest
from schemas.objects import manifest_key, model_key, optimizer_key, sha256_hex
from schemas.records import Unverified, aggregate_in
from schemas.topics import aggregates_topic, models_topic, topics_of, updates_topic, verdicts_topic
from schemas.verdicts import decode_verdict
from stream_apps.worker import merged_windows
from tests import factories
from tests.simulation.defect import Defect
from tests.simulation.memory_log import MemoryLog, seeded
from tests.simulation.memory_store import MemoryObjects, StoreFaults
from tests.simulation.pardoner import Pardoner
from tests.simulation.policies import policy_of
from tests.simulation.scenario import EPOCH_MS, PARTITIONS, TASK, genesis_of, layout_of, trust_of
from tests.simulation.scheduler import VirtualLoop
from tests.simulation.staff import Staff
from tests.simulation.strikes import FAULTY_S, Strikes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aggregation.server.aggregates import Aggregate, Slot
    from producers.sdk.device import Receipt

QUIET_S = 1.5
HEALING_S_MAX = 90.0

merged_windows.RECORDS_FOLDED_AGAIN = 8  # type: ignore[misc] # else no run is long enough to go on from a window


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
    acknowledged: list[Acknowledged] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        random.seed(self.seed)  # tenacity's back-off draws from the global generator
        self.loop = VirtualLoop()
        self.policy = policy_of(self.seed)
        self.layout = layout_of(self.policy)
        self.genesis, model, optimizer = genesis_of(self.policy)
        self.genesis_sha256 = self.genesis.sha256
        self.trust = trust_of(self.policy)
        topics = topics_of(TASK, PARTITIONS, guided=self.genesis.is_guided)
        self.log = MemoryLog(self.loop, {topic.name: topic.partitions for topic in topics}, EPOCH_MS)
        self.objects = MemoryObjects(self.loop)
        self.defect = Defect(self.log, self.genesis, self.trust, seeded(self.seed, "defect"))
        self.healthy = False
        self.staff = Staff(self)
        self.strikes = Strikes(self)
        # Every fourth run forgets its oldest bases for lack of room.
        for bounded in (partition_state, checker_fold):
            setattr(bounded, "COUNTED_MAX", 3 if self.seed % 4 == 0 else 1_000_000)  # noqa: B010 (it is final)
        self._create(model, optimizer)

    def trace(self, *what: object) -> None:
        """Note an event, for whoever reproduces the run."""
        if self.trace_lines is not None:
            self.trace_lines.append(f"{self.loop.now_s:9.4f} " + " ".join(map(str, what)))

    def _create(self, model: bytes, optimizer: bytes) -> None:
        process = self.staff.process("creator")
        store = self.staff.store(process)
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

    def acknowledge(self, device: str, region: str, receipt: Receipt) -> None:
        """Note that a device was told that its update is safe."""
        one = Acknowledged(region, receipt.partition, receipt.offset, receipt.update_id, device)
        self.acknowledged.append(one)

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
            self.objects.faults = self.strikes.store
            self.defect.install()
            self.staff.hire()
            self.strikes.plan()
            if self.policy.knows_pardons:
                Pardoner(self).look_on()
            self._expire()
            self._advance(FAULTY_S)
            self._heal()
            self._drain()
        finally:
            self.defect.remove()
            self.log.away = True  # what is still on its way now came after the end
            self.staff.kill_all()
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
            asyncio.set_event_loop(None)
            self.loop.close()

    def _expire(self) -> None:
        for group in self.staff.groups.values():
            group.expire(self.loop.now_s)
        self.loop.later(1.0, self._expire)

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
        self.strikes.discard()
        for process in self.staff.processes.values():
            if process.paused:
                process.wake()
        # A record that the framework has lost is found by the next one, or at the next rebalance: here is one.
        for group in self.staff.groups.values():
            group.rebalance()
        for member in self.staff.mergers.values():
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

    def _waiting(self, cursors: Mapping[str, tuple[int, ...]]) -> list[Aggregate]:
        """The published windows that no version holds."""
        found: dict[tuple[Slot, int], Aggregate] = {}
        for slot in self.genesis.slots:
            region, partition = slot
            after = cursors[region][partition] if cursors else 0
            for record in self.log.records[aggregates_topic(TASK, region), partition]:
                one = aggregate_in(record.value, record.timestamp_ms, self.trust, TASK, slot)
                told = (aggregates_topic(TASK, region), partition), record.offset
                if (
                    not isinstance(one, Unverified)
                    and one.sequence >= after
                    and told not in self.strikes.liar.told
                ):
                    found[slot, one.sequence] = one
        return list(found.values())

    def undrained(self) -> list[str]:
        """What still waits: offsets without a verdict, accepted updates of which no version says what became."""
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
        waiting = self._waiting(made[-1].cursors if made else {})
        if merged + sum(one.accepted for one in waiting) != accepted:
            found.append(f"{accepted} updates are accepted, {merged} are in versions")
        # What comes after its round waits for an update that counts; those who count, for their quorum.
        if lateness_under(self.policy, version).updates_of(waiting) >= self.policy.buffer.quorum:
            found.append(f"windows of {sum(one.accepted for one in waiting)} updates wait")
        files = (
            {}
            if not made
            else {
                model_key(TASK, version): made[-1].model_sha256,
                optimizer_key(TASK, version): made[-1].optimizer_sha256,
            }
        )
        for key, sha256 in files.items():
            if sha256_hex(self.objects.objects.get(key, b"")) != sha256:  # there may be a planted one
                found.append(f"{key} is not written yet")
        return found


class Undrained(AssertionError):
    """After healing, something never came to its end."""
