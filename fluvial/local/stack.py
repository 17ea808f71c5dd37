"""The local stack as one object: ``LocalStack(home).up()`` gives settings of a running Kafka and object store.

``up`` may be repeated at any time: it starts what does not run, leaves alone what does, and heals what a crash,
a reboot or another program's port left behind. Whatever ends ``up`` early also ends what this ``up`` had started.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import msgspec
import psutil

from aggregation.errors import (
    ConnectionProblem,
    UsageProblem,
)
from backends.environment import load_settings, read_stack_file, resolve_home
from backends.settings import (
    ADMIN,
    UPDATE_BYTES_MAX_DEFAULT,
    Settings,
    StackFile,
    credentials_path,
    file_store_path,
    stack_path,
    store_keys_folder,
    tls_folder,
)
from fluvial.local import downloads, files, ports, tools
from fluvial.local.kafka import KafkaBroker, Listener
from fluvial.local.minio import MinioServer
from fluvial.local.prometheus import PrometheusServer
from fluvial.local.stack_access import permit_known_tasks
from fluvial.local.starting import Starting
from fluvial.local.tool_files import write_tool_files
from fluvial.terminal.output import Reporter, quiet_output

if TYPE_CHECKING:
    from pathlib import Path

    from fluvial.local.process import Daemon

SECURED_DEFAULT: Final = True
"""Of a home that ``fluvial up`` makes."""
StoreChoice = Literal["auto", "minio", "file"]
ServiceName = Literal["kafka", "minio"]


@dataclass(frozen=True)
class ServiceStatus:
    """One part of the stack: ``state`` is running, stopped, or dead (should run and does not)."""

    name: str
    state: Literal["running", "stopped", "dead"]
    address: str
    pid: int | None = None


@dataclass(frozen=True, kw_only=True)
class StackPlan:
    """What a stack has beside the ordinary: data on other disks, listeners behind proxies, rules of one's own.

    It is not recorded in the home: whoever calls ``up`` or ``start`` again gives it again.
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
        secured: bool | None = None,
    ) -> None:
        """Describe the stack. ``update_bytes_max`` None keeps what the home has, at first 8 MiB.

        ``secured``: whether Kafka has mutual TLS and ACLs, and MinIO TLS. None keeps what the home has, at first
        ``SECURED_DEFAULT``.
        """
        plan = plan or StackPlan()
        self.home = resolve_home(home)
        self._choice: StoreChoice = store
        self._reporter: Reporter = reporter or quiet_output()
        self._update_bytes_max = update_bytes_max
        self._secured = secured
        self._kafka = KafkaBroker(self.home, plan.kafka_data, plan.listeners)
        self._minio = MinioServer(self.home, plan.minio_data)
        self._with_prometheus = with_prometheus
        self._prometheus = PrometheusServer(self.home, plan.prometheus_rules)

    def up(self) -> Settings:
        """Start whatever does not run and return how its administrator reaches it.

        Raises EnvironmentProblem: FLV-1004 to 1008, 1011, 1013 to 1015, 1023: this machine lacks something.
        TimeoutProblem: FLV-1009, FLV-1016. UsageProblem: FLV-1010, the home has its data in another store.
        """
        files.prepare_home(self.home)
        ports.require_loopback()
        with files.locked(self.home, self._reporter):
            before = read_stack_file(self.home)
            state = self._planned(before)
            java = tools.require_java().path
            jars = downloads.kafka_jars(self._reporter)
            binary = downloads.minio_binary(self._reporter) if state.store_kind == "minio" else None
            starting = self._starting()
            try:
                if binary is not None:
                    state = starting.minio(self._minio, state, binary)
                state = starting.kafka(self._kafka, state, java, jars)
                if self._with_prometheus or state.prometheus:
                    state = starting.prometheus(self._prometheus, state)
                # Inside the guard: a stack that nothing describes would be an orphan.
                files.write_stack_file(self.home, msgspec.structs.replace(state, running=True))
            except BaseException:
                starting.undo()
                raise
        settings = load_settings(self.home, environ={}, role=ADMIN)
        if state.secured:  # each time: an ``up`` may have ended between the broker's start and this
            write_tool_files(self.home)
            permit_known_tasks(settings)
        return settings

    def down(self, *, delete_data: bool = False) -> list[str]:
        """Stop what ``up`` started: the names of what was stopped. Data stays, unless it is to be deleted.

        Raises TimeoutProblem: FLV-1012, FLV-1016.
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

        Raises ConnectionProblem: FLV-1001, it does not run.
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

        Raises ConnectionProblem: FLV-1001, the stack has never been up. And what ``up`` raises.
        """
        with files.locked(self.home, self._reporter):
            state = read_stack_file(self.home)
            if state is None:
                raise _not_running(name)
            if name == "kafka":
                java, jars = tools.require_java().path, downloads.kafka_jars(self._reporter)
                state = self._starting().kafka(self._kafka, state, java, jars)
            else:
                state = self._starting().minio(self._minio, state, downloads.minio_binary(self._reporter))
            files.write_stack_file(self.home, state)

    def _planned(self, before: StackFile | None) -> StackFile:
        kind = self._store_kind(before)
        state = before or StackFile(store_kind=kind)
        secured = self._is_secured(before)
        limit = self._update_bytes_max or state.update_bytes_max or UPDATE_BYTES_MAX_DEFAULT
        try:
            return msgspec.convert(
                {
                    **msgspec.to_builtins(state),
                    "store_kind": kind,
                    "update_bytes_max": limit,
                    "secured": secured,
                    "store_secured": secured and kind == "minio",
                },
                StackFile,
            )
        except msgspec.ValidationError as error:
            raise UsageProblem(
                "FLV-1002",
                f"setting update_bytes_max: {error}, got {limit}",
                hint="give a number of bytes, such as `fluvial up --update-bytes-max 8388608`",
            ) from None

    def _is_secured(self, before: StackFile | None) -> bool:
        if self._secured is not None:
            return self._secured
        return SECURED_DEFAULT if before is None else before.secured

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

    def _delete_data(self) -> None:
        for path in (
            self._home_folder("data"),
            self._home_folder("config"),
            self._home_folder("logs"),
            tls_folder(self.home),
            store_keys_folder(self.home),
        ):
            shutil.rmtree(path, ignore_errors=True)
        for path in (stack_path(self.home), credentials_path(self.home)):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    def _starting(self) -> Starting:
        return Starting(self.home, self._reporter)

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


def _not_running(name: str) -> ConnectionProblem:
    return ConnectionProblem(
        "FLV-1001", f"{name} of the local stack does not run", hint="start it with `fluvial up`"
    )
