"""The looks at the store, at Kafka and at the processes: small, bounded, and the same every second."""

from __future__ import annotations

import contextlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import urllib3

from backends.environment import load_settings
from backends.kafka.admin import BrokerProbe
from backends.kafka.consumer_groups import Group, describe_groups
from backends.kafka.diagnosis import refusal
from backends.kafka.reading import LogReader
from backends.object_store import ObjectStore
from backends.store.factory import open_object_store
from backends.store.task_store import TaskStore
from fluvial.console.budget import Budget, PagedLog, PagedStore
from fluvial.console.limits import (
    BROKER_ANSWER_S,
    GROUPS_EVERY_S,
    HEAD_PROBES_MAX,
    MANIFESTS_KEPT,
    PORT_ANSWER_S,
    PROCESSES_MAX,
    SLOW_LOOKS_MAX,
)
from fluvial.console.problems import away
from fluvial.processes.metrics_server import REGION_LABEL, targets_folder
from schemas.manifests import Genesis, Manifest, decode_manifest
from schemas.objects import manifest_key, sha256_hex
from schemas.topics import updates_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from aggregation.server.aggregates import Slot
    from fluvial.console.recent import Recent

_SCRAPERS: Final = 8
_SLOW: Final = "slow"
"""What a process is that has its port and has not answered yet."""
_REASON_BYTES: Final = 300


@dataclass(frozen=True, slots=True)
class Made:
    """One version as its manifest has it."""

    version: int
    sha256: str
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class StoreSeen:
    """The newest version and the manifests before it, at most ``MANIFESTS_KEPT``, ascending."""

    genesis: Genesis
    head: int
    made: tuple[Made, ...]
    created_at_ms: int | None

    @property
    def manifest(self) -> Manifest | None:
        """The head's; None for version 0."""
        return self.made[-1].manifest if self.made else None


@dataclass(frozen=True, slots=True)
class LogSeen:
    """Where every updates partition ends, since when (ms) its oldest unjudged record waits, and who works."""

    ends: dict[Slot, int]
    waiting_since_ms: dict[Slot, int]
    groups: tuple[Group, ...]


@dataclass(frozen=True, slots=True)
class Process:
    """One process with a metrics port. ``state``: ready, starting, draining or gone."""

    role: str
    name: str
    region: str | None
    state: str
    reason: str
    port: int

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "role": self.role,
            "name": self.name,
            "region": self.region,
            "state": self.state,
            "reason": self.reason,
            "port": self.port,
        }


@dataclass
class StoreLook:
    """Finds the head from the last one known upwards, and reads each new manifest once."""

    store: ObjectStore
    task: str
    genesis_sha256: str
    seen: StoreSeen | None = None

    def __call__(self) -> StoreSeen:
        """One look: a single question to the store while nothing is new."""
        paged = TaskStore(PagedStore(self.store, Budget(objects_max=HEAD_PROBES_MAX)), self.task)
        known = self.seen
        genesis = known.genesis if known else paged.genesis(self.genesis_sha256)
        head = known.head if known else 0
        if paged.store.exists(manifest_key(self.task, head + 1)):
            found = paged.head(head + 1)
            head = found.version if found is not None else head
        if known is None or head != known.head:
            known = StoreSeen(genesis, head, self._made(paged, head), self._created(paged, head))
            self.seen = known
        return known

    def _made(self, paged: TaskStore, head: int) -> tuple[Made, ...]:
        known = {one.version: one for one in self.seen.made} if self.seen else {}
        versions = range(max(1, head - MANIFESTS_KEPT + 1), head + 1)
        return tuple(known.get(version) or _made(paged, version) for version in versions)

    @staticmethod
    def _created(paged: TaskStore, head: int) -> int | None:
        return paged.created_at_ms(head)


def _made(paged: TaskStore, version: int) -> Made:
    data = paged.manifest_bytes(version)
    return Made(version, sha256_hex(data), decode_manifest(data))


@contextlib.contextmanager
def open_store_look(home: Path, task: str, genesis_sha256: str) -> Iterator[StoreLook]:
    """For a ``Looker``."""
    yield StoreLook(open_object_store(load_settings(home).store), task, genesis_sha256)


