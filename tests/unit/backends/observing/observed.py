"""Observers of roles for tests, records for them to see, and the values that they then show."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from aggregation.fold import state as partition_state
from aggregation.fold.events import RejectedRecord, Verdict
from aggregation.fold.rejections import RejectionReason
from aggregation.reasons import NOTHING
from backends.log import LogRecord
from backends.observing.metrics import Metrics
from backends.observing.roles import BY_ROLE
from tests import factories

if TYPE_CHECKING:
    from pathlib import Path

    from aggregation.fold.state import PartitionState
    from backends.observing.process import MetricsObserver
    from backends.observing.worker import WorkerMetrics

SLOT = ("eu", 0)


def made(role: str, home: Path) -> Any:
    return BY_ROLE[role](Metrics(role), task="t", home=home)


def value(observer: MetricsObserver, name: str, **labels: str) -> float | None:
    observer.refresh()
    return observer.metrics.registry.get_sample_value(name, labels)


def state() -> PartitionState:
    return partition_state.initial(
        task="t",
        region="eu",
        partition=0,
        partitions=1,
        layout=factories.LAYOUT,
        policy=factories.policy(window={"updates_max": 4}),
        model_sha256="0" * 64,
    )


def record(offset: int = 0, timestamp_ms: int | None = None) -> LogRecord:
    now_ms = time.time_ns() // 1_000_000 if timestamp_ms is None else timestamp_ms
    return LogRecord("fl.t.updates.eu", 0, offset, now_ms, None, b"x")


def judge(worker: WorkerMetrics, offset: int, device: str, outcome: str = "accepted") -> None:
    event = RejectedRecord(RejectionReason.UNDECODABLE, NOTHING)
    worker.folding(SLOT, record(offset))
    worker.judged(SLOT, record(offset), event, Verdict(offset, outcome, device_id=device))
    worker.folded(SLOT, record(offset), state())
