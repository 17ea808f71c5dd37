"""Telling of a version: barriers first, acknowledged, and only then the region's announcement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aggregation.errors import ConnectionProblem
from backends.observer import Observer
from schemas.records import Announcement, announcement_in, decode_record
from schemas.topics import models_topic, updates_topic
from stream_apps.merger.adopting import Adopting
from stream_apps.merger.policies import Policies
from stream_apps.merger.telling import Telling
from tests import factories
from tests.unit.stream_apps.merger.merger_parts import PARTITIONS, TASK, Logs, small_task

if TYPE_CHECKING:
    from pathlib import Path

    from stream_apps.merger.version import Version
    from stream_apps.process_context import ProcessContext

MODELS = models_topic(TASK)


class Told(Observer):
    def __init__(self) -> None:
        self.versions: list[int] = []

    def announced(self, version: int) -> None:
        self.versions.append(version)


def genesis_of(context: ProcessContext) -> Version:
    return Adopting(context, Policies(context)).genesis()


def barriers_of(region: str) -> list[str]:
    return [f"{updates_topic(TASK, region)}[{partition}]" for partition in range(PARTITIONS[region])]


def test_a_region_is_told_once_all_its_barriers_are_acknowledged(tmp_path: Path) -> None:
    logs = Logs()
    context = small_task(tmp_path, logs=logs)
    Telling(context, Policies(context)).tell(genesis_of(context), ())
    announcement = f"{MODELS}[0]"
    assert logs.steps == [
        *barriers_of("eu"), "flush", announcement,
        *barriers_of("us"), "flush", announcement, "flush",
    ]  # fmt: skip


def test_a_region_one_of_whose_barriers_the_broker_refuses_is_not_told(tmp_path: Path) -> None:
    logs, observer = Logs(refused=updates_topic(TASK, "us")), Told()
    context = small_task(tmp_path, logs=logs, observer=observer)
    with pytest.raises(ConnectionProblem, match="refused"):
        Telling(context, Policies(context)).tell(genesis_of(context), ())
    assert [record.key for record in logs.records[MODELS, 0]] == [b"eu"]
    assert observer.versions == []


def test_an_announcement_that_the_broker_refuses_is_no_announcement(tmp_path: Path) -> None:
    observer = Told()
    context = small_task(tmp_path, logs=Logs(refused=MODELS), observer=observer)
    with pytest.raises(ConnectionProblem, match="refused"):
        Telling(context, Policies(context)).tell(genesis_of(context), ())
    assert observer.versions == []


def test_what_is_told_is_the_version_with_its_hashes_signed_by_the_merger(tmp_path: Path) -> None:
    logs, observer = Logs(), Told()
    context = small_task(tmp_path, logs=logs, observer=observer)
    version = genesis_of(context)
    headers = (("traceparent", b"00"),)
    Telling(context, Policies(context)).tell(version, headers)
    (record,) = logs.records[updates_topic(TASK, "us"), 0]
    barrier = decode_record(record.value, factories.NOW_MS, context.trust, context.policy)
    shared = ("version", "manifest_sha256", "model_sha256", "policy_sha256")
    named = (version.number, version.manifest_sha256, version.model_sha256, version.policy_sha256)
    assert tuple(getattr(barrier, name) for name in shared) == named
    for record in logs.records[MODELS, 0]:
        said = announcement_in(record.value, factories.NOW_MS, context.trust)
        assert isinstance(said, Announcement)
        assert tuple(getattr(said, name) for name in shared) == named
        assert (said.region.encode(), record.headers) == (record.key, headers)
    assert observer.versions == [0]
