"""An update of just under 8 MB travels inline: producer, broker, Faust's consumer, fold, store, audit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from aggregation.codecs import encode_delta
from aggregation.layout import Layout
from fluvial.proof.audit import audit_task
from tests import factories
from tests.integration.pipeline import Federation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backends.settings import Settings

PARAMETERS = 8_380_000
PEAK_RSS_MB_MAX = 900


@pytest.fixture
def federation(stack: Settings, tmp_path: Path) -> Iterator[Federation]:
    policy = factories.policy(buffer={"updates": 2}, window={"updates_max": 2}, updates={"norm_max": 1000.0})
    layout = Layout.of([("weight", (PARAMETERS,))])
    federation = Federation(stack, tmp_path, {"eu": 1}, policy, layout)
    yield federation
    federation.end()


def test_updates_at_the_limit_are_folded_merged_and_audited(federation: Federation) -> None:
    rng = np.random.default_rng(1)
    delta = (rng.standard_normal(PARAMETERS) * 0.001).astype(np.float32)
    tensors = encode_delta(delta, federation.layout, "int8", rng)
    worker = federation.start("worker")
    federation.start("merger")
    for i in range(2):
        value = federation.update(f"d-{i}", tensors=tensors)
        assert 8_380_000 < len(value) < federation.settings.message_bytes_max
        federation.append(("eu", 0), value)
    verdicts = federation.await_verdicts(("eu", 0), 1)
    assert [verdicts[i].outcome for i in range(2)] == ["accepted", "accepted"]
    federation.await_version(1)
    assert peak_rss_mb(worker.process.pid) < PEAK_RSS_MB_MAX
    report = audit_task(federation.settings, federation.task_file)
    assert report.identical, report.findings.shown


def peak_rss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
