"""Damage to what is stored, each time until somebody names it; then the whole copy is put back.

Each damage is done while workers and mergers run and nothing is published, so that what is found is found because of
it alone. Whoever has to read the damaged thing is killed, so that it must read it. Who named it is looked for in what
the processes write, then in what ``fluvial audit`` finds, then in what the offline check finds, until one has named
it: a message counts when it names the object, or the log.

==========  =============================================================================================
state       the snapshot that a partition's newest window names: its workers resume from it
sums        the sums of a window that a version was made of
model       a version's model.safetensors
manifest    a version's manifest.json
log         the tail of the last segment of an updates partition is cut off, as by a disk that lies
==========  =============================================================================================
"""

from __future__ import annotations

import random
import re
import shutil
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from aggregation.errors import Finding, FluvialError
from backends.kafka.reading import LogReader
from backends.store.factory import open_object_store
from backends.store.task_store import TaskStore
from fluvial.proof.audit import audit_task
from fluvial.proof.chaos.history import FaultRecord
from fluvial.proof.chaos.schedule import BROKER, Fault
from fluvial.proof.chaos.verify import check_offline
from fluvial.terminal.output import quiet_output
from schemas.envelope import open_envelope
from schemas.objects import manifest_key, model_key, object_key
from schemas.topics import aggregates_topic, updates_topic
from schemas.windows import aggregate_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from aggregation.server.aggregates import Aggregate
    from backends.settings import Settings
    from backends.tasks import TaskFile
    from fluvial.proof.chaos.following import Turns
    from fluvial.proof.chaos.parts import Parts
    from fluvial.terminal.output import Reporter

KINDS: Final = ("state", "sums", "model", "manifest", "log")
NOTICE_S_MAX: Final = 60.0
"""The processes get so long to come up and to say something; then the audit is asked, then the offline check."""
AUDITED_BEFORE: Final = 2
"""The audit begins so many versions before the newest damaged one could be: it reads what it needs, not all."""
SERVICE_TIMEOUT_S: Final = 120.0
CUT_BYTES_MAX: Final = 4096
VERSIONS_BACK_MAX: Final = 3
_OBJECT_WORDS: Final = ("is not what its hash says", "FLV-4103", "announced was")
_LOG_WORDS: Final = ("FLV-3204", "FLV-3101", "the log ends at offset", "another record than the one")
_MESSAGE_BEGINS: Final = re.compile(r"^(?=\d{4}-\d\d-\d\d )", re.MULTILINE)
MESSAGE_CHARACTERS_MAX: Final = 300