@dataclass
class LogLook:
    """Asks the broker whether it answers, where the logs end, and now and then who has joined."""

    settings: Any
    task: str
    genesis: Callable[[], Genesis | None]
    recent: Callable[[], Recent | None]
    reader: LogReader
    probe: BrokerProbe
    groups: tuple[Group, ...] = ()
    groups_due_s: float = 0.0
    waiting: dict[Slot, tuple[int, int]] = field(default_factory=dict)

    def __call__(self) -> LogSeen:
        """One look; ConnectionProblem FLV-3100 where the broker does not answer soon."""
        if not self.probe.answers(BROKER_ANSWER_S):
            raise refusal(self.settings) or away(
                "kafka", f"no broker answers at {self.settings.bootstrap_servers}"
            )
        genesis, recent = self.genesis(), self.recent()
        if genesis is None or recent is None:
            return LogSeen({}, {}, ())
        if time.monotonic() >= self.groups_due_s:
            names = [f"fluvial-{self.task}-{region}" for region in genesis.partitions]
            self.groups = tuple(describe_groups(self.settings, names))
            self.groups_due_s = time.monotonic() + GROUPS_EVERY_S
        ends = {
            slot: self.reader.bounds(updates_topic(self.task, slot[0]), slot[1])[1] for slot in genesis.slots
        }
        return LogSeen(ends, self._waiting(recent, ends), self.groups)

    def _waiting(self, recent: Recent, ends: dict[Slot, int]) -> dict[Slot, int]:
        """Since when each partition's oldest unjudged record waits; one record is read where that one is new.

        A record that was judged by the next look never costs anything: only what still waits then is read.
        """
        paged = PagedLog(self.reader, Budget(records_max=len(ends)))
        with recent.lock:
            folded = {slot: facts.folded_to for slot, facts in recent.slots.items()}
        now_ms = round(time.time() * 1000)
        waiting: dict[Slot, tuple[int, int]] = {}
        for slot, end in ends.items():
            offset = folded[slot]
            if not 0 <= offset < end:
                continue
            last = self.waiting.get(slot)
            if last is None or last[0] != offset:
                waiting[slot] = (offset, -now_ms)
            elif last[1] < 0:
                found = paged.read(updates_topic(self.task, slot[0]), slot[1], offset, offset + 1)
                waiting[slot] = (offset, found[0].timestamp_ms if found else now_ms)
            else:
                waiting[slot] = last
        self.waiting = waiting
        return {slot: abs(since_ms) for slot, (_, since_ms) in waiting.items()}


@contextlib.contextmanager
def open_log_look(
    home: Path, task: str, genesis: Callable[[], Genesis | None], recent: Callable[[], Recent | None]
) -> Iterator[LogLook]:
    """For a ``Looker``."""
    settings = load_settings(home)
    with LogReader(settings, f"fluvial-console-{task}-looks") as reader:
        yield LogLook(settings, task, genesis, recent, reader, BrokerProbe(settings))


@contextlib.contextmanager
def open_process_look(
    home: Path, task: str, regions: Callable[[], tuple[str, ...]]
) -> Iterator[Callable[[], tuple[Process, ...]]]:
    """For a ``Looker``: what every process of the task that serves metrics answers to /readyz."""
    pool = urllib3.PoolManager(num_pools=PROCESSES_MAX, retries=False, timeout=PORT_ANSWER_S)
    last: dict[_Target, tuple[Process, int]] = {}
    with ThreadPoolExecutor(_SCRAPERS, "console processes") as executor:

        def look() -> tuple[Process, ...]:
            known = regions()
            targets = _targets(home, task)
            found = list(executor.map(lambda one: _ask(pool, one, known), targets))
            shown = [_patient(one, last.get(target)) for target, one in zip(targets, found, strict=True)]
            last.clear()
            last.update(zip(targets, shown, strict=True))
            return tuple(process for process, _ in shown)

        yield look


@dataclass(frozen=True, slots=True)
class _Target:
    role: str
    name: str
    host: str
    port: int
    region: str | None = None


def _targets(home: Path, task: str) -> list[_Target]:
    found: list[_Target] = []
    for path in sorted(targets_folder(home).glob("*.json")):
        # It may go at any moment, and whoever else writes there may leave anything.
        with contextlib.suppress(OSError, ValueError, KeyError, IndexError, TypeError, AttributeError):
            entry = json.loads(path.read_text())[0]
            host, _, port = str(entry["targets"][0]).rpartition(":")
            labels = entry["labels"]
            if labels["task"] == task:
                found.append(
                    _Target(
                        str(labels["role"]),
                        str(labels["process"]),
                        host,
                        int(port),
                        str(labels.get(REGION_LABEL, "")) or None,
                    )
                )
    return found[:PROCESSES_MAX]


def _patient(now: Process, before: tuple[Process, int] | None) -> tuple[Process, int]:
    """(what is shown of a process, how many looks it has been slow): a busy machine makes nobody gone."""
    if now.state != _SLOW:
        return now, 0
    process, looks = before or (replace(now, state="starting"), 0)
    gone = looks + 1 >= SLOW_LOOKS_MAX
    return replace(process, state="gone", reason=now.reason) if gone else process, looks + 1


def _ask(pool: urllib3.PoolManager, target: _Target, regions: tuple[str, ...]) -> Process:
    # One that an older Fluvial started tells its region only by its name, unless it was given another.
    told = target.region if target.region in regions else None
    region = told or next((name for name in regions if f"-{name}-" in f"-{target.name}-"), None)
    try:
        answer = pool.request("GET", f"http://{target.host}:{target.port}/readyz")
    except urllib3.exceptions.HTTPError as error:
        # To urllib3 a port that nobody has is a kind of timeout, too.
        refused = isinstance(error, urllib3.exceptions.NewConnectionError)
        slow = isinstance(error, urllib3.exceptions.TimeoutError) and not refused
        late = f"port {target.port} does not answer" + (f" in {PORT_ANSWER_S:g} s" if slow else "")
        return Process(target.role, target.name, region, _SLOW if slow else "gone", late, target.port)
    text = answer.data[:_REASON_BYTES].decode("utf-8", "replace").strip()
    if answer.status == 200:  # noqa: PLR2004 (HTTP's OK)
        return Process(target.role, target.name, region, "ready", "", target.port)
    state = "draining" if text.startswith("ending") else "starting"
    return Process(target.role, target.name, region, state, text, target.port)
