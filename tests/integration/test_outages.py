"""Kafka away, the store away, an object missing: whoever needs it waits, says so, and goes on. Nothing is lost."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from aggregation.fold.rejections import ACCEPTED
from backends.kafka.writing import LogWriter
from backends.store.factory import open_object_store
from backends.store.file import FileStore
from fluvial.proof.audit import audit_task
from schemas.objects import object_key
from schemas.topics import updates_topic
from tests import factories
from tests.integration.pipeline import Federation, Running
from tests.requirements import require_minio
from tests.waiting import WAIT_S, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backends.settings import Settings
    from fluvial.local.stack import LocalStack


SLOT = ("eu", 0)
PER_VERSION = 3
STOP_S = 120.0
# A window closes when it is full, never by the clock; one window makes one version.
POLICY = factories.policy(
    window={"updates_max": PER_VERSION, "seconds_max": 3600.0},
    buffer={"updates": PER_VERSION, "seconds_max": 3600.0},
)


@pytest.fixture
def federation(breakable_stack: LocalStack, tmp_path: Path) -> Iterator[Federation]:
    federation = Federation(breakable_stack.up(), tmp_path, {"eu": 1}, POLICY)
    yield federation
    federation.end()


@pytest.fixture
def worker(federation: Federation) -> Running:
    return federation.start("worker", "worker")


@pytest.fixture
def merger(federation: Federation) -> Running:
    return federation.start("merger", "merger")


class Sender:
    """Devices that never come twice, on whatever version is the head."""

    def __init__(self, federation: Federation) -> None:
        self.federation = federation
        self.count = 0

    def one(self, base: int = 0) -> bytes:
        self.count += 1
        return self.federation.update(f"d-{self.count:04d}", base=base, seed=self.count)

    def window(self, base: int = 0) -> int:
        """As many updates as close a window; the last one's offset."""
        return [self.federation.append(SLOT, self.one(base)) for _ in range(PER_VERSION)][-1]


def version_is_known(federation: Federation, version: int) -> None:
    """Wait until the partition has folded a version's barrier."""
    until(
        lambda: any(v.detail.startswith(f"barrier to version {version} ") for v in federation.verdicts(SLOT)),
        f"the barrier of version {version}\n{federation.logs()}",
    )


def all_is_well(federation: Federation) -> None:
    """One verdict an offset, everything accepted that was sent, and the audit is identical."""
    by_offset = {verdict.offset: verdict for verdict in federation.verdicts(SLOT)}
    assert sorted(by_offset) == list(range(len(federation.log(SLOT))))
    report = audit_task(federation.settings, federation.task_file, jobs=1)
    assert report.identical, list(report.findings)
    assert report.versions == federation.head


def test_kafka_dies_and_comes_back(
    breakable_stack: LocalStack, federation: Federation, worker: Running, merger: Running
) -> None:
    sender = Sender(federation)
    sender.window()
    version_is_known(federation, 1)
    said = {one.name: len(one.log) for one in (worker, merger)}
    breakable_stack.kill("kafka")
    try:
        writer = LogWriter(federation.settings, "patient-device", give_up=False)
        topic = updates_topic(federation.task, "eu")
        futures = [writer.append(topic, sender.one(base=1), partition=0) for _ in range(PER_VERSION)]
        worker.says("waiting", after=said["worker"])
        merger.says("waiting", after=said["merger"])
        assert not any(future.done() for future in futures)
    finally:
        breakable_stack.start("kafka")
    writer.flush(WAIT_S)
    last = max(future.result(timeout=0).offset for future in futures)
    verdicts = federation.await_verdicts(SLOT, last)
    assert [verdicts[future.result().offset].outcome for future in futures] == [ACCEPTED] * PER_VERSION
    version_is_known(federation, 2)
    all_is_well(federation)


def test_the_store_dies_and_comes_back(
    breakable_stack: LocalStack, federation: Federation, worker: Running, merger: Running
) -> None:
    require_minio(federation.settings)
    sender = Sender(federation)
    sender.window()
    version_is_known(federation, 1)
    values = [sender.one(base=1) for _ in range(PER_VERSION)]
    breakable_stack.kill("minio")
    try:
        for value in values:
            federation.append(SLOT, value)
        worker.says("waiting to store a window of")
        assert len(federation.aggregates(SLOT)) == 1, "an aggregate came before its objects"
    finally:
        breakable_stack.start("minio")
    version_is_known(federation, 2)
    assert merger.process.poll() is None
    all_is_well(federation)