@dataclass(frozen=True, slots=True)
class Corruption:
    """One damaged object or log. ``detected_by`` "" means that nobody noticed; ``message`` is what was said."""

    kind: str
    target: str
    detected_by: str
    message: str

    def document(self) -> dict[str, str]:
        """For JSON."""
        return {
            "kind": self.kind,
            "target": self.target,
            "detected_by": self.detected_by,
            "message": self.message,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Damage:
    """What is damaged. A process has noticed when one message of its names one of ``names`` and has one of ``words``.

    ``readers`` have to read it; with ``waits_for_readers`` they do so when they begin.
    """

    kind: str
    target: str
    names: tuple[str, ...]
    words: tuple[str, ...]
    readers: Sequence[str]
    waits_for_readers: bool
    harm: Callable[[], str]
    mend: Callable[[], None]


class Corruptor:
    """The corruptions of one run."""

    def __init__(
        self,
        settings: Settings,
        task_file: TaskFile,
        parts: Parts,
        turns: Turns,
        *,
        seed: int,
        kafka_data: Path,
        logs: Path,
        journal: Path,
        reporter: Reporter,
    ) -> None:
        """``kafka_data`` is the broker's folder, ``logs`` where the processes write theirs."""
        self._settings = settings
        self._task_file = task_file
        self._task = task_file.task
        self._parts = parts
        self._turns = turns
        self._rng = random.Random(f"corruptions {seed}")  # noqa: S311 (reproducible, not secret)
        self._kafka_data = kafka_data
        self._logs = logs
        self._journal = journal
        self._reporter = reporter
        self._store = TaskStore(open_object_store(settings.store), self._task)

    def all(self, first_number: int) -> tuple[list[Corruption], list[FaultRecord]]:
        """Every kind once, in a drawn order; faults are numbered from ``first_number`` on."""
        found, records = [], []
        kinds = list(KINDS)
        self._rng.shuffle(kinds)
        for number, kind in enumerate(kinds, start=first_number):
            began_at = time.time()
            corruption = self._one(kind)
            found.append(corruption)
            fault = Fault(number, 0.0, "corrupt", corruption.target, time.time() - began_at, kind)
            said = f"named by {corruption.detected_by}" if corruption.detected_by else "nobody noticed"
            records.append(FaultRecord(fault, began_at, time.time(), ok=True, outcome=said))
            self._reporter.say(f"corrupt {kind} {corruption.target}: {said}")
        return found, records

    def _one(self, kind: str) -> Corruption:
        damage = self._damage(kind)
        marks = {path: path.stat().st_size for path in self._logs.glob("*.log")}
        self._reporter.say(f"corrupt {kind} {damage.target}: {damage.harm()}")
        try:
            self._kill(damage.readers)
            said = (
                self._processes_say(damage, marks) or self._audit_says(damage) or self._checker_says(damage)
            )
        finally:
            damage.mend()
            self._kill(damage.readers)  # what stopped for good begins anew, on whole data
        message = next(iter(said.values()), "")
        return Corruption(kind, damage.target, ", ".join(said), message[:MESSAGE_CHARACTERS_MAX])

    def _damage(self, kind: str) -> _Damage:
        slot, window = self._window()
        workers = [name for name, region in self._parts.crew.workers.items() if region == slot[0]]
        mergers = self._parts.crew.mergers
        head = self._store.head()
        versions = head.version if head is not None else 0
        version = self._rng.randint(max(1, versions - VERSIONS_BACK_MAX), max(1, versions))
        match kind:
            case "state":
                return self._object(kind, object_key(self._task, window.state_sha256), workers)
            case "sums":
                return self._object(kind, object_key(self._task, window.sum_sha256), mergers)
            case "model":
                return self._object(kind, model_key(self._task, version), mergers)
            case "manifest":
                # A merger that starts holds the newest one against its announcement; the audit names its version.
                damage = self._object(kind, manifest_key(self._task, version), mergers)
                said = (f"{what} of version {version}" for what in ("manifest", "barrier", "announcement"))
                named = (*damage.names, *said)
                return replace(damage, names=named, waits_for_readers=version == versions)
            case "log":
                return self._log(slot, workers)
            case _:
                message = f"no such corruption: {kind}"
                raise ValueError(message)

    def _window(self) -> tuple[tuple[str, int], Aggregate]:
        """The newest window of a partition that has one, and which it is."""
        regions = self._parts.crew.regions
        slots = [(region, number) for region, count in sorted(regions.items()) for number in range(count)]
        self._rng.shuffle(slots)
        with LogReader(self._settings, "fluvial-chaos-corrupt") as reader:
            for region, partition in slots:
                record = reader.last(aggregates_topic(self._task, region), partition)
                if record is not None and record.value is not None:
                    envelope = open_envelope(record.value)
                    return (region, partition), aggregate_of(envelope.record, envelope.payload)
        raise Finding(
            "FLV-6408",
            "no partition has closed a window: there is nothing to corrupt",
            hint="give the run more time: `fluvial chaos --seconds 60 --faults corrupt`",
        )

    def _object(self, kind: str, key: str, readers: Sequence[str]) -> _Damage:
        store = self._store.store
        whole = store.get(key)
        at = self._rng.randrange(len(whole))
        bit = 1 << self._rng.randrange(8)

        def harm() -> str:
            store.put(key, whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
            return f"flipped a bit in byte {at} of {len(whole)}"

        names = (key, key.rpartition("/")[2]) if kind in {"state", "sums"} else (key,)
        # A merger that starts reads the newest manifests and what is not merged yet: not what lies behind it.
        waits = kind == "state"
        return _Damage(
            kind=kind,
            target=key,
            names=names,
            words=_OBJECT_WORDS,
            readers=readers,
            waits_for_readers=waits,
            harm=harm,
            mend=lambda: store.put(key, whole),
        )

    def _log(self, slot: tuple[str, int], readers: Sequence[str]) -> _Damage:
        topic = updates_topic(self._task, slot[0])
        folder = self._kafka_data / f"{topic}-{slot[1]}"
        copy = folder.parent.parent / "log-before"
        bytes_cut = self._rng.randint(1, CUT_BYTES_MAX)

        def harm() -> str:
            self._parts.kill(BROKER)
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(folder, copy)
            segment = max(folder.glob("*.log"))
            size = segment.stat().st_size
            cut = min(bytes_cut, size)
            with segment.open("r+b") as file:
                file.truncate(size - cut)
            self._start_broker()
            return f"cut the last {cut} bytes off {segment.name}"

        def mend() -> None:
            self._parts.kill(BROKER)
            shutil.rmtree(folder)
            shutil.copytree(copy, folder)
            shutil.rmtree(copy)
            self._start_broker()

        names = (f"{topic}[{slot[1]}]", f"{slot[0]}[{slot[1]}]")
        return _Damage(
            kind="log",
            target=names[0],
            names=names,
            words=_LOG_WORDS,
            readers=readers,
            waits_for_readers=True,
            harm=harm,
            mend=mend,
        )

    def _start_broker(self) -> None:
        started, deadline = self._parts.start_again(BROKER), time.monotonic() + SERVICE_TIMEOUT_S
        while not started.done() and time.monotonic() < deadline:
            self._turns.step("corrupting")
        started.result(timeout=1.0)

    def _kill(self, names: Sequence[str]) -> None:
        for name in names:
            if self._parts.is_up(name):
                self._parts.kill(name)
            self._parts.start_again(name)

    def _processes_say(self, damage: _Damage, marks: dict[Path, int]) -> dict[str, str]:
        """The processes that name the damage in their logs, each with its line."""
        said: dict[str, str] = {}
        if not damage.waits_for_readers:
            return said
        deadline = time.monotonic() + NOTICE_S_MAX
        while not said and time.monotonic() < deadline:
            self._turns.step("corrupting")
            for path in self._logs.glob("*.log"):
                with path.open("rb") as file:
                    file.seek(marks.get(path, 0))
                    text = file.read().decode("utf-8", "replace")
                message = _naming_message(text, damage)
                if message:
                    said.setdefault(path.stem, message)
        return said

    def _audit_says(self, damage: _Damage) -> dict[str, str]:
        try:
            head = self._store.head()
            first = max(1, (head.version if head is not None else 1) - VERSIONS_BACK_MAX - AUDITED_BEFORE)
            report = audit_task(self._settings, self._task_file, first=first, output=quiet_output())
        except FluvialError as error:
            return {"fluvial audit": str(error)} if _names(str(error), damage.names) else {}
        for difference in report.findings:
            if any(_names(text, damage.names) for text in difference.document().values()):
                return {"fluvial audit": f"[{difference.error_id}] {difference}"}
        return {}

    def _checker_says(self, damage: _Damage) -> dict[str, str]:
        report = check_offline(self._settings, self._task_file, self._journal, quiet_output())
        for violation in report.violations:
            if _names(violation.message, damage.names):
                return {"offline check": f"invariant {violation.invariant}: {violation.message}"}
        return {}


def _naming_message(text: str, damage: _Damage) -> str:
    """The first message of a log that names what is damaged and says that it is, not only that it is waited for."""
    for message in _MESSAGE_BEGINS.split(text):
        if _names(message, damage.names) and _names(message, damage.words):
            return " ".join(message.split())
    return ""


def _names(text: str, names: Sequence[str]) -> bool:
    return any(name in text for name in names)
