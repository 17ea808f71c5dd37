"""A federation on a real stack: real worker and merger processes, real certificates, synthetic devices without torch.

``Federation`` creates a task, starts and ends its processes, publishes signed updates and reads what the pipeline made
of them. Whoever waits here waits for a condition, with a limit that says what did not happen.
"""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from aggregation.optimizers import initial_state
from aggregation.server.aggregates import Aggregate
from backends import keys
from backends.environment import child_environment
from backends.kafka.admin import admin_client, declare_topics
from backends.kafka.reading import LogReader
from backends.kafka.writing import LogWriter
from backends.log import LogRecord
from backends.store.factory import open_object_store
from backends.store.task_store import TaskStore
from backends.tasks import TaskFile, keys_folder, write_task_file
from schemas.avro import CodecError
from schemas.certificates import CONTROL, Role, Trust
from schemas.checkpoints import encode_model, encode_optimizer
from schemas.manifests import NEWEST_GENESIS, Genesis, Region
from schemas.objects import sha256_hex
from schemas.records import Announcement, aggregate_in, announcement_in
from schemas.topics import aggregates_topic, models_topic, topics_of, updates_topic, verdicts_topic
from schemas.verdicts import decode_verdict
from tests import factories
from tests.integration.forked import Forked
from tests.waiting import WAIT_S, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from aggregation.fold.events import Verdict
    from aggregation.layout import Layout
    from aggregation.policy import Policy
    from aggregation.server.aggregates import Slot
    from backends.settings import Settings
    from schemas.envelope import Signer

ROOT = Path(__file__).parents[2]


@dataclass
class Running:
    """One `fluvial` process, with its log."""

    name: str
    log_path: Path
    process: subprocess.Popen[bytes] | Forked

    @property
    def log(self) -> str:
        """All that it has said."""
        return self.log_path.read_text(errors="replace")

    def says(self, text: str, *, after: int = 0) -> str:
        """Its log once it holds ``text`` behind the first ``after`` characters. Fails at once when it has ended."""

        def said() -> bool:
            return text in self.log[after:] or self.process.poll() is not None

        until(said, f"{self.name} says {text!r}:\n{self.log}")
        assert text in self.log[after:], f"{self.name} ended with {self.process.returncode}:\n{self.log}"
        return self.log

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait(WAIT_S)

    def stop(self, timeout_s: float = WAIT_S) -> int:
        """End it with SIGTERM; its exit code."""
        self.process.terminate()
        return self.process.wait(timeout_s)


