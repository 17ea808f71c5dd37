"""One task under watch: its threads, and what they know, as one frozen ``Known`` whenever it is asked for."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from aggregation.errors import UsageProblem
from backends.tasks import TaskFile, read_task_file, task_names
from fluvial.console.bounded import Newest
from fluvial.console.follow import Follower, open_follow
from fluvial.console.limits import FIRST_LOOK_S, TASKS_MAX
from fluvial.console.looks import (
    LogSeen,
    Process,
    StoreSeen,
    open_log_look,
    open_process_look,
    open_store_look,
)
from fluvial.console.recent import Recent, SlotFacts
from fluvial.console.samples import Reached, Sample, Samples
from fluvial.console.threads import NOT_ASKED, Looker, Seen
from fluvial.reading.audit_history import AuditRecord, history_path, read_history

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from aggregation.server.aggregates import Slot
    from schemas.manifests import Genesis

JOIN_S: Final = 2.0
_FIRST_LOOK_EVERY_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Known:
    """Everything that is known of a task at ``at_ms``. ``samples`` and ``audits`` are oldest first."""

    at_ms: int
    task: str
    store: Seen[StoreSeen]
    kafka: Seen[LogSeen]
    processes: Seen[tuple[Process, ...]]
    samples: list[Sample]
    audits: tuple[AuditRecord, ...] = ()

    @property
    def head(self) -> int | None:
        """The newest version; None before the store has answered."""
        return self.store.value.head if self.store.value else None

    @property
    def genesis(self) -> Genesis | None:
        """Version 0's document."""
        return self.store.value.genesis if self.store.value else None

    @property
    def now(self) -> dict[Slot, Reached]:
        """How far every partition is."""
        return dict(self.samples[-1].slots) if self.samples else {}


class Watch:
    """Follows one task until ``end``."""

    def __init__(self, home: Path, file: TaskFile) -> None:
        self.home = home
        self.file = file
        self.recent: Recent | None = None
        self._follower: Follower | None = None
        self._samples = Samples()
        self._ended = threading.Event()
        self._audits: tuple[int, tuple[AuditRecord, ...]] = (0, ())
        task = file.task
        self.store = Looker("store", self._open_store)
        self.kafka = Looker("kafka", self._open_kafka)
        self.processes = Looker("processes", lambda: open_process_look(home, task, lambda: file.regions))
        self.follow = Looker(
            "follower", lambda: open_follow(home, lambda: self._follower, self._goes_on()), every_s=0.0
        )

    @property
    def task(self) -> str:
        """The task's name."""
        return self.file.task

    def start(self) -> None:
        """Start the threads."""
        for looker in self._lookers:
            looker.start()

    def end(self) -> None:
        """Ask them to end; does not wait."""
        self._ended.set()
        for looker in self._lookers:
            looker.end()

    def join(self, deadline_s: float) -> None:
        """Wait for them until then; one that waits for somebody who does not answer ends with the process."""
        for looker in self._lookers:
            looker.join(max(0.0, deadline_s - time.monotonic()))

    def known(self) -> Known:
        """What is known now."""
        kafka, follow = self.kafka.seen, self.follow.seen
        if not kafka.reason and follow.reason and follow.reason != NOT_ASKED:
            kafka = replace(kafka, reason=f"its topics cannot be followed: {follow.reason}")
        return Known(
            round(time.time() * 1000),
            self.task,
            self.store.seen,
            kafka,
            self.processes.seen,
            self._samples.all(),
            self._history(),
        )

    async def looked(self) -> None:
        """Wait until store and log were asked once, at most ``FIRST_LOOK_S``: before that nothing can be answered."""
        end_s = time.monotonic() + FIRST_LOOK_S
        # A look is a thread's; an event of its own would cost a thread more for everybody who waits.
        while NOT_ASKED in {self.store.seen.reason, self.kafka.seen.reason} and time.monotonic() < end_s:  # noqa: ASYNC110
            await asyncio.sleep(_FIRST_LOOK_EVERY_S)

    def _history(self) -> tuple[AuditRecord, ...]:
        """The audits that are kept, read again when the file is another."""
        try:
            stamp = history_path(self.home, self.task).stat().st_mtime_ns
        except OSError:
            return ()
        if self._audits[0] != stamp:
            self._audits = stamp, tuple(read_history(self.home, self.task, self.file.genesis_sha256))
        return self._audits[1]

    @property
    def _lookers(self) -> tuple[Looker[Any], ...]:
        return self.store, self.kafka, self.processes, self.follow

    def _goes_on(self) -> Callable[[], bool]:
        """Follow on until the end, or until the look at Kafka had to open again: then so has the follower."""
        opened = self.kafka.opened
        return lambda: not self._ended.is_set() and self.kafka.opened == opened

    @contextlib.contextmanager
    def _open_store(self) -> Iterator[Callable[[], StoreSeen]]:
        with open_store_look(self.home, self.task, self.file.genesis_sha256) as look:

            def looked() -> StoreSeen:
                seen = look()
                if self._follower is None:
                    self.recent = Recent({slot: SlotFacts() for slot in seen.genesis.slots})
                    self._follower = Follower(self.task, seen.genesis, self.recent)
                return seen

            yield looked

    @contextlib.contextmanager
    def _open_kafka(self) -> Iterator[Callable[[], LogSeen]]:
        def genesis() -> Genesis | None:
            return self.store.seen.value.genesis if self.store.seen.value else None

        with open_log_look(self.home, self.task, genesis, lambda: self.recent) as look:

            def looked() -> LogSeen:
                seen = look()
                self._sample(seen)
                return seen

            yield looked

    def _sample(self, seen: LogSeen) -> None:
        store, recent, follower = self.store.seen.value, self.recent, self._follower
        if store is None or recent is None or not seen.ends or follower is None or not follower.caught_up:
            return
        merged = store.manifest.slot_cursors if store.manifest else {}
        with recent.lock:
            slots = {
                slot: Reached(
                    seen.ends[slot], facts.folded_to, facts.sealed_to, facts.windows, merged.get(slot, 0)
                )
                for slot, facts in recent.slots.items()
            }
        self._samples.add(Sample(round(time.time() * 1000), slots, store.head))


