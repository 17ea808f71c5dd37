"""Whoever may write to the broker may write anything, in any way that Kafka knows: no partition stops for it."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer

from aggregation.fold.rejections import ACCEPTED
from fluvial.proof.audit import audit_task
from schemas.topics import updates_topic, verdicts_topic
from tests import factories
from tests.integration.pipeline import Federation
from tests.waiting import WAIT_S, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backends.settings import Settings

SLOT = ("eu", 0)
POLICY = factories.policy(
    window={"updates_max": 3, "seconds_max": 3600.0}, buffer={"updates": 3, "seconds_max": 3600.0}
)


@pytest.fixture
def federation(stack: Settings, tmp_path: Path) -> Iterator[Federation]:
    federation = Federation(stack, tmp_path, {"eu": 1}, POLICY)
    yield federation
    federation.end()


def in_a_transaction(federation: Federation, topic: str, value: bytes, *, commit: bool) -> None:
    """Write as a transactional producer; returns once the marker, which is no record, has taken its offset."""
    with federation.reader() as reader:
        _, end = reader.bounds(topic, 0)
        servers = federation.settings.bootstrap_servers
        stranger = Producer({"bootstrap.servers": servers, "transactional.id": uuid.uuid4().hex})
        stranger.init_transactions(WAIT_S)
        stranger.begin_transaction()
        stranger.produce(topic, value, partition=0)
        assert stranger.flush(WAIT_S) == 0
        (stranger.commit_transaction if commit else stranger.abort_transaction)(WAIT_S)
        until(lambda: reader.bounds(topic, 0)[1] >= end + 2, "the marker")


def test_transactions_in_the_log_are_judged_and_audited_like_all_else(federation: Federation) -> None:
    """The marker's offset gets a verdict; an aborted update stands in the log, and counts for worker and audit."""
    worker = federation.start("worker")
    federation.await_verdicts(SLOT, federation.append(SLOT, federation.update("d-1")))
    updates = updates_topic(federation.task, "eu")
    in_a_transaction(federation, updates, federation.update("d-2"), commit=False)
    in_a_transaction(federation, updates, b"not an update", commit=True)
    verdicts = federation.await_verdicts(SLOT, federation.append(SLOT, federation.update("d-3")))
    assert [verdicts[offset].outcome for offset in range(6)] == [
        ACCEPTED,
        ACCEPTED,
        "undecodable",
        "undecodable",
        "undecodable",
        ACCEPTED,
    ]
    # A marker is the newest thing here now: a worker that resumes must not wait for a record that cannot come.
    in_a_transaction(federation, verdicts_topic(federation.task, "eu"), b"noise", commit=True)
    worker.kill()
    federation.start("worker")
    federation.start("merger")
    federation.await_version(1)
    report = audit_task(federation.settings, federation.task_file, jobs=1)
    assert report.identical, list(report.findings)
    assert report.versions == federation.head
