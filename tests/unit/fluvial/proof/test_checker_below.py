"""The checker walks down: each window of an edge that a log took is one that the edge's own log closes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aggregation.fold.events import WindowClosed
from aggregation.fold.rules import CANONICAL_RULES
from fluvial.proof.checker.below import check_edges
from fluvial.proof.checker.derived import topic_of
from fluvial.proof.checker.partitions import PartitionResult
from fluvial.proof.checker.report import Findings
from fluvial.proof.checker.task import Shelf, Task
from fluvial.proof.checker.wire import notary_of
from schemas.edges import edge_record
from schemas.windows import EncodedWindow
from tests.factories import EDGE, LAYOUT, NOW_MS, TASK, delta, devices, edge_signer, model_sha, tick_bytes
from tests.unit.fluvial.proof.test_checker_learning import layout_of
from tests.unit.fluvial.proof.test_checker_varied import Objects
from tests.vectors import below
from tests.vectors.numbers import layout_of as tensors_of
from tests.vectors.replaying import Log
from tests.vectors.shares import update
from tests.vectors.wire import authorities

POLICY = below.with_edges()
NAMES = devices(6)


def log_of(edge: str, *records: bytes) -> Log:
    """An edge's own log: these, and a tick that closes the window."""
    log = Log(POLICY, region=edge)
    log.keep(POLICY.canonical())
    for record in records:
        log.add(record)
    log.add(tick_bytes(0, by=below.by_worker(edge), region=edge))
    return log


def sent(edge: str, *names: str) -> list[bytes]:
    """Updates of devices below an edge."""
    return [update(name, 0, delta(5), by=below.by_device(name, edge), region=edge) for name in names]


def window_of(log: Log) -> tuple[EncodedWindow, WindowClosed]:
    _, ((_, sealed, closed),) = log.folded(CANONICAL_RULES)
    return sealed, closed


def published(log: Log) -> bytes:
    """What an edge publishes of its only window."""
    sealed, closed = window_of(log)
    record = edge_record(sealed.aggregate, sealed.payload, model_sha(0), closed.sums)
    return edge_signer(log.region).sign("EdgeAggregate", record)


def shelf() -> Shelf:
    pems = authorities()
    task = Task(
        name=TASK,
        genesis_sha256="",
        partitions={"eu": 1, "us": 1},
        layout=layout_of(tensors_of(LAYOUT)),
        policy=json.loads(POLICY.canonical()),
        policy_sha256=POLICY.sha256,
        model_sha256=model_sha(0),
        optimizer_sha256="",
        notary=notary_of(tuple(sorted(pems.items())), canonical=True, named=""),
        verdicts=2,
    )
    return Shelf(Objects(TASK, {}), task)


def walked(chains: dict[str, dict[int, str]], *logs: Log) -> Findings:
    found = Findings()
    topics: dict[tuple[str, int], Any] = {
        (topic_of(TASK, "updates", log.region), 0): [
            (offset, NOW_MS, None, value) for offset, (_, value) in enumerate(log.records)
        ]
        for log in logs
    }
    result = PartitionResult(("eu", 0), chains=chains)
    check_edges(topics, shelf(), {("eu", 0): result}, found, heads={}, revoked={})
    return found


@pytest.fixture(scope="module")
def deep() -> Log:
    return log_of(below.DEEP, *sent(below.DEEP, *NAMES[:2]))


@pytest.fixture(scope="module")
def middle(deep: Log) -> Log:
    return log_of(EDGE, *sent(EDGE, *NAMES[2:4]), published(deep))


def sha_of(log: Log) -> str:
    return window_of(log)[0].aggregate.sha256


def test_windows_that_the_edges_own_logs_give_are_right_at_any_depth(deep: Log, middle: Log) -> None:
    found = walked({EDGE: {0: sha_of(middle)}}, middle, deep)
    assert (found.violations, found.unseen_edges) == ([], [])


def test_a_window_that_the_edge_made_up_is_named(deep: Log, middle: Log) -> None:
    found = walked({EDGE: {0: "0" * 64, 1: "1" * 64}}, middle, deep)
    first, second = found.violations
    assert first.invariant == 4 and f"window 0 of {EDGE} in eu[0] is {'0' * 64}" in first.message
    assert "closes no such window" in second.message
    assert not found.report().identical


def test_a_lie_two_levels_down_is_named_where_it_stands(deep: Log, middle: Log) -> None:
    other = log_of(below.DEEP, *sent(below.DEEP, *NAMES[4:6]))
    found = walked({EDGE: {0: sha_of(middle)}}, middle, other)
    (only,) = found.violations
    assert f"window 0 of {below.DEEP} in {EDGE} is {sha_of(deep)}" in only.message


def test_an_edge_whose_log_is_not_at_hand_is_named(middle: Log) -> None:
    found = walked({EDGE: {0: sha_of(middle)}, below.SECOND: {0: "0" * 64}}, middle)
    assert found.report().unseen_edges == (below.DEEP, below.SECOND)
    assert found.violations == []
