"""Starting the stack's services, each on ports that are free, and ending what was started when a later one fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from aggregation.errors import EnvironmentProblem, FluvialError, TimeoutProblem
from backends.environment import read_stack_file
from backends.settings import StackFile
from fluvial.local import files, ports
from fluvial.local.prometheus import NOT_INSTALLED, PrometheusServer, find_prometheus

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fluvial.local.kafka import KafkaBroker
    from fluvial.local.minio import MinioServer
    from fluvial.local.process import Daemon
    from fluvial.terminal.output import Reporter

PORT_ATTEMPTS_MAX: Final = 3
_PORTS: Final = ("kafka_port", "controller_port", "store_port", "prometheus_port")


class Starting:
    """One ``up``. Each service takes the stack's description and returns it with the ports that it answers on."""

    def __init__(self, home: Path, reporter: Reporter) -> None:
        self._home = home
        self._reporter = reporter
        self._started: list[Daemon] = []

    def minio(self, server: MinioServer, state: StackFile, binary: Path) -> StackFile:
        """MinIO on its port, with keys that this home has, started again where its certificate has changed."""
        credentials, new = files.ensure_credentials(self._home)
        daemon = server.daemon
        if daemon.process() is not None:
            recorded = read_stack_file(self._home)
            known = state.running and recorded is not None and not new
            as_it_runs = recorded is not None and recorded.store_secured == state.store_secured
            renewed = server.renew_keys(state, self._reporter)
            if known and as_it_runs and not renewed:
                server.wait_ready(state, credentials, self._reporter)
                self._reporter.say(
                    f"MinIO   {ports.LOOPBACK}:{state.store_port} runs already (pid {_pid(daemon)})"
                )
                return state
            if known:
                self._reporter.say(
                    f"MinIO: restarting it, {'with' if state.store_secured else 'without'} TLS"
                )
            # Else it is from an ``up`` that was killed, or with keys that nobody has any more.
            daemon.stop(self._reporter)

        def attempt(state: StackFile) -> None:
            self._started.append(daemon)
            server.start(state, credentials, binary, self._reporter)
            server.wait_ready(state, credentials, self._reporter)

        return self._on_free_ports("MinIO", ("store_port",), state, attempt, daemon)

    def kafka(self, broker: KafkaBroker, state: StackFile, java: str, jars: Path) -> StackFile:
        """Kafka on its ports, started again where the largest update or its certificate has changed."""
        daemon = broker.daemon
        if daemon.process() is not None:
            recorded = read_stack_file(self._home)
            known = state.running and recorded is not None
            renewed = broker.renew_keys(state, self._reporter)
            if known and recorded is not None and not renewed and _as_it_runs(recorded, state):
                broker.wait_ready(state, self._reporter)
                self._reporter.say(
                    f"Kafka   {ports.LOOPBACK}:{state.kafka_port} runs already (pid {_pid(daemon)})"
                )
                return state
            if known:
                how = "with mutual TLS and ACLs" if state.secured else "without TLS"
                self._reporter.say(
                    f"Kafka: restarting it, {how}; updates may be {state.update_bytes_max} bytes"
                )
            daemon.stop(self._reporter)

        def attempt(state: StackFile) -> None:
            self._started.append(daemon)
            broker.start(state, java, jars, self._reporter)
            broker.wait_ready(state, self._reporter)

        state = self._on_free_ports("Kafka", ("kafka_port", "controller_port"), state, attempt, daemon)
        return msgspec.structs.replace(state, cluster_id=broker.cluster_id())

    def prometheus(self, server: PrometheusServer, state: StackFile) -> StackFile:
        """Prometheus on its port. Never fails: what only watches keeps nothing from running."""
        daemon = server.daemon
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
            self._started.append(daemon)
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
        for last in [False] * (PORT_ATTEMPTS_MAX - 1) + [True]:
            state = self._with_free_ports(label, names, state)
            try:
                attempt(state)
            except EnvironmentProblem:
                taken = [name for name in names if not ports.is_free(getattr(state, name))]
                if not taken and daemon.lost_its_port():
                    taken = list(
                        names
                    )  # whoever took it has gone again; which one it was the log alone knows
                if last or not taken or daemon.process() is not None:
                    raise
                self._reporter.say(
                    f"{label}: port {getattr(state, taken[0])} was taken meanwhile, choosing another"
                )
                state = msgspec.structs.replace(state, **dict.fromkeys(taken, 0))
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

    def undo(self) -> None:
        """End what was started here."""
        for daemon in self._started:
            daemon.kill()
            daemon.pid_path.unlink(missing_ok=True)


def _as_it_runs(recorded: StackFile, state: StackFile) -> bool:
    """Whether nothing that the broker reads at its start has changed."""
    return recorded.update_bytes_max == state.update_bytes_max and recorded.secured == state.secured


def _pid(daemon: Daemon) -> int:
    process = daemon.process()
    return process.pid if process is not None else 0


def _runs_without(error: FluvialError) -> str:
    return f"warning[FLV-7021]: the stack runs without Prometheus: {error.error_id}: {error.message}\n  {error.where}"
