"""The local stack as one object: `LocalStack(home).up()` gives settings of a running Kafka and object store.

`up` may be repeated at any time: it starts what does not run, leaves alone what does, and heals what a crash,
a reboot or another program's port left behind. Whatever ends `up` early also ends what this `up` had started.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec
import psutil

from aggregation.errors import (
    ConnectionProblem,
    EnvironmentProblem,
    FluvialError,
    TimeoutProblem,
    UsageProblem,
)
from backends.settings import (
    UPDATE_BYTES_MAX_DEFAULT,
    Settings,
    StackFile,
    credentials_path,
    file_store_path,
    load_settings,
    read_stack_file,
    resolve_home,
    stack_path,
)
from fluvial.local import downloads, files, ports, tools
from fluvial.local.kafka import KafkaBroker, Listener
from fluvial.local.minio import MinioServer
from fluvial.local.prometheus import NOT_INSTALLED, PrometheusServer, find_prometheus
from fluvial.terminal.output import Reporter, quiet_output

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fluvial.local.process import Daemon

StoreChoice = Literal["auto", "minio", "file"]
ServiceName = Literal["kafka", "minio"]
_PORT_ATTEMPTS_MAX = 3
_PORTS = ("kafka_port", "controller_port", "store_port", "prometheus_port")


@dataclass(frozen=True)
class ServiceStatus:
    """One part of the stack: `state` is running, stopped, or dead (should run and does not)."""

    name: str
    state: Literal["running", "stopped", "dead"]
    address: str
    pid: int | None = None


@dataclass(frozen=True, kw_only=True)
class StackPlan:
    """What a stack has beside the ordinary: data on other disks, listeners behind proxies, rules of one's own.

    It is not recorded in the home: whoever calls `up` or `start` again gives it again.
    """

    kafka_data: Path | None = None
    minio_data: Path | None = None
    listeners: tuple[Listener, ...] = ()
    prometheus_rules: Path | None = None


class LocalStack:
    """Kafka and the object store of one home folder."""

    def __init__(
        self,
        home: Path | None = None,
        store: StoreChoice = "auto",
        reporter: Reporter | None = None,
        update_bytes_max: int | None = None,
        *,
        plan: StackPlan | None = None,
        with_prometheus: bool = False,
    ) -> None:
        """Describe the stack. `update_bytes_max` None keeps what the home has, at first 8 MiB."""
        plan = plan or StackPlan()
        self.home = resolve_home(home)
        self._choice: StoreChoice = store
        self._reporter: Reporter = reporter or quiet_output()
        self._update_bytes_max = update_bytes_max
        self._kafka = KafkaBroker(self.home, plan.kafka_data, plan.listeners)
        self._minio = MinioServer(self.home, plan.minio_data)
        self._with_prometheus = with_prometheus
        self._prometheus = PrometheusServer(self.home, plan.prometheus_rules)

    def up(self) -> Settings:
        """Start whatever does not run and return how to reach it.

        Raises:
            EnvironmentProblem: FLV-1004 to 1008, 1011, 1013 to 1015: this machine lacks something, with the
            remedy. TimeoutProblem: FLV-1009, FLV-1016. UsageProblem: FLV-1010, the home has its data in
            another store.
        """
        files.prepare_home(self.home)
        with files.locked(self.home, self._reporter):
            before = read_stack_file(self.home)
            state = self._planned(before)
            java = tools.require_java().path
            jars = downloads.kafka_jars(self._reporter)
            binary = downloads.minio_binary(self._reporter) if state.store_kind == "minio" else None
            started: list[Daemon] = []
            try:
                if binary is not None:
                    state = self._up_minio(state, binary, started)
                state = self._up_kafka(state, java, jars, started)
                state = self._up_prometheus(state, started)
                # Inside the guard: a stack that nothing describes would be an orphan.
                files.write_stack_file(self.home, msgspec.structs.replace(state, running=True))
            except BaseException:
                self._undo(started)
                raise
        return load_settings(self.home, environ={})

    def down(self, *, delete_data: bool = False) -> list[str]:
        """Stop what `up` started: the names of what was stopped. Data stays, unless it is to be deleted.

        Raises:
            TimeoutProblem: FLV-1012, FLV-1016.
        """
        if not self.home.is_dir():
            return []
        files.prepare_home(self.home)
        with files.locked(self.home, self._reporter):
            stopped = [daemon.name for daemon in self._daemons() if daemon.stop(self._reporter)]
            state = read_stack_file(self.home)
            if state is not None and state.running:
                files.write_stack_file(
                    self.home, msgspec.structs.replace(state, running=False, prometheus=False)
                )
            if delete_data:
                self._delete_data()
        return stopped

    def status(self) -> list[ServiceStatus]:
        """What runs and where."""
        state = read_stack_file(self.home)
        if state is None:
            return [ServiceStatus("kafka", "stopped", ""), ServiceStatus("store", "stopped", "")]
        kafka = self._service("kafka", self._kafka.daemon, f"{ports.LOOPBACK}:{state.kafka_port}", state)
        if state.store_kind == "file":
            running: Literal["running", "stopped"] = "running" if state.running else "stopped"
            store = ServiceStatus("file store", running, str(file_store_path(self.home)))
        else:
            store = self._service("minio", self._minio.daemon, f"{ports.LOOPBACK}:{state.store_port}", state)
        return [kafka, store, *self._prometheus_status(state)]

    def _prometheus_status(self, state: StackFile) -> list[ServiceStatus]:
        """Nothing where nobody asked for it."""
        daemon = self._prometheus.daemon
        if not state.prometheus and daemon.process() is None:
            return []
        return [self._service("prometheus", daemon, f"{ports.LOOPBACK}:{state.prometheus_port}", state)]

    def kill(self, name: ServiceName) -> None:
        """SIGKILL one service, as a crash would; the stack still counts as up. For fault tests.

        Raises:
            ConnectionProblem: FLV-1001, it does not run.
        """
        if not self._daemon(name).kill():
            raise _not_running(name)

    def end(self) -> None:
        """SIGKILL every service, paused ones too. For a stack whose data is thrown away."""
        for daemon in self._daemons():
            daemon.kill()
            daemon.pid_path.unlink(missing_ok=True)

    def pause(self, name: ServiceName) -> int:
        """SIGSTOP one service; returns its pid. For fault tests; ConnectionProblem FLV-1001 when it does not run."""
        process = self._daemon(name).process()
        if process is None:
            raise _not_running(name)
        process.suspend()
        return int(process.pid)

    def resume(self, name: ServiceName) -> None:
        """SIGCONT; nothing happens to a service that was not paused, or has ended."""
        process = self._daemon(name).process()
        if process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def pid(self, name: ServiceName) -> int | None:
        """The process id of one service; None when it does not run."""
        process = self._daemon(name).process()
        return int(process.pid) if process is not None else None

    def start(self, name: ServiceName) -> None:
        """Start one service again where it was, and wait for it. For fault tests.

        Raises:
            ConnectionProblem: FLV-1001, the stack has never been up. And what `up` raises.
        """
        with files.locked(self.home, self._reporter):
            state = read_stack_file(self.home)
            if state is None:
                raise _not_running(name)
            if name == "kafka":
                state = self._up_kafka(
                    state, tools.require_java().path, downloads.kafka_jars(self._reporter), []
                )
            else:
                state = self._up_minio(state, downloads.minio_binary(self._reporter), [])
            files.write_stack_file(self.home, state)

    def _planned(self, before: StackFile | None) -> StackFile:
        kind = self._store_kind(before)
        state = before or StackFile(store_kind=kind)
        limit = self._update_bytes_max or state.update_bytes_max or UPDATE_BYTES_MAX_DEFAULT
        try:
            return msgspec.convert(
                {**msgspec.to_builtins(state), "store_kind": kind, "update_bytes_max": limit}, StackFile
            )
        except msgspec.ValidationError as error:
            raise UsageProblem(
                "FLV-1002",
                f"setting update_bytes_max: {error}, got {limit}",
                hint="give a number of bytes, such as `fluvial up --update-bytes-max 8388608`",
            ) from None

    def _store_kind(self, before: StackFile | None) -> Literal["minio", "file"]:
        if before is None:
            if self._choice != "auto":
                return self._choice
            problem = tools.go_problem()
            if problem and not downloads.minio_binary_path().is_file():
                self._reporter.say(f"store: {problem} to build MinIO with; a file store takes its place")
                return "file"
            return "minio"
        if self._choice not in {"auto", before.store_kind}:
            raise UsageProblem(
                "FLV-1010",
                f"this home has its objects in the {before.store_kind} store, not in {self._choice}",
                where=str(self.home),
                hint="take another home with `--home DIR`, or begin anew with `fluvial down --delete-data`",
            )
        return before.store_kind

    def _up_minio(self, state: StackFile, binary: Path, started: list[Daemon]) -> StackFile:
        credentials, new = files.ensure_credentials(self.home)
        daemon = self._minio.daemon
        if daemon.process() is not None:
            if state.running and not new:
                self._minio.wait_ready(state, credentials, self._reporter)
                self._reporter.say(
                    f"MinIO   {ports.LOOPBACK}:{state.store_port} runs already (pid {_pid(daemon)})"
                )
                return state
            # From an `up` that was killed, or with keys that nobody has any more.
            daemon.stop(self._reporter)

        def attempt(state: StackFile) -> None:
            started.append(daemon)
            self._minio.start(state, credentials, binary)
            self._minio.wait_ready(state, credentials, self._reporter)

        return self._on_free_ports("MinIO", ("store_port",), state, attempt, daemon)

    def _up_kafka(self, state: StackFile, java: str, jars: Path, started: list[Daemon]) -> StackFile:
        daemon = self._kafka.daemon
        if daemon.process() is not None:
            recorded = read_stack_file(self.home)
            known = state.running and recorded is not None
            if known and recorded is not None and recorded.update_bytes_max == state.update_bytes_max:
                self._kafka.wait_ready(state, self._reporter)
                self._reporter.say(
                    f"Kafka   {ports.LOOPBACK}:{state.kafka_port} runs already (pid {_pid(daemon)})"
                )
                return state
            if known:
                self._reporter.say(f"Kafka: restarting it, updates may now be {state.update_bytes_max} bytes")
            daemon.stop(self._reporter)

        def attempt(state: StackFile) -> None:
            started.append(daemon)
            self._kafka.start(state, java, jars, self._reporter)
            self._kafka.wait_ready(state, self._reporter)

        state = self._on_free_ports("Kafka", ("kafka_port", "controller_port"), state, attempt, daemon)
        return msgspec.structs.replace(state, cluster_id=self._kafka.cluster_id())

    def _up_prometheus(self, state: StackFile, started: list[Daemon]) -> StackFile:
        """Never fails: what only watches keeps nothing from running."""
        daemon, server = self._prometheus.daemon, self._prometheus
        if not self._with_prometheus and not state.prometheus:
            return state
        program = find_prometheus()
        if program is None:
            self._reporter.say(NOT_INSTALLED)
            return msgspec.structs.replace(state, prometheus=False)
        state = msgspec.structs.replace(state, prometheus=True)
        address = f"{ports.LOOPBACK}:{state.prometheus_port}"
        if daemon.process() is not None:
            if ports.is_listening(state.prometheus_port):
                self._reporter.say(f"Prometheus http://{address} runs already (pid {_pid(daemon)})")
                return state
            daemon.kill()

        def attempt(state: StackFile) -> None:
            started.append(daemon)
            server.start(state.prometheus_port, program)
            server.wait_ready(state.prometheus_port, self._reporter)

        try:
            return self._on_free_ports("Prometheus", ("prometheus_port",), state, attempt, daemon)
        except (EnvironmentProblem, TimeoutProblem) as error:
            daemon.kill()
            self._reporter.say(_runs_without(error))
            return state

    def _on_free_ports(
        self,
        label: str,
        names: tuple[str, ...],
        state: StackFile,
        attempt: Callable[[StackFile], None],
        daemon: Daemon,
    ) -> StackFile:
        """Start on the recorded ports if they are free, else on others; again if somebody was faster."""
        for last in [False] * (_PORT_ATTEMPTS_MAX - 1) + [True]:
            state = self._with_free_ports(label, names, state)
            try:
                attempt(state)
            except EnvironmentProblem:
                taken = [getattr(state, name) for name in names if not ports.is_free(getattr(state, name))]
                if last or not taken or daemon.process() is not None:
                    raise
                self._reporter.say(f"{label}: port {taken[0]} was taken meanwhile, choosing another")
            else:
                break
        address = f"{ports.LOOPBACK}:{getattr(state, names[0])}"
        self._reporter.say(f"{label:<7} {address} is up (pid {_pid(daemon)})")
        return state

    def _with_free_ports(self, label: str, names: tuple[str, ...], state: StackFile) -> StackFile:
        chosen = {name: getattr(state, name) for name in _PORTS}
        for name in names:
            before = chosen.pop(name)
            chosen[name] = ports.choose(before, avoid=frozenset(chosen.values()))
            if before and chosen[name] != before:
                self._reporter.say(
                    f"{label}: port {before} is taken by another program, using {chosen[name]}"
                )
        return msgspec.structs.replace(state, **chosen)

    def _undo(self, started: list[Daemon]) -> None:
        for daemon in started:
            daemon.kill()
            daemon.pid_path.unlink(missing_ok=True)

    def _delete_data(self) -> None:
        for path in (self._home_folder("data"), self._home_folder("config"), self._home_folder("logs")):
            shutil.rmtree(path, ignore_errors=True)
        for path in (stack_path(self.home), credentials_path(self.home)):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    def _home_folder(self, name: str) -> Path:
        return self.home / name

    def _daemons(self) -> list[Daemon]:
        return [self._kafka.daemon, self._minio.daemon, self._prometheus.daemon]

    def _daemon(self, name: ServiceName) -> Daemon:
        return self._kafka.daemon if name == "kafka" else self._minio.daemon

    def _service(self, name: str, daemon: Daemon, address: str, state: StackFile) -> ServiceStatus:
        process = daemon.process()
        if process is not None:
            return ServiceStatus(name, "running", address, process.pid)
        return ServiceStatus(name, "dead" if state.running else "stopped", address)


def _pid(daemon: Daemon) -> int:
    process = daemon.process()
    return process.pid if process is not None else 0


def _runs_without(error: FluvialError) -> str:
    return f"warning[FLV-7021]: the stack runs without Prometheus: {error.error_id}: {error.message}\n  {error.where}"


def _not_running(name: str) -> ConnectionProblem:
    return ConnectionProblem(
        "FLV-1001", f"{name} of the local stack does not run", hint="start it with `fluvial up`"
    )