@dataclass
class Federation:
    """One task of its own on ``settings``; ``folder`` gets the processes' logs."""

    settings: Settings
    folder: Path
    partitions: Mapping[str, int]
    policy: Policy
    layout: Layout = factories.LAYOUT
    task: str = field(default_factory=lambda: f"t-{uuid.uuid4().hex[:10]}")
    running: list[Running] = field(default_factory=list)
    strays: int = 0

    def __post_init__(self) -> None:
        self.store = TaskStore(open_object_store(self.settings.store), self.task)
        self.keys = keys_folder(self.settings.home, self.task)
        self.writer = LogWriter(self.settings, f"test-{self.task}")
        self._signers: dict[tuple[str, str], Signer] = {}
        self._create()

    # -- creating

    def _create(self) -> None:
        for name in (CONTROL, *self.partitions):
            keys.create_authority(self.keys, name)
        for region in self.partitions:
            keys.issue(self.keys, region, Role.WORKER, f"worker-{region}")
        model = np.random.default_rng(7).normal(size=self.layout.parameters).astype(np.float32)
        model[self.layout.trainable.parameters :] = 1.0
        model_bytes = encode_model(model, self.layout)
        optimizer = encode_optimizer(initial_state(self.policy.server, self.layout.trainable.parameters))
        pem = {
            name: keys.certificate_pem(keys.authority_path(self.keys, name))
            for name in (CONTROL, *self.partitions)
        }
        self.genesis = Genesis(
            task=self.task,
            regions={name: Region(count, pem[name]) for name, count in self.partitions.items()},
            control_authority=pem[CONTROL],
            layout=factories.entries(self.layout),
            policy=msgspec.json.decode(self.policy.canonical()),
            model_sha256=sha256_hex(model_bytes),
            optimizer_sha256=sha256_hex(optimizer),
            nonce=factories.sha(self.task),
            format=NEWEST_GENESIS,
        )
        declare_topics(self.settings, topics_of(self.task, self.partitions))
        self.store.put_object(self.policy.canonical())
        assert self.store.commit(0, self.genesis.canonical())
        self.store.write_checkpoint(0, model_bytes, optimizer)
        write_task_file(self.settings.home, self.task_file)
        self.merger_signer = self._control_signer(Role.MERGER, "merger")
        self.operator_signer = self._control_signer(Role.OPERATOR, "operator")

    def _control_signer(self, role: Role, name: str) -> Signer:
        return self.signer(keys.issue(self.keys, CONTROL, role, name))

    def signer(self, path: Path) -> Signer:
        """Who signs for this task with the keys in a file."""
        return keys.load_key_pair(path).of_task(self.genesis.domain)

    @property
    def task_file(self) -> TaskFile:
        """What this machine knows of the task."""
        sha256 = sha256_hex(self.genesis.canonical())
        return TaskFile(
            task=self.task, genesis_sha256=sha256, reference="digits", regions=tuple(sorted(self.partitions))
        )

    @cached_property
    def trust(self) -> Trust:
        """The task's authorities."""
        return self.genesis.trust

    def keep_what_producers_write(self) -> None:
        """Let the broker store batches as they come: as topics were before, and as others may have made them."""
        entry = ConfigEntry("compression.type", "producer", incremental_operation=AlterConfigOpType.SET)
        resources = [
            ConfigResource(ResourceType.TOPIC, topic(self.task, region), incremental_configs=[entry])
            for topic in (updates_topic, aggregates_topic)
            for region in self.partitions
        ]
        admin = admin_client(self.settings)  # which ends what it was asked where it is let go
        for done in admin.incremental_alter_configs(resources).values():
            done.result(WAIT_S)

    # -- processes

    def start(self, kind: str, name: str = "", *arguments: str) -> Running:
        """Start `fluvial worker|merger|evaluator`; a worker of the first region unless ``--region`` is given."""
        name = name or f"{kind}-{len(self.running)}"
        if kind == "worker" and "--region" not in arguments:
            arguments = ("--region", next(iter(self.partitions)), *arguments)
        started = start_process(
            self.settings.home, self.folder, [kind, "--task", self.task, "--name", name, *arguments], name
        )
        self.running.append(started)
        return started

    def end(self) -> None:
        """Kill whatever still runs."""
        for one in self.running:
            if one.process.poll() is None:
                one.process.kill()
        for one in self.running:
            one.process.wait(WAIT_S)

    # -- publishing

    def device(self, device_id: str, region: str = "") -> Signer:
        """A device's key and certificate, issued when it is first asked for."""
        region = region or next(iter(self.partitions))
        if (region, device_id) not in self._signers:
            path = keys.issue(self.keys, region, Role.DEVICE, device_id)
            self._signers[region, device_id] = self.signer(path)
        return self._signers[region, device_id]

    def worker_signer(self, region: str) -> Signer:
        """The signer of a region's workers."""
        return self.signer(keys.signer_path(self.keys, region, Role.WORKER, f"worker-{region}"))

    def model_sha256(self, version: int) -> str:
        """What a version's manifest says of its model."""
        return self.store.manifest(version).model_sha256 if version else self.genesis.model_sha256

    def record(self, device_id: str, *, base: int = 0, **changed: Any) -> dict[str, Any]:
        """An honest ClientUpdate of this task, with ``changed`` fields."""
        fields: dict[str, Any] = {
            "task": self.task,
            "region": next(iter(self.partitions)),
            "base_sha256": changed.get("base_sha256") or self.model_sha256(max(0, base)),
            "layout": self.layout,
            "created_at": round(time.time() * 1000),
        }
        return factories.update_record(device_id, base=base, **(fields | changed))

    def update(self, device_id: str, *, by: Signer | None = None, **changed: Any) -> bytes:
        """A signed update."""
        record = self.record(device_id, **changed)
        return (by or self.device(device_id, changed.get("region", ""))).sign("ClientUpdate", record)

    def append(self, slot: Slot, value: bytes | None, key: bytes | None = None) -> int:
        """Append any bytes to an updates topic; the offset."""
        topic = updates_topic(self.task, slot[0])
        return self.writer.append_now(topic, value, key=key, partition=slot[1]).offset  # type: ignore[arg-type]

    def tick(self, slot: Slot) -> int:
        """Close a partition's open window, as its worker's clock would; the tick's offset."""
        closed = self.aggregates(slot)
        record = {
            "task": self.task,
            "region": slot[0],
            "partition": slot[1],
            "window_first_offset": closed[-1].next_offset if closed else 0,
        }
        return self.append(slot, self.worker_signer(slot[0]).sign("Tick", record))

    # -- reading

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Every partition."""
        return self.genesis.slots

    @property
    def head(self) -> int:
        """The newest committed version."""
        head = self.store.head()
        assert head is not None
        return head.version

    @contextmanager
    def reader(self) -> Iterator[LogReader]:
        """A reader of one's own."""
        with LogReader(self.settings, f"test-{self.task}-{uuid.uuid4().hex[:6]}") as reader:
            yield reader

    def records(self, topic: str, partition: int = 0) -> list[LogRecord]:
        """Everything that stands in a partition now."""
        with self.reader() as reader:
            return list(reader.read(topic, partition, *reader.bounds(topic, partition)))

    def log(self, slot: Slot) -> list[LogRecord]:
        """A partition's updates topic."""
        return self.records(updates_topic(self.task, slot[0]), slot[1])

    def verdict_records(self, slot: Slot) -> list[tuple[LogRecord, Verdict]]:
        """A partition's verdicts with the records in which they stand, in their order, of one reading.

        A worker that lives writes on: who reads twice reads two things. What is no verdict is left out, and counted in
        ``strays``: anybody may have written it.
        """
        found = []
        self.strays = 0
        for record in self.records(verdicts_topic(self.task, slot[0]), slot[1]):
            try:
                found.append((record, decode_verdict(record.value or b"")))
            except CodecError:
                self.strays += 1
        return found

    def verdicts(self, slot: Slot) -> list[Verdict]:
        """A partition's verdicts in the order in which they stand there, duplicates included."""
        return [verdict for _, verdict in self.verdict_records(slot)]

    def announcements(self) -> list[LogRecord]:
        """The models topic."""
        return self.records(models_topic(self.task))

    def aggregates(self, slot: Slot) -> list[Aggregate]:
        """A partition's aggregates without duplicates, by sequence; a duplicate has to be the same, bit for bit."""
        found: dict[int, Aggregate] = {}
        for record in self.records(aggregates_topic(self.task, slot[0]), slot[1]):
            aggregate = aggregate_in(record.value, record.timestamp_ms, self.trust, self.task, slot)
            assert isinstance(aggregate, Aggregate), (
                record.topic,
                record.partition,
                record.offset,
                aggregate,
            )
            assert found.setdefault(aggregate.sequence, aggregate) == aggregate, "two folds of one log differ"
        return [found[sequence] for sequence in sorted(found)]

    def await_verdicts(self, slot: Slot, through: int, timeout_s: float = WAIT_S) -> dict[int, Verdict]:
        """A partition's verdicts by offset, once the one on ``through`` is there."""

        def judged() -> dict[int, Verdict]:
            found = {verdict.offset: verdict for verdict in self.verdicts(slot)}
            return found if through in found else {}

        return until(judged, f"a verdict on {slot[0]}[{slot[1]}]@{through}\n{self.logs()}", timeout_s)  # type: ignore[no-any-return]

    def await_version(self, version: int, timeout_s: float = WAIT_S) -> None:
        """Wait until a version is committed."""
        until(lambda: self.head >= version, f"version {version}\n{self.logs()}", timeout_s)

    def await_told(self, version: int, timeout_s: float = WAIT_S) -> None:
        """Wait until a version is announced to every region: then all partitions know it, and it may be a base."""

        def told() -> bool:
            found = (
                announcement_in(record.value, record.timestamp_ms, self.trust)
                for record in self.records(models_topic(self.task))
            )
            regions = {
                one.region for one in found if isinstance(one, Announcement) and one.version >= version
            }
            return regions >= set(self.genesis.regions)

        until(told, f"version {version} to be announced\n{self.logs()}", timeout_s)

    def logs(self) -> str:
        """The ends of all processes' logs, for failures."""
        return "\n".join(f"--- {one.name} ({one.process.poll()})\n{one.log[-3000:]}" for one in self.running)


