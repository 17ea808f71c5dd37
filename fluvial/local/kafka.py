"""One Kafka broker (KRaft) from plain jars: format its folder once, start it, see it answer."""

from __future__ import annotations

import base64
import logging
import shutil
import string
import subprocess
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from aggregation.errors import EnvironmentProblem, TimeoutProblem
from backends.environment import child_environment
from backends.folders import make_private
from backends.kafka.configuration import probe_configuration
from backends.settings import ADMIN, KAFKA_UNSECURED, message_bytes_max, stack_security, tls_folder
from fluvial.local import names, ports
from fluvial.local.process import Daemon
from fluvial.local.resources import infra_file
from fluvial.local.tls_keys import BROKER, principal, renew_tls_keys

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from backends.settings import StackFile
    from fluvial.terminal.output import Reporter

READY_TIMEOUT_S: Final = 180.0
FORMAT_TIMEOUT_S: Final = 180.0
PROBE_TIMEOUT_S: Final = 2.0
_HEAP: Final = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError")
# Kafka's own defaults, which larger messages raise.
_REQUEST_BYTES_MIN: Final = 100 * 1024 * 1024
_FETCH_BYTES_MIN: Final = 55 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Listener:
    """One more way in, for clients behind a proxy: they are told to come back to ``advertised_port``.

    The broker listens on ``port``; ``name`` is of capital letters, digits and underscores. ``protocol`` is the stack's
    own where it is "". ``properties`` are lines of the broker's configuration, as they are.
    """

    name: str
    port: int
    advertised_port: int
    protocol: str = ""
    properties: tuple[str, ...] = ()


