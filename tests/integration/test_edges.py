"""An edge on the real stack: its devices' updates are in versions, a kill costs nothing, the audit walks down."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregation.fold.events import EdgeAggregate
from backends import keys
from backends.settings import Settings
from fluvial.proof.audit import audit_task
from fluvial.proof.audit.edges import EdgesAsked
from producers.sdk.device import Device
from schemas import avro
from schemas.certificates import Role
from schemas.edges import edge_record
from schemas.records import decode_record
from schemas.topics import aggregates_topic, updates_topic, verdicts_topic
from schemas.verdicts import decode_verdict
from schemas.windows import aggregate_of
from tests.factories import devices, edge_policy
from tests.integration.pipeline import Federation, Running, run_command, start_process
from tests.waiting import WAIT_S, until

EDGE = "eu.e1"
POLICY = edge_policy(
    window={"updates_max": 4, "seconds_max": 0.3},
    buffer={"updates": 6, "seconds_max": 2.0},
    edges={"updates_max": 16},
)


@pytest.fixture
def federation(stack: Settings, tmp_path: Path) -> Iterator[Federation]:
    federation = Federation(stack, tmp_path, {"eu": 2}, POLICY)
    yield federation
    federation.end()


def start_edge(federation: Federation, name: str) -> Running:
    arguments = ["edge", "start", EDGE, "--task", federation.task, "--name", "edge-1"]
    started = start_process(federation.settings.home, federation.folder, arguments, name)
    federation.running.append(started)
    return started


def publish_below(federation: Federation, names: list[str], *, base: int) -> None:
    for number, name in enumerate(names):
        federation.append(
            (EDGE, 0), federation.update(name, region=EDGE, base=base, seed=100 * base + number)
        )


def heard(federation: Federation) -> list[EdgeAggregate]:
    trust = federation.trust
    return [
        event
        for slot in federation.slots
        for record in federation.log(slot)
        if isinstance(event := decode_record(record.value, record.timestamp_ms, trust, POLICY), EdgeAggregate)
    ]


def unjudged(federation: Federation) -> set[int]:
    """Offsets of the edge's log without a verdict. After a kill one may have two, so that numbers say nothing."""
    edges_log = {one.offset for one in federation.records(updates_topic(federation.task, EDGE))}
    verdicts = federation.records(verdicts_topic(federation.task, EDGE))
    return edges_log - {decode_verdict(one.value or b"").offset for one in verdicts}


def test_a_killed_edge_loses_nothing_and_doubles_nothing_and_is_audited(federation: Federation) -> None:
    done = run_command(federation.settings.home, "edge", "create", EDGE, "--task", federation.task, "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["topics"]) >= 4
    federation.start("worker")
    federation.start("merger")
    edge = start_edge(federation, "edge-first")
    ones = devices(5)
    publish_below(federation, ones[:4], base=0)
    federation.append(("eu", 0), federation.update(devices(1, partitions=2)[0], base=0))
    federation.await_version(1)

    # A device of the edge by the SDK: it hears of the version from the edge's own topic.
    path = keys.issue(federation.keys, EDGE, Role.DEVICE, ones[4])
    with Device.open(federation.settings, task=federation.task, region=EDGE, key=path) as device:
        base = device.fetch(newer_than=0, timeout_s=WAIT_S)
        step = {name: value + np.float32(0.01) for name, value in device.arrays(base).items()}
        outcome = device.contribution(base, step, num_examples=10, loss=0.5)
        receipt = device.publish(base, outcome)
        assert device.verdict(receipt, timeout_s=WAIT_S).outcome == "accepted"
    assert receipt.topic == updates_topic(federation.task, EDGE)

    publish_below(federation, ones[:2], base=1)
    edge.kill()
    publish_below(federation, ones[2:4], base=1)
    edge = start_edge(federation, "edge-second")
    federation.await_version(2)
    until(lambda: sum(one.window.accepted for one in heard(federation)) == 9, federation.logs())
    until(lambda: unjudged(federation) == set(), federation.logs())
    edge.signal(signal.SIGINT)
    assert edge.process.wait(WAIT_S) == 0, edge.log
    assert "Traceback" not in edge.log

    windows = heard(federation)
    assert [one.window.sequence for one in windows] == list(range(len(windows)))
    report = audit_task(federation.settings, federation.task_file, jobs=1, edges=EdgesAsked(demanded=True))
    assert report.identical, [str(one) for one in report.findings]
    assert [one.slot[0] for one in report.edges.partitions] == [EDGE]

    forge(federation, windows[-1])
    report = audit_task(federation.settings, federation.task_file, jobs=1)
    assert [(one.error_id, one.what) for one in report.findings] == [
        ("FLV-5024", f"window {len(windows)} of edge {EDGE}")
    ]


def forge(federation: Federation, last: EdgeAggregate) -> None:
    """A window that the edge's log does not give, signed with the edge's key."""
    newest = federation.records(aggregates_topic(federation.task, EDGE))[-1]
    payload = avro.decode(newest.value or b"")[1]["payload"]
    fields: dict[str, Any] = avro.decode(payload)[1]
    fields |= {
        "sequence": last.window.sequence + 1,
        "previous_sha256": last.window.sha256,
        "counts": {"duplicate": 1},
        **dict.fromkeys(("accepted", "weight_total", "staleness_total", "staleness_max", "update_bytes"), 0),
        "sum_sha256": "",
        "buckets": [{"accepted": 0, "weight": 0}],
        **{name: [] for name in ("norms", "cosines", "shares", "bases")},
    }
    forged = avro.encode("RegionalAggregate", fields)
    record = edge_record(aggregate_of(fields, forged), forged, last.model_sha256, None)
    by = federation.signer(keys.signer_path(federation.keys, EDGE, Role.EDGE, "edge"))
    (slot,) = [
        slot
        for slot in federation.slots
        if any(b"EdgeAggregate" in (one.value or b"")[:32] for one in federation.log(slot))
    ]
    at = federation.append(slot, by.sign("EdgeAggregate", record))
    verdict = federation.await_verdicts(slot, at)[at]
    assert verdict.outcome == "aggregated", verdict.detail
