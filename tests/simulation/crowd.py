"""The devices of a simulated federation, and an intruder who may write to every topic and has no key."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from aggregation.errors import ConnectionProblem, IntegrityProblem, TimeoutProblem
from aggregation.policy import SelectionPolicy, WeightsPolicy
from producers.sdk.bases import Base, Bases
from producers.sdk.device import Device, Receipt
from producers.sdk.updates import Author, Contribution
from schemas.certificates import Role
from schemas.records import Announcement, Unverified, announcement_in
from schemas.topics import aggregates_topic, models_topic, updates_topic
from tests import factories
from tests.simulation.keys import remembering
from tests.simulation.memory_log import MemoryLog, MemoryWriter
from tests.simulation.scheduler import Process, SimulatedClock

if TYPE_CHECKING:
    import random

    from backends.store.task_store import TaskStore
    from schemas.certificates import Trust
    from schemas.manifests import Genesis

POLL_S = 0.6
ROUND_S = 0.8
STALE, TWICE = 0.15, 0.1
SAT_OUT = 0.3
"""How often a device sits a version out and answers it with the next, where that is more than its share."""
EVERYBODY, ALIKE = SelectionPolicy(), WeightsPolicy()
UNASKED = 0.5
"""How often a device answers a version without asking whether it is selected."""
EXAMPLES_MAX = 40
Acknowledge = Callable[[str, str, Receipt], None]


class Followed:
    """Announcements as devices follow them: ``believe`` decides, the highest version counts."""

    def __init__(self, process: Process, log: MemoryLog, genesis: Genesis, trust: Trust) -> None:
        self._process = process
        self._log = log
        self._genesis = genesis
        self._trust = trust
        self._latest: dict[str, Announcement] = {}

    def wait_for(self, region: str, version: int, timeout_s: float) -> Announcement:
        deadline_s = self._process.loop.now_s + timeout_s
        while True:
            latest = self._latest.get(region)
            if latest is not None and latest.version >= version:
                return latest
            if self._process.loop.now_s > deadline_s:
                raise TimeoutProblem("FLV-2502", f"version {version} was not announced to {region}")
            self._process.block(POLL_S)

    async def follow(self) -> None:
        """Take every record of the models topic, as it comes."""
        place, offset = (models_topic(self._genesis.task), 0), 0
        while True:
            await self._log.more(place, offset, self._process)
            for record in self._log.records[place][offset:]:
                offset = record.offset + 1
                one = announcement_in(record.value, record.timestamp_ms, self._trust)
                if isinstance(one, Unverified) or not one.belongs_to(
                    self._genesis.task, self._genesis.regions
                ):
                    continue
                known = self._latest.get(one.region)
                if known is None or one.version > known.version:
                    self._latest[one.region] = one


def _cohort_of(device_id: str) -> str:
    """What its certificate names: one of the policy's, or nothing."""
    return ("old", "away", "old", "")[sum(device_id.encode()) % 4]


class SimulatedDevice:
    """One device for the length of a run: fetch, train, publish, again and again; unsure means again."""

    def __init__(
        self,
        process: Process,
        device_id: str,
        region: str,
        genesis: Genesis,
        followed: Followed,
        store: TaskStore,
        log: MemoryLog,
        *,
        settings: Any,
        unsure: Callable[[], float],
        epoch_s: float,
        acknowledge: Acknowledge,
    ) -> None:
        clock = SimulatedClock(process, epoch_s)
        self._process = process
        self._bases: list[Base] = []
        self._waiting: list[Base] = []
        self._policy = genesis.first_policy
        self._acknowledge = acknowledge
        self._region = region
        cohort = _cohort_of(device_id) if self._policy.knows_cohorts else ""
        uris = factories.names_of(region, Role.DEVICE, device_id, cohort)
        signer = remembering(factories.device_signer(device_id, region, uris=uris).of_task(genesis.domain))
        author = Author(genesis, region, device_id, signer, cohort=cohort)
        writer = MemoryWriter(process, log, unsure=unsure)
        bases = Bases(store, genesis, clock=clock)
        self.device = Device(
            settings, author, bases=bases, writer=writer, announcements=cast("Any", followed), clock=clock
        )

    def live(self, going_on: Callable[[], bool]) -> None:
        """Blocking: rounds until ``going_on`` says otherwise."""
        rng, version = self._process.rng, -1
        while going_on():
            try:
                base = self.device.fetch(newer_than=version, timeout_s=4.0)
            except (TimeoutProblem, IntegrityProblem):
                continue
            version = base.version
            self._bases.append(base)
            self._process.block(rng.random() ** 2 * ROUND_S)
            chosen = rng.choice(self._bases) if rng.random() < STALE else base
            if self._policy.selection != EVERYBODY and self._sits_out(base, rng):
                continue
            if self._policy.counts_shares and rng.random() < SAT_OUT:
                self._waiting.append(base)
                continue
            for one in [*self._waiting, *[chosen] * (2 if rng.random() < TWICE else 1)]:
                self._publish(one, rng)
            self._waiting.clear()

    def _sits_out(self, base: Base, rng: random.Random) -> bool:
        return not self.device.is_selected(base) and rng.random() > UNASKED

    def _publish(self, base: Base, rng: random.Random) -> None:
        generator = np.random.default_rng(rng.getrandbits(32))
        layout = self.device.author.genesis.tensor_layout
        delta = generator.normal(0.05, 0.2, layout.parameters)
        delta[layout.trainable.parameters : layout.model_parameters] **= 2  # variances, on every scale
        counted = self._policy.weights != ALIKE
        examples = int(generator.integers(0, EXAMPLES_MAX)) if counted else 10
        outcome = Contribution(delta.astype(np.float32), num_examples=examples, loss=0.5)
        while True:
            try:
                receipt = self.device.publish(base, outcome)
            except (ConnectionProblem, TimeoutProblem):
                self._process.block(rng.random())
                continue  # as its documentation says: a second copy is a duplicate
            self._acknowledge(self.device.device_id, self._region, receipt)
            return


class Intruder:
    """Copies what stands in the logs to where it does not belong, and writes what is nothing."""

    def __init__(self, log: MemoryLog, genesis: Genesis, rng: random.Random) -> None:
        self._log = log
        self._rng = rng
        task = genesis.task
        self._updates = [(updates_topic(task, region), n) for region, n in genesis.slots]
        self._aggregates = [(aggregates_topic(task, region), n) for region, n in genesis.slots]
        self._models = (models_topic(task), 0)

    def act(self) -> str:
        """One act; returns what it was."""
        rng = self._rng
        kind = rng.choice(("copy update", "copy update", "replay", "junk", "copy aggregate", "announcement"))
        if kind == "copy update":
            self._copy(rng.choice(self._updates), rng.choice(self._updates))
        elif kind == "replay":
            place = rng.choice(self._updates)
            self._copy(place, place)
        elif kind == "copy aggregate":
            self._copy(rng.choice(self._aggregates), rng.choice(self._aggregates))
        elif kind == "announcement":
            self._copy(self._models, self._models)
        else:
            place = rng.choice([*self._updates, *self._aggregates, self._models])
            self._log.append(place, None, rng.randbytes(rng.randint(0, 40)))
        return kind

    def _copy(self, source: tuple[str, int], target: tuple[str, int]) -> None:
        records = self._log.records[source]
        if records:
            record = self._rng.choice(records)
            self._log.append(target, record.key, record.value or b"")