def test_the_store_is_away_when_the_merger_needs_it(
    breakable_stack: LocalStack, federation: Federation, worker: Running
) -> None:
    """The window is there; its merger starts into an outage."""
    require_minio(federation.settings)
    sender = Sender(federation)
    sender.window()
    until(lambda: federation.aggregates(SLOT), f"a window\n{federation.logs()}")
    breakable_stack.kill("minio")
    try:
        merger = federation.start("merger", "merger")
        merger.says("waiting to ")
    finally:
        breakable_stack.start("minio")
    version_is_known(federation, 1)
    all_is_well(federation)


def test_kafka_is_away_when_worker_and_merger_start(
    breakable_stack: LocalStack, federation: Federation
) -> None:
    sender = Sender(federation)
    sender.window()
    breakable_stack.kill("kafka")
    try:
        worker, merger = federation.start("worker", "worker"), federation.start("merger", "merger")
        worker.says("waiting ")
        merger.says("waiting ")
    finally:
        breakable_stack.start("kafka")
    version_is_known(federation, 1)
    all_is_well(federation)


def test_a_reference_that_is_missing_is_waited_for(federation: Federation, merger: Running) -> None:
    first = federation.start("worker", "worker-1")
    sender = Sender(federation)
    sender.window()
    version_is_known(federation, 1)
    assert first.stop() == 0

    key = object_key(federation.task, federation.store.manifest(1).reference_sha256)
    whole = federation.store.store.get(key)
    remove(federation.settings, key)
    try:
        second = federation.start("worker", "worker-2")
        last = sender.window(base=1)
        second.says("waiting to load what")
        assert key in second.log
        assert last not in {verdict.offset for verdict in federation.verdicts(SLOT)}, (
            "it went on without the object"
        )
    finally:
        federation.store.store.put(key, whole)
    federation.await_verdicts(SLOT, last)
    version_is_known(federation, 2)
    all_is_well(federation)


def test_sums_that_are_damaged_are_folded_again(federation: Federation, worker: Running) -> None:
    sender = Sender(federation)
    sender.window()
    window = until(lambda: federation.aggregates(SLOT), f"a window\n{federation.logs()}")[0]
    key = object_key(federation.task, window.sum_sha256)
    whole = federation.store.store.get(key)
    federation.store.store.put(key, whole[:-1] + bytes([whole[-1] ^ 1]))
    federation.start("merger", "merger")
    version_is_known(federation, 1)
    assert federation.store.store.get(key) == whole, "what the log gives stands there again"
    all_is_well(federation)


@pytest.mark.parametrize("service", ["kafka", "minio"])
def test_sigterm_ends_what_waits_for_an_outage_to_end(
    breakable_stack: LocalStack, federation: Federation, worker: Running, merger: Running, service: str
) -> None:
    if service == "minio":
        require_minio(federation.settings)
    sender = Sender(federation)
    sender.window()
    version_is_known(federation, 1)
    values = [sender.one(base=1) for _ in range(PER_VERSION)]
    said = len(worker.log)
    breakable_stack.kill("kafka" if service == "kafka" else "minio")
    try:
        if service == "minio":
            for value in values:
                federation.append(SLOT, value)
        worker.says("waiting", after=said)
        for one in (worker, merger):
            one.signal(signal.SIGTERM)
        assert [one.process.wait(STOP_S) for one in (worker, merger)] == [0, 0], federation.logs()
    finally:
        breakable_stack.start("kafka" if service == "kafka" else "minio")


def remove(settings: Settings, key: str) -> None:
    """Delete an object, which the pipeline's own interface cannot do."""
    store = open_object_store(settings.store)
    if isinstance(store, FileStore):
        assert settings.store.path is not None
        (settings.store.path / key).unlink()
    else:
        store._client.remove_object(settings.store.bucket, key)  # type: ignore[attr-defined]
    assert not store.exists(key)