def start_process(
    home: Path, folder: Path, arguments: list[str], name: str, prepare: Callable[[], None] | None = None
) -> Running:
    """Start the `fluvial` command with these arguments; its log is appended to ``<name>.log``."""
    path = folder / f"{name}.log"
    return Running(name, path, fork(["--home", str(home), *arguments], stdout=path, prepare=prepare))


def run_command(
    home: Path, *arguments: str, cwd: Path = ROOT, prepare: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the `fluvial` command to its end."""
    command = ["--home", str(home), *arguments]
    with tempfile.TemporaryDirectory() as folder:
        stdout, stderr = Path(folder, "stdout"), Path(folder, "stderr")
        process = fork(command, stdout=stdout, stderr=stderr, cwd=cwd, prepare=prepare)
        try:
            code = process.wait(WAIT_S)
        finally:
            process.kill()
        return subprocess.CompletedProcess(command, code, stdout.read_text(), stderr.read_text())


def fork(
    arguments: list[str],
    *,
    stdout: Path,
    stderr: Path | None = None,
    cwd: Path = ROOT,
    prepare: Callable[[], None] | None = None,
) -> Forked:
    """The `fluvial` command as a process of its own that shares the imports of all others."""
    environment = child_environment({"PYTHONPATH": str(ROOT)})
    return Forked(arguments, cwd=cwd, environment=environment, stdout=stdout, stderr=stderr, prepare=prepare)
