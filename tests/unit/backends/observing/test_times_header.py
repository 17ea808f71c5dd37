"""Publish times go in a header that nobody signed: it is bounded, and what cannot be is clipped or passed over."""

from __future__ import annotations

import itertools
import struct
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from backends.log import LogRecord
from backends.observing.metrics import Metrics
from backends.observing.roles import MergerMetrics
from backends.observing.times_header import AGE_MS_MAX, NAME, TIMES_MAX, PublishTimes, pack, unpack
from backends.observing.worker import WorkerMetrics
from tests.unit.backends.observing.observed import SLOT, judge, state, value

if TYPE_CHECKING:
    from pathlib import Path


def test_publish_times_go_from_the_worker_to_the_merger_in_a_header(tmp_path: Path) -> None:
    worker = WorkerMetrics(Metrics("worker"), task="t", home=tmp_path)
    merger = MergerMetrics(Metrics("merger"), task="t", home=tmp_path)
    worker.resumed(SLOT, state())
    for offset in range(3):
        judge(worker, offset, f"d-{offset}")
    closed: Any = SimpleNamespace(sequence=4)
    headers = worker.window_closed(SLOT, closed, state())
    assert [name for name, _ in headers] == [NAME]
    assert worker.window_closed(SLOT, closed, state()) == ()
    now_ms = time.time_ns() // 1_000_000
    aggregate: Any = SimpleNamespace(slot=SLOT, region="eu", sequence=4, histograms=None)
    merger.window_taken(LogRecord("a", 0, 0, now_ms, None, b"", headers), aggregate)
    manifest: Any = SimpleNamespace(accepted=3, version=1, policy_sha256="a" * 64, inputs=())
    merger.committed(manifest, [aggregate], 100)
    merger.committed(manifest, [aggregate], 100)  # what a window says is counted once
    assert value(merger, "fluvial_publish_to_version_seconds_count", region="eu") == 3
    assert value(merger, "fluvial_version_stored_bytes_total") == 200


def test_times_beyond_what_a_header_holds_are_thinned_evenly() -> None:
    times = PublishTimes()
    for number in range(100_000):
        times.add(number)
    ((_, packed),) = times.headers()
    found = struct.unpack(f"<{len(packed) // 8}q", packed)
    assert TIMES_MAX / 2 < len(found) <= TIMES_MAX
    steps = {after - before for before, after in itertools.pairwise(found)}
    assert max(steps) <= 2 * min(steps) and found[-1] > 99_000
    times.clear()
    assert times.headers() == ()


@pytest.mark.parametrize("bad", [b"", b"1234567", b"\0" * 8 * (TIMES_MAX + 1), b"x" * 9])
def test_a_malformed_header_is_none(bad: bytes) -> None:
    assert unpack(((NAME, bad),), 5) == ()


def test_times_that_cannot_be_are_clipped_and_other_headers_passed_over() -> None:
    now_ms = 1_800_000_000_000
    headers = (("traceparent", b"x"), *pack([-(2**63), now_ms - 5, now_ms, 2**63 - 1]))
    assert unpack(headers, now_ms) == (now_ms - AGE_MS_MAX, now_ms - 5, now_ms, now_ms)
    assert unpack((), now_ms) == () and pack([]) == ()
