"""Workers and mergers that die, freeze and race while updates flow: what was acknowledged is counted, once, and the
audit cannot tell that anything happened. Then damage to what is stored: the audit names it.
"""

from __future__ import annotations

import json
import signal
import threading
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from aggregation.fold.rejections import ACCEPTED
from backends.kafka.consumer_groups import describe_groups
from backends.kafka.writing import LogWriter
from backends.log import Position
from fluvial import cli
from fluvial.proof.audit import audit_task
from schemas.envelope import open_envelope
from schemas.objects import manifest_key, model_key, object_key, sha256_hex
from schemas.records import Announcement, announcement_in
from schemas.topics import models_topic, updates_topic
from tests import factories
from tests.integration.pipeline import Federation
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

    from aggregation.server.aggregates import Slot
    from backends.log import LogRecord
    from backends.settings import Settings


REGION = "eu"
PARTITIONS = 4
UPDATES = 300
IN_FLIGHT_MAX = 8
POLICY = factories.policy(
    window={"updates_max": 8, "seconds_max": 0.5},
    buffer={"updates": 24, "seconds_max": 2.0},
    server={"momentum": 0.5},
)


@dataclass
class Crowd:
    """Devices that publish one update each on the newest version that was announced, until there are ``UPDATES``."""

    federation: Federation
    gate: int = 0
    acknowledged: dict[tuple[int, int], str] = field(default_factory=dict)
    failed: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ids = [f"d-{number:04d}" for number in range(UPDATES)]
        for device in self._ids:
            self.federation.device(device)
        self._moved = threading.Condition()
        self._thread = threading.Thread(target=self._guarded, name="crowd", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def let(self, through: int) -> None:
        """Publish up to this many in all, and wait until the broker has them."""
        with self._moved:
            self.gate = through
            self._moved.notify_all()
        until(lambda: self.failed or len(self.acknowledged) >= through, f"{through} acknowledged updates")
        assert not self.failed, self.failed

    def _guarded(self) -> None:
        try:
            self._run()
        except BaseException as error:  # noqa: BLE001 - shown by whoever waits for us
            self.failed.append(error)

    def _run(self) -> None:
        federation = self.federation
        writer = LogWriter(federation.settings, f"crowd-{federation.task}")
        topic = models_topic(federation.task)
        newest, sent = -1, 0
        waiting: list[tuple[Future[Position], str]] = []
        with federation.reader() as reader:
            for record in reader.follow({(topic, 0): 0}):
                if record is not None:
                    newest = max(newest, announced(federation, record))
                while newest >= 0 and sent < self.gate and len(waiting) < IN_FLIGHT_MAX:
                    device = self._ids[sent]
                    value = federation.update(device, base=newest, seed=sent)
                    future = writer.append(updates_topic(federation.task, REGION), value, key=device.encode())
                    waiting.append((future, device))
                    sent += 1
                writer.poll()
                for future, device in [one for one in waiting if one[0].done()]:
                    position = future.result()
                    self.acknowledged[position.partition, position.offset] = device
                    waiting.remove((future, device))
                if sent == UPDATES and not waiting:
                    return


AfterFaults = tuple[Federation, Crowd]


def announced(federation: Federation, record: LogRecord) -> int:
    """The version in a record of the models topic, which a merger has to have signed."""
    found = announcement_in(record.value, record.timestamp_ms, federation.trust)
    assert isinstance(found, Announcement), found
    return found.version


def slots() -> list[Slot]:
    return [(REGION, partition) for partition in range(PARTITIONS)]


@pytest.fixture(scope="module")
def after_faults(stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AfterFaults]:
    """A run in which everything happened that may happen to a process; all updates judged and merged."""
    federation = Federation(stack, tmp_path_factory.mktemp("faults"), {REGION: PARTITIONS}, POLICY)
    try:
        crowd = Crowd(federation)
        run_with_faults(federation, crowd)
        yield federation, crowd
    finally:
        federation.end()


def run_with_faults(federation: Federation, crowd: Crowd) -> None:
    first, second = federation.start("worker", "worker-a"), federation.start("worker", "worker-b")
    merger, rival = federation.start("merger", "merger-a"), federation.start("merger", "merger-b")
    crowd.start()
    await_members(federation, 2)
    crowd.let(60)
    federation.await_version(2)

    first.kill()
    merger.kill()
    third = federation.start("worker", "worker-c")
    federation.start("merger", "merger-c")
    crowd.let(140)
    await_members(federation, 2)
    await_judged(federation, crowd)

    # Longer than the session timeout: its partitions move, and it wakes up as a zombie in the middle of its work.
    second.signal(signal.SIGSTOP)
    crowd.let(200)
    await_members(federation, 1)
    crowd.let(240)
    await_judged(federation, crowd)
    second.signal(signal.SIGCONT)
    await_members(federation, 2)

    rival.kill()
    third.kill()
    crowd.let(UPDATES)
    await_judged(federation, crowd)
    until(lambda: merged(federation) == accepted(federation), f"all updates are merged\n{federation.logs()}")
    head = federation.head
    until(
        lambda: all(barrier_seen(federation, slot, head) for slot in slots()), f"barriers of version {head}"
    )


def await_members(federation: Federation, count: int) -> None:
    """Wait until so many workers share the region's partitions, and all of them are given out."""
    name = f"fluvial-{federation.task}-{REGION}"

    def stable() -> bool:
        group = describe_groups(federation.settings, [name])[0]
        given = [p for member in group.members for p in member.partitions]
        return (group.state, len(group.members), sorted(given)) == ("stable", count, list(range(PARTITIONS)))

    until(stable, f"{count} workers share the partitions\n{federation.logs()}")


def await_judged(federation: Federation, crowd: Crowd) -> None:
    """Wait until every acknowledged update has its verdict."""
    for slot in slots():
        last = max((offset for partition, offset in crowd.acknowledged if partition == slot[1]), default=-1)
        if last >= 0:
            federation.await_verdicts(slot, last)


def barrier_seen(federation: Federation, slot: Slot, version: int) -> bool:
    return any(v.detail.startswith(f"barrier to version {version} ") for v in federation.verdicts(slot))


def accepted(federation: Federation) -> int:
    return sum(
        sum(1 for v in {v.offset: v for v in federation.verdicts(slot)}.values() if v.outcome == ACCEPTED)
        for slot in slots()
    )


def merged(federation: Federation) -> int:
    return sum(federation.store.manifest(version).accepted for version in range(1, federation.head + 1))


def test_every_acknowledged_update_has_one_verdict_and_was_accepted(after_faults: AfterFaults) -> None:
    federation, crowd = after_faults
    assert len(crowd.acknowledged) == UPDATES
    outcomes: Counter[str] = Counter()
    for slot in slots():
        found: dict[int, bytes | None] = {}
        for record, verdict in federation.verdict_records(slot):
            assert found.setdefault(verdict.offset, record.value) == record.value, (
                "written twice, and it differs"
            )
        assert sorted(found) == list(range(len(federation.log(slot)))), "every offset has a verdict"
        by_offset = {verdict.offset: verdict for verdict in federation.verdicts(slot)}
        for (partition, offset), device in crowd.acknowledged.items():
            if partition == slot[1]:
                assert by_offset[offset].device_id == device
                outcomes[by_offset[offset].outcome] += 1
    # An announced version is a version that every partition of the region knows: nobody is ever ahead.
    assert outcomes["future_base"] == outcomes["unknown_base"] == 0
    assert set(outcomes) <= {ACCEPTED, "anomalous", "too_stale"}
    assert outcomes[ACCEPTED] > UPDATES // 2


def test_windows_tile_every_partition(after_faults: AfterFaults) -> None:
    federation, _ = after_faults
    for slot in slots():
        windows = federation.aggregates(slot)
        assert windows, slot
        assert [window.sequence for window in windows] == list(range(len(windows)))
        assert windows[0].first_offset == 0
        for before, window in pairwise(windows):
            assert window.first_offset == before.next_offset
            assert window.previous_sha256 == before.sha256


def test_versions_are_one_chain_and_merge_every_window_once(after_faults: AfterFaults) -> None:
    federation, _ = after_faults
    parent = federation.store.manifest_bytes(0)
    merged_windows: list[tuple[Slot, int]] = []
    for version in range(1, federation.head + 1):
        manifest = federation.store.manifest(version)
        assert manifest.parent_sha256 == sha256_hex(parent)
        merged_windows += [((one.region, one.partition), one.sequence) for one in manifest.inputs]
        parent = federation.store.manifest_bytes(version)
    assert federation.head >= 5
    assert len(merged_windows) == len(set(merged_windows))
    for slot in slots():
        sequences = sorted(sequence for at, sequence in merged_windows if at == slot)
        assert sequences == list(range(len(sequences)))


def test_announcements_come_after_the_regions_barriers(after_faults: AfterFaults) -> None:
    """By the broker's clock; an announcement that comes again after a crash changes nothing."""
    federation, _ = after_faults
    first_barrier: dict[tuple[Slot, int], int] = {}
    for slot in slots():
        for record in federation.log(slot):
            envelope = open_envelope(record.value or b"")
            if envelope.kind == "Barrier":
                first_barrier.setdefault((slot, envelope.record["version"]), record.timestamp_ms)
    versions = set()
    for record in federation.announcements():
        version = announced(federation, record)
        versions.add(version)
        for slot in slots():
            assert first_barrier[slot, version] <= record.timestamp_ms
    assert max(versions) == federation.head


def test_the_audit_is_identical_however_many_processes_do_it(after_faults: AfterFaults) -> None:
    federation, _ = after_faults
    one = audit_task(federation.settings, federation.task_file, jobs=1)
    three = audit_task(federation.settings, federation.task_file, jobs=3)
    assert one.identical, list(one.findings)
    assert three.identical, list(three.findings)
    assert (one.versions, one.updates) == (federation.head, merged(federation))
    assert one.digest == three.digest


def test_a_restarted_worker_does_not_write_again_what_stands_there(after_faults: AfterFaults) -> None:
    federation, _ = after_faults
    for running in federation.running:
        if running.name.startswith("worker") and running.process.poll() is None:
            assert running.stop() == 0
    before = {slot: len(federation.verdict_records(slot)) for slot in slots()}
    logged = {slot: len(federation.log(slot)) for slot in slots()}
    federation.start("worker", "worker-d")
    last = {slot: federation.append(slot, b"not an update") for slot in slots()}
    for slot in slots():
        federation.await_verdicts(slot, last[slot])
        federation.await_verdicts(slot, last[slot])
        written = [v.offset for v in federation.verdicts(slot)[before[slot] :]]
        assert written == list(range(logged[slot], logged[slot] + len(written)))


@pytest.mark.parametrize("what", ["model", "sums", "manifest"])
def test_the_audit_names_a_flipped_byte(
    after_faults: AfterFaults, capfd: pytest.CaptureFixture[str], what: str
) -> None:
    federation, _ = after_faults
    version = 2
    manifest = federation.store.manifest(version)
    key = {
        "model": model_key(federation.task, version),
        "sums": object_key(
            federation.task, next(one.sum_sha256 for one in manifest.inputs if one.sum_sha256)
        ),
        "manifest": manifest_key(federation.task, version),
    }[what]
    store = federation.store.store
    whole = store.get(key)
    at = whole.index(b'"accepted":') + 11 if what == "manifest" else len(whole) // 2
    store.put(key, whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    arguments = ["--home", str(federation.settings.home), "audit", "--task", federation.task, "--json"]
    try:
        capfd.readouterr()
        assert cli.main(arguments) == 1
        text = capfd.readouterr().out
        assert key in text
        assert json.loads(text)["identical"] is False
    finally:
        store.put(key, whole)
    assert cli.main(arguments) == 0
    assert json.loads(capfd.readouterr().out)["identical"] is True
