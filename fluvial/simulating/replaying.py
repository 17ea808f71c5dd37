"""A real run's arrivals, trained and merged anew in this process: the same task file and policy give the same models.

::

    arrivals        who came when, on which base (``arrivals``); every record that is no trained update, as it stood
    train           the task's own training, anew, by the seed, split and base of the run
    fold, merge     the workers' and the merger's own loops (``InProcessFederation``), from the task's genesis on
    compare         each update's numbers, each version's model and optimizer state, by their hashes

Barriers and ticks are the recorded ones, so windows close where they closed. Which windows a version takes is what a
merger decided by its clock, so that is recorded, too. All else is derived. Workers, merger and devices of this process
have no keys: its own trust takes them at their word, and nothing outside of it does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from aggregation.errors import FluvialError, IntegrityProblem, UsageProblem
from aggregation.fold.events import Barrier
from backends.log import LogRecord, Position
from backends.memory.clock import ManualClock
from backends.memory.log import MemoryReader, MemoryWriter
from backends.memory.store import MemoryStore
from backends.store.task_store import TaskStore
from fluvial.session.in_process import InProcessFederation, memory_log_of
from fluvial.simulating.arrivals import record_digest, refused
from fluvial.simulating.signing import MARK, NOBODY, Believing
from fluvial.simulating.training import Failed, Job, Split
from fluvial.simulating.work import AHEAD_A_PROCESS
from producers.fleet.population import device_name
from producers.sdk.bases import Bases
from producers.sdk.private_layers import PrivateLayers
from producers.sdk.updates import Author, honest_record, seal_update
from schemas.certificates import CONTROL, Identity, Role
from schemas.checkpoints import encode_model, encode_optimizer
from schemas.envelope import KeyPair
from schemas.objects import sha256_hex
from schemas.records import Announcement, decode_record
from schemas.topics import aggregates_topic, updates_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from aggregation.server.aggregates import Slot
    from backends.log import Headers
    from fluvial.simulating.arrivals import Arrival, Arrivals, Chosen
    from fluvial.simulating.training import Trained, Trainers
    from learning import Task
    from producers.sdk.bases import Base
    from schemas.manifests import Genesis

PART: Final = b"fluvial/replayed-part/v1\0"
_FOREVER_MS: Final = 1 << 62


class Replaying(Believing):
    """The trust of a genesis, which takes this process' workers and merger at their word, too."""

    def identify(
        self, der: bytes, *, guardians: bool = True, cohorts: bool = True, edges: bool | None = None
    ) -> Identity:
        """See ``Trust``; what begins with ``PART`` is a part of this process."""
        if not der.startswith(PART):
            return super().identify(der, guardians=guardians, cohorts=cohorts, edges=edges)
        role, region, name = der[len(PART) :].decode().split("/")
        key = cast("Ed25519PublicKey", NOBODY)
        return Identity(region, Role(role), name, name, 0, _FOREVER_MS, key)


class _Writer(MemoryWriter):
    """What the merger tells partitions stands in their logs already, as it was recorded: it is written nowhere."""

    def __init__(self, log: Any, heard: frozenset[str]) -> None:
        super().__init__(log)
        self._heard = heard

    def append_now(
        self,
        topic: str,
        value: bytes,
        *,
        key: bytes | None = None,
        partition: int = -1,
        headers: Headers = (),
    ) -> Position:
        """See ``RecordWriter``."""
        if topic in self._heard:
            return Position(topic, max(partition, 0), 0)
        return super().append_now(topic, value, key=key, partition=partition, headers=headers)


@dataclass(frozen=True, slots=True)
class Replayed:
    """A version that came to what was recorded. ``updates``: trained for it and for those before."""

    version: int
    model_sha256: str
    updates: int


def replay(
    arrivals: Arrivals,
    task: Task,
    trainers: Trainers,
    *,
    versions: int | None = None,
    on_version: Callable[[Replayed], None] = lambda _: None,
) -> list[Replayed]:
    """Train, fold and merge ``arrivals`` anew, to version ``versions`` or to the last one.

    ``trainers`` train ``task``. Raises UsageProblem FLV-2270 (the arrivals name what cannot be), FLV-2271 (the task
    file is not the run's, or an update is not what it trains); IntegrityProblem FLV-2272 (a version comes to something
    else); EnvironmentProblem FLV-6452; what stops a partition.
    """
    return asyncio.run(_Replay(arrivals, task, trainers).run(versions, on_version))


