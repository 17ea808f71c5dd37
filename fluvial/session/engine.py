"""A federation on a clock of its own: a crowd of devices, the real loops over memory, and what comes of both.

::

    crowd.begin         who starts a round now, from the version that its region was told of
    crowd.play_until    time goes on to a moment that the crowd named, and what ends by then appends to the log
    fold, tick, settle  the workers' and the merger's own loops (``in_process``), under the whole policy
    the versions that are new

Nothing here decides anything. ``fluvial run --simulate`` brings a fleet; ``fluvial simulate`` brings devices that are
arithmetic.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from backends import keys
from backends.memory.clock import ManualClock
from backends.memory.log import MemoryReader, MemoryWriter
from backends.memory.store import MemoryStore
from backends.observer import UNOBSERVED, Observer
from backends.store.task_store import TaskStore
from fluvial.local.create import MERGER, worker_name
from fluvial.session.evaluating import evaluated
from fluvial.session.in_process import InProcessFederation, memory_log_of
from producers.sdk.bases import Bases
from schemas.certificates import CONTROL as CONTROL_REGION
from schemas.certificates import Role
from schemas.checkpoints import decode_model
from schemas.objects import model_key
from schemas.records import Announcement, announcement_in
from schemas.topics import models_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy.typing as npt

    from fluvial.local.create import FirstVersion
    from learning import Examples, Task
    from schemas.certificates import Trust
    from schemas.manifests import Manifest

TICK_S: Final = 0.25
"""How often the workers look at the clock, in seconds of it."""


class Crowd(Protocol):
    """The devices of one simulation. What they append, they append to the engine's log, at the times of its clock."""

    def begin(self, announced: Mapping[str, Announcement]) -> None:
        """Start the rounds that can be started now; ``announced`` is each region's newest version."""
        ...

    def next_moment(self) -> float:
        """To where the clock goes next, in its seconds. Raises what says that nothing more can come."""
        ...

    def play_until(self, now_s: float) -> None:
        """Move the clock on to ``now_s`` and append what ends on the way."""
        ...


class _WakefulClock(ManualClock):
    """Time goes on by what the crowd does alone."""

    def sleep(self, seconds: float) -> None:
        """Memory has no outages: who waits for one to end waits for what nothing can bring. A defect."""
        message = f"somebody sleeps for {seconds} s in a simulation: what is missing there never comes"
        raise AssertionError(message)


class Engine:
    """A task's federation over memory: clock, log, store, and the loops. ``folder`` has the task's keys.

    ``trust`` and ``observer`` are for the workers; else the genesis' CAs and nobody.
    """

    def __init__(
        self,
        first: FirstVersion,
        folder: Path,
        *,
        trust: Trust | None = None,
        observer: Observer = UNOBSERVED,
    ) -> None:
        self.genesis = genesis = first.genesis
        # A whole second: how time stamps are rounded must not depend on the moment of the run.
        self.clock = _WakefulClock(float(int(time.time())))
        self.objects = MemoryStore()
        self.store = TaskStore(self.objects, genesis.task)
        first.write(self.store)
        self.log = memory_log_of(genesis, self.clock)
        self.federation = InProcessFederation(
            genesis,
            self.store,
            writer=MemoryWriter(self.log),
            open_reader=lambda _purpose: MemoryReader(self.log),
            workers={
                region: keys.load_key_pair(keys.signer_path(folder, region, Role.WORKER, worker_name(region)))
                for region in genesis.regions
            },
            merger=keys.load_key_pair(keys.signer_path(folder, CONTROL_REGION, Role.MERGER, MERGER)),
            clock=self.clock,
            trust=trust,
            observer=observer,
        )
        self.bases = Bases(self.store, genesis, clock=self.clock)
        self.announced: dict[str, Announcement] = {}
        self.heard = 0
        """The offset of the models topic before which all is heard."""

    @property
    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC by the clock."""
        return round(self.clock.time() * 1000)

    @property
    def head(self) -> int:
        """The newest version's number."""
        return self.federation.merger.head.number

    async def play(self, crowd: Crowd, told: Callable[[], bool]) -> None:
        """Go on until ``told``, which is called whenever the loops have settled, says that it is enough."""
        await self.federation.start()
        self._hear()
        while not told():
            crowd.begin(self.announced)
            crowd.play_until(crowd.next_moment())
            await self.federation.fold()
            await self.federation.tick()
            await self.federation.settle()
            self._hear()

    def _hear(self) -> None:
        """What the merger has announced."""
        genesis, topic = self.genesis, models_topic(self.genesis.task)
        end = self.log.end(topic, 0)
        for record in MemoryReader(self.log).read(topic, 0, self.heard, end):
            announcement = announcement_in(record.value, record.timestamp_ms, self.federation.trust)
            if isinstance(announcement, Announcement) and announcement.belongs_to(
                genesis.task, genesis.regions
            ):
                self.announced[announcement.region] = announcement
        self.heard = end


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """One version. ``metrics`` are those of the held-out examples, ``step_norm`` the L2 norm of its weights' step.

    ``problem``: why ``evaluate()`` gave no finite loss, at the user's line; "" where it did.
    """

    version: int
    metrics: Mapping[str, float]
    step_norm: float
    updates: int
    staleness_mean: float
    model_sha256: str
    problem: str = ""


class Evaluations:
    """Evaluates the versions of an engine, in order. ``parameters`` float32[P]: the last one's model, flat."""

    def __init__(self, engine: Engine, first: FirstVersion, task: Task, held_out: Examples) -> None:
        self._engine = engine
        self._task = task
        self._held_out = held_out
        self.parameters: npt.NDArray[np.float32] = decode_model(first.model, engine.genesis.tensor_layout)[
            : engine.genesis.tensor_layout.model_parameters
        ]

    def of(self, number: int) -> VersionFacts:
        """The facts of version ``number``."""
        manifest: Manifest = self._engine.store.manifest(number)
        data = self._engine.objects.get(model_key(self._task.name, number))
        layout = self._engine.bases.layout
        parameters = decode_model(data, layout)[: layout.model_parameters]
        weights = slice(layout.trainable.parameters)
        step = parameters[weights].astype(np.float64) - self.parameters[weights].astype(np.float64)
        self.parameters = parameters
        metrics, problem = evaluated(self._task, parameters, self._held_out)
        return VersionFacts(
            version=number,
            metrics=metrics,
            step_norm=float(np.linalg.norm(step)),
            updates=manifest.accepted,
            staleness_mean=manifest.staleness_total / manifest.accepted,
            model_sha256=manifest.model_sha256,
            problem=problem,
        )
