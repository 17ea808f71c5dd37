"""The parts of a chaos run behind one face: processes, broker and store are killed, paused and started alike."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, Literal, Self

from fluvial.proof.chaos.schedule import BROKER, EVALUATOR, FLEET, SERVICES, STORE, Targets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from fluvial.local.stack import LocalStack
    from fluvial.processes.supervisor import Supervisor
    from schemas.access import AccessRole

MERGERS_WANTED: Final = 2
GUARDIANS_WANTED: Final = 2
_SERVICES: Final[Mapping[str, Literal["kafka", "minio"]]] = {BROKER: "kafka", STORE: "minio"}


class Cast:
    """Who takes part: ``workers`` maps each worker's name to its region."""

    def __init__(
        self,
        regions: Mapping[str, int],
        workers_a_region: int,
        *,
        store: bool,
        broker: bool = True,
        guided: bool = False,
    ) -> None:
        """So many workers in each of ``regions`` (with their partitions), and ``MERGERS_WANTED`` mergers.

        ``store`` False: the store is a folder, no process; ``broker`` False: that is somebody else's. ``guided``: the
        policy is, so that there are ``GUARDIANS_WANTED`` guardians.
        """
        self.ground = tuple(name for name, ours in ((BROKER, broker), (STORE, store)) if ours)
        self.regions = dict(regions)
        self.workers = {
            f"worker-{region}-{number}": region
            for region in sorted(regions)
            for number in range(workers_a_region)
        }
        self.mergers = [f"merger-{number}" for number in range(MERGERS_WANTED)]
        self.guardians = [f"guardian-{number}" for number in range(GUARDIANS_WANTED if guided else 0)]

    @property
    def processes(self) -> list[str]:
        """Every process."""
        return list(self.roles)

    @property
    def roles(self) -> dict[str, AccessRole]:
        """What each process is to Kafka and to the store."""
        roles: dict[str, AccessRole] = dict.fromkeys(self.workers, "worker")
        roles |= dict.fromkeys(self.mergers, "merger")
        roles |= dict.fromkeys(self.guardians, "guardian")
        return {**roles, EVALUATOR: "evaluator", FLEET: "device"}

    def targets(self) -> Targets:
        """Whom faults may hit."""
        return Targets(
            workers=list(self.workers),
            mergers=self.mergers,
            guardians=self.guardians,
            store=STORE in self.ground,
            broker=BROKER in self.ground,
        )

    def names(self, target: str) -> Sequence[str]:
        """The parts that a fault's target means."""
        return self.targets().names(target)


class Parts:
    """The running parts. Use it as a context manager: it has threads that start services."""

    def __init__(self, crew: Cast, stack: LocalStack, supervisor: Supervisor) -> None:
        self.crew = crew
        self._stack = stack
        self._supervisor = supervisor
        self._starts: list[Future[int]] = []
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="service")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and any(not start.done() for start in self._starts):
            # Interrupted while a service starts: nobody waits for it any more, and its thread sees it end.
            self._stack.end()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def start(
        self,
        task: str,
        *,
        fleet: Mapping[str, object],
        environments: Mapping[str, Mapping[str, str]],
        guardian_keys: Mapping[str, Path],
    ) -> None:
        """Start every process.

        ``fleet`` are the options of the fleet, ``environments`` those of each process, ``guardian_keys`` the key of
        each guardian: no two have the same.
        """
        common, supervisor = ("--task", task), self._supervisor
        for name, region in self.crew.workers.items():
            arguments = ["worker", *common, "--region", region, "--name", name]
            supervisor.start(name, arguments, environment=environments.get(name))
        for name in self.crew.mergers:
            supervisor.start(name, ["merger", *common, "--name", name], environment=environments.get(name))
        for name in self.crew.guardians:
            arguments = ["guardian", *common, "--name", name, "--key", str(guardian_keys[name])]
            supervisor.start(name, arguments, environment=environments.get(name))
        supervisor.start(
            EVALUATOR, ["evaluator", *common, "--name", EVALUATOR], environment=environments.get(EVALUATOR)
        )
        options = [str(word) for pair in fleet.items() for word in pair]
        supervisor.start(FLEET, ["fleet", *common, *options], environment=environments.get(FLEET))

    def is_up(self, name: str) -> bool:
        """Whether a part runs at this moment."""
        if name in SERVICES:
            return self._stack.pid(_SERVICES[name]) is not None
        return self._supervisor.running(name)

    def pid(self, name: str) -> int | None:
        """A part's process id; None for a service that does not run."""
        return self._stack.pid(_SERVICES[name]) if name in SERVICES else self._supervisor.pid(name)

    def kill(self, name: str) -> int:
        """SIGKILL; the pid. The part stays down until ``start_again``."""
        if name in SERVICES:
            pid = self._stack.pid(_SERVICES[name]) or 0
            self._stack.kill(_SERVICES[name])
            return pid
        return self._supervisor.kill9(name)

    def pause(self, name: str) -> int:
        """SIGSTOP; the pid."""
        return self._stack.pause(_SERVICES[name]) if name in SERVICES else self._supervisor.pause(name)

    def resume(self, name: str) -> None:
        """SIGCONT."""
        if name in SERVICES:
            self._stack.resume(_SERVICES[name])
        else:
            self._supervisor.resume(name)

    def start_again(self, name: str, *, crash_at: str = "") -> Future[int]:
        """Start a part that is down; its new pid. A service takes some seconds, on a thread."""
        if name in SERVICES:
            start = self._threads.submit(self._start_service, name)
            self._starts = [one for one in self._starts if not one.done()] + [start]
            return start
        # Here and now: Linux ties a child to the thread that started it.
        started: Future[int] = Future()
        started.set_result(self._supervisor.restart(name, crash_at=crash_at))
        return started

    def exit_code(self, name: str) -> int | None:
        """How a process ended; None while it runs."""
        return self._supervisor.exit_code(name)

    def _start_service(self, name: str) -> int:
        self._stack.start(_SERVICES[name])
        return self._stack.pid(_SERVICES[name]) or 0