class _Replay:
    def __init__(self, arrivals: Arrivals, task: Task, trainers: Trainers) -> None:
        self._arrivals = arrivals
        self._genesis = genesis = arrivals.genesis_document()
        self._trust = Replaying.of(genesis.trust)
        self._waiting: dict[Slot, deque[tuple[int, Arrival]]] = {
            (one.region, one.partition): deque(enumerate(one.records)) for one in arrivals.partitions
        }
        newest_ms = max((one.at_ms for part in arrivals.partitions for one in part.records), default=0)
        self._clock = ManualClock(newest_ms / 1000)
        self._log = memory_log_of(genesis, self._clock)
        self._store = _first_version(genesis, task, arrivals.seed)
        heard = frozenset(updates_topic(genesis.task, region) for region in genesis.regions)
        self._federation = InProcessFederation(
            genesis,
            self._store,
            writer=_Writer(self._log, heard),
            open_reader=lambda _purpose: MemoryReader(self._log),
            workers={region: _part(Role.WORKER, region, f"worker-{region}") for region in genesis.regions},
            merger=_part(Role.MERGER, CONTROL, "merger"),
            clock=self._clock,
            trust=self._trust,
        )
        bases = Bases(self._store, genesis, clock=self._clock)
        self._devices = _Devices(arrivals, bases, self._trust, task=task, trainers=trainers)
        self._updates = 0

    async def run(self, versions: int | None, on_version: Callable[[Replayed], None]) -> list[Replayed]:
        await self._federation.resume_workers()
        self._federation.merger.resume()
        made: list[Replayed] = []
        for chosen in self._arrivals.versions[:versions]:
            await self._fold_until_barrier(chosen.version)
            self._merge(chosen)
            self._devices.models[chosen.version] = chosen.model_sha256
            made.append(Replayed(chosen.version, chosen.model_sha256, self._updates))
            on_version(made[-1])
        return made

    # -- folding

    async def _fold_until_barrier(self, version: int) -> None:
        """All that stands before the Barrier of ``version``, partition by partition, trained ahead where it can be."""
        ahead = []
        for slot, waiting in self._waiting.items():
            while waiting and self._barrier_version(waiting[0][1]) < version:
                ahead.append((slot, *waiting.popleft()))
        begun = self._devices.begun([one for _, _, one in ahead])
        for (slot, offset, arrival), (base, training) in zip(ahead, begun, strict=True):
            await self._fold(slot, offset, arrival, base, training)

    def _barrier_version(self, arrival: Arrival) -> int:
        """The version of an authentic Barrier; -1 for any other record."""
        if arrival.value is None:
            return -1
        event = decode_record(arrival.value, arrival.at_ms, self._trust, self._genesis.first_policy)
        return event.version if isinstance(event, Barrier) else -1

    async def _fold(
        self, slot: Slot, offset: int, arrival: Arrival, base: Base | None, training: Any
    ) -> None:
        region, partition = slot
        value = arrival.value
        if value is None:
            assert base is not None
            where = f"{region}[{partition}]@{offset}"
            value = self._devices.update(arrival, region, base, training, where)
            self._updates += 1
        topic = updates_topic(self._genesis.task, region)
        record = LogRecord(
            topic, partition, offset, arrival.at_ms, arrival.device.encode() or None, value, ()
        )
        self._log.load(record)
        worker = self._federation.workers[region]
        await worker.process(record)
        stopped = worker.partitions[partition].stopped
        if stopped is not None:
            raise stopped
        self._log.forget_before(topic, partition, offset)

    # -- merging

    def _merge(self, chosen: Chosen) -> None:
        merger = self._federation.merger
        for region, partition, sequence in chosen.windows:
            topic = aggregates_topic(self._genesis.task, region)
            if sequence >= self._log.end(topic, partition):
                raise _another(
                    chosen.version, f"window {sequence} of {region}[{partition}] did not close before it"
                )
            merger.offer(self._log.record(topic, partition, sequence), region)
        self._clock.sleep(self._genesis.first_policy.buffer.seconds_max)
        merger.merge_if_due()
        if merger.head.number != chosen.version:
            raise _another(chosen.version, "its windows make no version under the policy")
        manifest = self._store.manifest(chosen.version)
        taken = tuple((one.region, one.partition, one.sequence) for one in manifest.inputs)
        if sorted(taken) != sorted(chosen.windows):
            raise _another(
                chosen.version, f"it takes {len(taken)} windows, {len(chosen.windows)} are recorded"
            )
        for what in ("model_sha256", "optimizer_sha256"):
            got, recorded = getattr(manifest, what), getattr(chosen, what)
            if got != recorded:
                raise _another(chosen.version, f"its {what} is {got}, recorded is {recorded}")