class Watches:
    """The tasks that are followed: each from the first time somebody asks for it, at most ``TASKS_MAX``."""

    def __init__(self, home: Path, only: str | None = None) -> None:
        self.home = home
        self._only = only
        self._lock = threading.Lock()
        self._watches: Newest[str, Watch] = Newest(TASKS_MAX + 1)

    def names(self) -> list[str]:
        """The tasks that this machine knows, the newest last; with ``--task`` the one."""
        names = task_names(self.home)
        return names if self._only is None else [name for name in names if name == self._only]

    def files(self) -> list[TaskFile]:
        """Their files, as far as they can be read, the newest last."""
        found: list[TaskFile] = []
        for name in self.names():
            with contextlib.suppress(UsageProblem):  # damaged, or gone since: ``fluvial doctor`` says so
                found.append(read_task_file(self.home, name))
        return found

    def genesis_of(self, task: str) -> str:
        """The genesis document's hash that this machine trusts for a task. UsageProblem FLV-2401, FLV-2402."""
        return read_task_file(self.home, task).genesis_sha256

    def get(self, task: str) -> Watch:
        """The watch of a task, begun now if need be. UsageProblem FLV-2401 where this machine knows no such task."""
        name = task if self._only is None or task == self._only else self._only
        file = read_task_file(self.home, task if name == task else f"{task} (only {name} is shown)")
        leaving: list[Watch] = []
        with self._lock:
            watch = self._watches.get(task)
            if watch is None or watch.file.genesis_sha256 != file.genesis_sha256:
                leaving += [watch] if watch is not None else []
                watch = Watch(self.home, file)
                watch.start()
            self._watches.put(task, watch)
            if len(self._watches) > TASKS_MAX:
                oldest = next(iter(self._watches))
                found = self._watches.pop(oldest)
                leaving += [found] if found is not None else []
        for one in leaving:
            one.end()
        return watch

    def all(self) -> list[Watch]:
        """Those that are followed now."""
        with self._lock:
            return [watch for _, watch in self._watches.items()]

    def end(self) -> None:
        """End all."""
        for watch in self.all():
            watch.end()
        deadline_s = time.monotonic() + JOIN_S
        for watch in self.all():
            watch.join(deadline_s)
