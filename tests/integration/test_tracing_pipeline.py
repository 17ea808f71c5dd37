"""Traces of a real pipeline, from a device's publish to the commit and its barrier, at a real OTLP/HTTP collector."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from backends import keys
from backends.observing.tracing import tracing
from producers.sdk.device import Device
from producers.sdk.updates import Contribution
from schemas.certificates import Role
from tests import factories
from tests.collector import Collector, collecting
from tests.integration.pipeline import Federation
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backends.settings import Settings

POLICY = factories.policy(window={"updates_max": 2, "seconds_max": 3600.0}, buffer={"updates": 4})
DEVICES = ("traced-device-a", "traced-device-b", "traced-device-c", "traced-device-d")


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as collector:
        monkeypatch.setenv("FLUVIAL_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("FLUVIAL_TRACE_RATIO", "1")
        yield collector


@pytest.fixture
def federation(stack: Settings, tmp_path: Path) -> Iterator[Federation]:
    federation = Federation(stack, tmp_path, {"eu": 1}, POLICY)
    yield federation
    federation.end()


def publish(federation: Federation, collector: Collector) -> None:
    with tracing(collector.url, 1.0, {"service.name": "fluvial-fleet"}) as observer:
        for number, name in enumerate(DEVICES):
            key = keys.issue(federation.keys, "eu", Role.DEVICE, name)
            with Device.open(
                federation.settings, task=federation.task, region="eu", key=key, observer=observer
            ) as device:
                delta = np.full(federation.layout.parameters, 0.001 * (number + 1), dtype=np.float32)
                device.publish(device.fetch(), Contribution(delta, 10, 0.5))


def test_the_chain_from_publish_to_commit_arrives_at_the_collector(
    federation: Federation, collector: Collector
) -> None:
    worker, merger = federation.start("worker", "worker"), federation.start("merger", "merger")
    publish(federation, collector)
    federation.await_version(1)
    last = len(federation.log(("eu", 0))) - 1  # the barrier of version 1
    until(lambda: collector.named("commit"), f"a commit arrives\n{federation.logs()}")
    federation.await_verdicts(("eu", 0), last)
    assert worker.stop() == merger.stop() == 0  # what is under way is delivered at the end
    published, verdicts = collector.named("publish"), collector.named("verdict")
    (merge,) = collector.named("merge")
    (commit,) = [one for one in collector.named("commit") if one.attributes["version"] == 1]
    heads = {one.span_id: one for one in published}
    assert len(published) == 4 and not any(one.error or one.parent_id for one in published)
    of_updates = [one for one in verdicts if one.attributes["outcome"] == "accepted"]
    assert sorted(one.parent_id for one in of_updates) == sorted(heads)
    for verdict in of_updates:
        head = heads[verdict.parent_id]
        assert verdict.trace_id == head.trace_id
        assert [verdict.attributes[name] for name in ("region", "partition", "offset")] == [
            head.attributes[name] for name in ("region", "partition", "offset")
        ]
    windows = {one.span_id: one for one in collector.named("window") if one.attributes["sequence"] in {0, 1}}
    assert len(windows) == 2 and not any(one.parent_id for one in windows.values())
    assert sorted(link for one in windows.values() for link in one.links) == sorted(
        one.span_id for one in of_updates
    )
    assert set(merge.links) == set(windows)
    assert (commit.parent_id, commit.error, commit.attributes["accepted"]) == (merge.span_id, False, 4)
    # The barriers of the version carry the commit on into the regions.
    assert commit.span_id in {one.parent_id for one in verdicts if one.attributes["outcome"] == "control"}
    assert {one.service for one in collector.spans} == {"fluvial-fleet", "fluvial-worker", "fluvial-merger"}
    sent = b"".join(collector.raw)
    assert not [name for name in DEVICES if name.encode() in sent], "device ids are nobody's business"


def test_with_no_collector_the_pipeline_goes_on(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUVIAL_OTLP_ENDPOINT", "http://127.0.0.1:9")
    worker, merger = federation.start("worker", "worker"), federation.start("merger", "merger")
    for seed, name in enumerate(DEVICES):
        federation.append(("eu", 0), federation.update(name, seed=seed))
    federation.await_version(1)
    worker.says("traces do not reach http://127.0.0.1:9")
    assert worker.stop(15.0) == merger.stop(15.0) == 0
    assert worker.log.count("traces do not reach") == 1
    assert "Traceback" not in worker.log + merger.log