class KafkaBroker:
    """The broker of one home folder. Holds no state of its own: everything is in the folder."""

    name: Final = "kafka"

    def __init__(self, home: Path, data: Path | None = None, listeners: Sequence[Listener] = ()) -> None:
        """Describe the broker of ``home``; nothing is touched yet. ``data`` may lie on a disk of its own."""
        self._home = home
        self.data = data or home / "data" / "kafka"
        self._listeners = tuple(listeners)
        self._properties = home / "config" / "server.properties"
        self._logs = home / "logs"
        self.daemon = Daemon(
            name="Kafka",
            pid_path=home / "run" / "kafka.json",
            console=self._logs / "kafka.out",
            marker=f"-Dfluvial.home={home}",
            log=self._logs / "kafka.log",
            folder=home,
        )

    def start(self, state: StackFile, java: str, jars: Path, reporter: Reporter) -> None:
        """Format if need be and start; ``wait_ready`` says when it serves.

        Raises EnvironmentProblem: FLV-1008 it does not start, FLV-1011 its data folder is damaged.
        """
        self.renew_keys(state, reporter)
        classpath = names.java_classpath(jars, self._home)
        self._format_if_new(java, classpath, state, reporter)
        self._write_properties(self._properties, state, self.data)
        log4j = self._properties.with_name("log4j2.properties")
        log4j.write_bytes(infra_file("kafka/log4j2.properties").read_bytes())
        logs = self._named(self._logs)
        self.daemon.start(
            [
                *(java, *_HEAP, self.daemon.marker, f"-Dfluvial.logs={logs}"),
                # A full disk under a memory-mapped index kills the JVM: its report belongs to the other logs.
                f"-XX:ErrorFile={logs}/kafka-crash.log",
                f"-Dlog4j2.configurationFile={self._named(log4j)}",
                *("-Djava.awt.headless=true", "-cp", classpath, "kafka.Kafka", self._named(self._properties)),
            ],
            names.JAVA_ENVIRONMENT,
        )

    def renew_keys(self, state: StackFile, reporter: Reporter) -> bool:
        """Issue certificates that are missing or about to end; whether a broker that runs was started with another."""
        return state.secured and renew_tls_keys(self._home, BROKER, self.daemon.pid_path, reporter)

    def wait_ready(self, state: StackFile, reporter: Reporter) -> None:
        """Wait until the broker answers as itself.

        Raises EnvironmentProblem: FLV-1008, it ended. TimeoutProblem: FLV-1009, it does not answer in time.
        """
        address = f"{ports.LOOPBACK}:{state.kafka_port}"
        with reporter.waiting(f"Kafka to answer on {address}") as waiting:
            while waiting.seconds < READY_TIMEOUT_S:
                if self.daemon.process() is None:
                    raise self.daemon.died("its process ended")
                if ports.is_listening(state.kafka_port) and self.cluster_id_at(state) == self.cluster_id():
                    return
                time.sleep(0.1)
        raise TimeoutProblem(
            "FLV-1009",
            f"Kafka (on {address}) does not answer after {READY_TIMEOUT_S:.0f} s",
            where=self.daemon.log_tail(),
            hint=f"read {self.daemon.log}; a machine under heavy load may only need `fluvial up` again",
        )

    def cluster_id(self) -> str:
        """The id that the data folder was formatted with; empty when it is not."""
        return _read_properties(self.data / "meta.properties").get("cluster.id", "")

    def cluster_id_at(self, state: StackFile) -> str:
        """The id of the cluster that answers at the stack's address; empty when none does."""
        silent = logging.getLogger("fluvial.probe")
        silent.addHandler(logging.NullHandler())
        silent.propagate = False
        kafka = stack_security(self._home, ADMIN) if state.secured else KAFKA_UNSECURED
        address = f"{ports.LOOPBACK}:{state.kafka_port}"
        admin = AdminClient(probe_configuration(address, kafka), logger=silent)
        try:
            metadata = admin.list_topics(timeout=PROBE_TIMEOUT_S)
        except KafkaException:
            return ""
        return str(metadata.cluster_id) if metadata.brokers else ""

    def _format_if_new(self, java: str, classpath: str, state: StackFile, reporter: Reporter) -> None:
        formatted = (self.data / "meta.properties").is_file() and bool(self.cluster_id())
        has_metadata = any((self.data / "__cluster_metadata-0").glob("*.log"))
        if formatted and (has_metadata or (self.data / "bootstrap.checkpoint").is_file()):
            return
        if has_metadata or any(self.data.glob("*-[0-9]*/*.log")):
            raise EnvironmentProblem(
                "FLV-1011",
                "Kafka's data folder holds topics, and its meta.properties is missing or damaged",
                where=str(self.data),
                hint="restore meta.properties; or begin anew, losing the logs: `fluvial down --delete-data`",
            )
        if self.data.exists():
            reporter.say("Kafka: its data folder was half-written and holds no topics, formatting it again")
        self._format(java, classpath, state)

    def _format(self, java: str, classpath: str, state: StackFile) -> None:
        # Into a folder beside it, renamed when whole: an interruption cannot leave half a format behind.
        fresh = self.data.with_name("kafka.formatting")
        shutil.rmtree(fresh, ignore_errors=True)
        make_private(fresh)
        properties = self._properties.with_name("format.properties")
        self._write_properties(properties, state, fresh)
        done = self._run_formatter(
            *(java, "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", classpath),
            *("kafka.tools.StorageTool", "format", "-t", _new_cluster_id(), "-c", self._named(properties)),
        )
        if done.returncode != 0 or not (fresh / "meta.properties").is_file():
            lines = (done.stdout + done.stderr).strip().splitlines()
            raise EnvironmentProblem(
                "FLV-1008",
                f"Kafka's data folder could not be formatted (exit {done.returncode})",
                where="\n  ".join(lines[-6:]),
                hint="`fluvial doctor` checks this machine's Java and disk",
            )
        shutil.rmtree(self.data, ignore_errors=True)
        fresh.rename(self.data)

    def _run_formatter(self, *command: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                command,
                cwd=self._home,
                env=child_environment({**names.JAVA_ENVIRONMENT, "HOME": str(self._home)}),
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=FORMAT_TIMEOUT_S,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired as error:
            raise TimeoutProblem(
                "FLV-1009",
                f"Kafka's data folder was not formatted within {FORMAT_TIMEOUT_S:.0f} s",
                where=str(self.data),
                hint="a machine under heavy load may only need `fluvial up` again",
            ) from error

    def _write_properties(self, path: Path, state: StackFile, log_dirs: Path) -> None:
        limit = message_bytes_max(state.update_bytes_max)
        protocol = "SSL" if state.secured else "PLAINTEXT"
        text = _filled(
            "server",
            protocol=protocol,
            security=self._security(state),
            kafka_port=state.kafka_port,
            controller_port=state.controller_port,
            more_listeners=self._more("{0.name}://127.0.0.1:{0.port}"),
            more_advertised=self._more("{0.name}://127.0.0.1:{0.advertised_port}"),
            more_protocols="".join(f",{one.name}:{one.protocol or protocol}" for one in self._listeners),
            log_dirs=names.java_property(self._named(log_dirs)),
            message_bytes_max=limit,
            fetch_bytes_max=max(_FETCH_BYTES_MIN, limit),
            request_bytes_max=max(_REQUEST_BYTES_MIN, min(2 * limit, 2**31 - 1)),
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def _security(self, state: StackFile) -> str:
        own = "".join(f"{line}\n" for listener in self._listeners for line in listener.properties)
        if not state.secured:
            return own
        folder = tls_folder(self._home)
        return own + _filled(
            "secured",
            keystore=names.java_property(self._named(folder / f"{BROKER}.pem")),
            truststore=names.java_property(self._named(folder / "ca.pem")),
            super_users=f"{principal(BROKER)};{principal(ADMIN)}",
        )

    def _named(self, path: Path) -> str:
        return names.seen_from(self._home, path)

    def _more(self, pattern: str) -> str:
        return "".join(f",{pattern.format(listener)}" for listener in self._listeners)


def _filled(name: str, **values: object) -> str:
    return string.Template(infra_file(f"kafka/{name}.properties").read_text("utf-8")).safe_substitute(values)


def _new_cluster_id() -> str:
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # The command line of the format tool would read a leading dash as an option.
        if not text.startswith("-"):
            return text


def _read_properties(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, _, value in pairs}