class _Devices:
    """Who trains: the fleet of the run, by the seed and the split that it had."""

    def __init__(
        self, arrivals: Arrivals, bases: Bases, trust: Believing, *, task: Task, trainers: Trainers
    ) -> None:
        from learning.control import asks_for_control
        from learning.parts import device_ids

        self._genesis = genesis = bases.genesis
        self._bases = bases
        self._trust = trust
        self._trainers = trainers
        self._split = Split(arrivals.devices, arrivals.alpha, arrivals.seed)
        self._config = task.config
        names = device_ids(task.data(), arrivals.devices)
        names = names or [device_name(index) for index in range(arrivals.devices)]
        self._index: Mapping[str, int] = {name: index for index, name in enumerate(names)}
        self.models = {0: genesis.model_sha256}
        """Of the versions that are made."""
        self._private = PrivateLayers()
        one_by_one = trainers.processes == 1 or task.private or asks_for_control(task.config.extra)
        self._ahead = 0 if one_by_one else AHEAD_A_PROCESS * trainers.processes

    def begun(self, arrivals: list[Arrival]) -> Any:
        """(base, what ``update`` wants) of each in order, with so many begun ahead; (None, None) for other records."""
        under_way: deque[tuple[Base | None, Future[Trained | Failed] | None]] = deque()
        for arrival in arrivals:
            base = self._base(arrival) if arrival.value is None else None
            begins = base is not None and self._ahead > 0
            under_way.append((base, self._trainers.begin(self._job(arrival, base)) if begins else None))  # type: ignore[arg-type]
            if len(under_way) > self._ahead:
                yield under_way.popleft()
        yield from under_way

    def update(self, arrival: Arrival, region: str, base: Base, training: Any, where: str) -> bytes:
        """The update of ``arrival``, trained anew. UsageProblem FLV-2271: it is another one than was recorded."""
        done = self._trainers.end(self._job(arrival, base), training)
        if isinstance(done, Failed):
            raise _not_the_same(f"{arrival.device} fails to train: {done.message} ({done.error_id})", where)
        pair = KeyPair(MARK + f"{region}//{arrival.device}".encode(), NOBODY)
        author = Author(
            self._genesis, region, arrival.device, pair.of_task(self._trust.domain), self._split.seed
        )
        try:
            record = honest_record(
                author,
                base,
                self._bases.layout,
                codec=arrival.codec,
                outcome=done,
                created_at_ms=arrival.at_ms,
            )
        except FluvialError as error:
            raise _not_the_same(f"{arrival.device}: {error.message} ({error.error_id})", where) from error
        if record_digest(record) != arrival.digest:
            raise _not_the_same(
                f"what {arrival.device} trains from version {base.version} is not what it sent in the run",
                where,
            )
        self._private.keep(arrival.device, done.private)
        return seal_update(author, record)

    def _base(self, arrival: Arrival) -> Base:
        sha256 = self.models.get(arrival.base)
        if sha256 is None:
            raise refused(f"an update answers version {arrival.base}, which is not made before it")
        genesis = self._genesis
        return self._bases.announced(
            Announcement(genesis.task, "", arrival.base, "", sha256, genesis.first_policy.sha256)
        )

    def _job(self, arrival: Arrival, base: Base) -> Job:
        index = self._index.get(arrival.device)
        if index is None:
            raise _not_the_same(
                f"{arrival.device} is none of the {self._split.devices} devices that the run dealt its data to",
                "",
            )
        config = self._config.at(seed=(self._split.seed << 20) + index, version=base.version)
        return Job(self._split, index, base.parameters, config, self._private.of(arrival.device))


def _part(role: Role, region: str, name: str) -> KeyPair:
    return KeyPair(PART + f"{role.value}/{region}/{name}".encode(), NOBODY)


def _first_version(genesis: Genesis, task: Task, seed: int) -> TaskStore:
    """A store with version 0, made of the task file. UsageProblem FLV-2271: it makes another first model."""
    from aggregation.optimizers import initial_state
    from learning.binding import anatomy_for, first_parameters, model_entry
    from learning.tensors import first_model

    drawn = first_model(task, seed)
    anatomy = anatomy_for(genesis.format, task, drawn)
    layout, (entry, frozen) = anatomy.task_layout, model_entry(anatomy)
    model = encode_model(first_parameters(task, drawn, anatomy), layout)
    optimizer = encode_optimizer(initial_state(genesis.first_policy.server, layout.trainable.parameters))
    if (sha256_hex(model), entry) != (genesis.model_sha256, genesis.model):
        raise _not_the_same(
            f"the first model of {genesis.task} is not the one that {task.path} makes with seed {seed}", ""
        )
    store = TaskStore(MemoryStore(), genesis.task)
    for data in (genesis.first_policy.canonical(), *((frozen,) if frozen is not None else ())):
        store.put_object(data)
    store.commit(0, genesis.canonical())
    store.write_checkpoint(0, model, optimizer)
    return store


def _not_the_same(why: str, where: str) -> UsageProblem:
    return UsageProblem(
        "FLV-2271",
        f"this task file does not make the recorded run: {why}",
        where=where,
        hint="take the file, the `--set`, the torch and the machine of the run; attackers are in no task file. "
        "`fluvial audit` proves any run from its own records",
    )


def _another(version: int, why: str) -> IntegrityProblem:
    return IntegrityProblem(
        "FLV-2272",
        f"version {version} comes to something else than was recorded: {why}",
        hint="`fluvial audit` says whether the recorded run itself is what its logs say; if it is, report this",
    )
