"""Every expression of every dashboard, asked of a real Prometheus that scrapes a small demo: none may come back empty.

A panel whose query finds nothing looks like a quiet system. So this runs what the demo runs (two regions, a fleet with
an attacker and one that breaks the rules, workers, merger, evaluator), a guardian, a canary a region and an auditor,
and asks.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from backends.settings import Settings
from fluvial.local import ports
from infra.grafana.build import BOARDS
from tests.integration.pipeline import Running, run_command, start_process
from tests.requirements import require
from tests.waiting import until

TASK = "watched"
REGIONS = ("eu", "us")
FULL_S = 400.0

MAY_BE_EMPTY = {
    # Reserved: no policy has a privacy budget yet.
    "fluvial_privacy_epsilon": "no policy has a budget",
}
"""Metrics that have no series in this run, and why. Zero is no reason: such panels say ``or vector(0)``."""

POLICY = """
[window]
updates_max = 8
seconds_max = 1.0

[buffer]
updates = 8

[defence]
kind = "guide"
"""

CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: fluvial
    file_sd_configs: [{{files: ["{folder}/*.json"], refresh_interval: 1s}}]
"""


def expressions() -> list[tuple[str, str]]:
    """(where, expression with variables) of every query."""
    return [
        (f"{name}: {panel.title}", query.expr)
        for name, board in BOARDS.items()
        for panel in board.panels
        for query in panel.queries
    ]


def metrics_in(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:fluvial|process)_\w+", expression))


@dataclass
class Prometheus:
    """One server of the test's own."""

    port: int
    process: subprocess.Popen[bytes]

    def get(self, path: str, **parameters: str) -> Any:
        url = f"http://127.0.0.1:{self.port}/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            pytest.fail(f"{parameters}: {error.read().decode()}")

    def is_ready(self) -> bool:
        assert self.process.poll() is None, "Prometheus ended"
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=2).close()
        except (urllib.error.URLError, OSError):
            return False
        return True

    def ask(self, expression: str) -> list[float]:
        """The values that an expression has now; NaN (a quantile of nothing, 0 / 0) is none."""
        for name, value in (("task", TASK), ("region", REGIONS[0]), ("__rate_interval", "5m")):
            expression = expression.replace(f"${name}", value)
        result = self.get("api/v1/query", query=expression)
        assert result["resultType"] == "vector", expression
        return [v for series in result["result"] if not math.isnan(v := float(series["value"][1]))]


@pytest.fixture(scope="module")
def prometheus(stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    require("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    config, port = folder / "prometheus.yml", ports.choose()
    config.write_text(CONFIG.format(folder=stack.home / "run" / "metrics"))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
            ],
            stdout=log,
            stderr=log,
        )
    server = Prometheus(port, process)
    try:
        until(server.is_ready, f"Prometheus answers:\n{(folder / 'log').read_text()}")
        yield server
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def demo(stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Running]]:
    folder = tmp_path_factory.mktemp("demo")
    (folder / "policy.toml").write_text(POLICY)
    regions = ",".join(f"{region}:1" for region in REGIONS)
    words = ["--name", TASK, "--regions", regions, "--policy", str(folder / "policy.toml")]
    created = run_command(stack.home, "task", "create", "digits", *words)
    assert created.returncode == 0, created.stderr
    running = []

    def start(name: str, *arguments: str) -> None:
        command, *rest = arguments
        running.append(start_process(stack.home, folder, [command, "--task", TASK, *rest], name))

    # Torch makes these two slow to start.
    start("evaluator", "evaluator", "--name", "evaluator", "--target", "0.1")
    few = ["--devices", "10", "--attackers", "1", "--misbehaving", "1", "--round-seconds", "1"]
    start("fleet", "fleet", *few)
    for region in REGIONS:
        start(f"worker-{region}", "worker", "--region", region, "--name", f"worker-{region}")
        start(f"canary-{region}", "canary", "--region", region, "--every", "2", "--objective", "30")
    start("merger", "merger", "--name", "merger")
    start("guardian", "guardian", "--name", "guardian")
    start("auditor", "audit", "--every", "20", "--jobs", "1")
    yield running
    for one in running:
        if one.process.poll() is None:
            one.process.terminate()
    for one in reversed(running):
        try:
            one.process.wait(30)
        except subprocess.TimeoutExpired:
            one.kill()


def logs(running: list[Running]) -> str:
    return "\n".join(f"--- {one.name} ({one.process.poll()})\n{one.log[-1500:]}" for one in running)


def test_every_expression_of_every_dashboard_returns_data(
    prometheus: Prometheus, demo: list[Running]
) -> None:
    expected = [
        (where, expression)
        for where, expression in expressions()
        if not metrics_in(expression) & set(MAY_BE_EMPTY)
    ]
    empty = expected
    deadline = time.monotonic() + FULL_S
    while empty and time.monotonic() < deadline:
        ended = [one.name for one in demo if one.process.poll() is not None]
        assert not ended, f"{ended} ended\n{logs(demo)}"
        time.sleep(3)
        empty = [(where, expression) for where, expression in empty if not prometheus.ask(expression)]
    listed = "\n".join(f"{where}\n    {expression}" for where, expression in empty)
    assert not empty, f"{len(empty)} of {len(expected)} expressions find nothing:\n{listed}\n{logs(demo)}"


def test_every_metric_of_the_dashboards_is_one_that_an_exporter_declares(
    prometheus: Prometheus, demo: list[Running]
) -> None:
    """Also those behind ``or vector(0)``, whose expressions are never empty, whatever they ask for."""
    asked = set().union(*(metrics_in(expression) for _, expression in expressions())) - set(MAY_BE_EMPTY)

    def undeclared() -> list[str]:
        known = set(prometheus.get("api/v1/metadata"))
        # The metadata calls a counter without its _total or with it, as the exporter's format has it.
        known |= {f"{name}{end}" for name in known for end in ("_bucket", "_sum", "_count", "_total")}
        return sorted(asked - known)

    until(lambda: not undeclared(), f"declared by an exporter: {undeclared()}\n{logs(demo)}")


def test_the_list_of_what_may_be_empty_holds_only_what_the_dashboards_ask_for() -> None:
    asked = set().union(*(metrics_in(expression) for _, expression in expressions()))
    assert set(MAY_BE_EMPTY) <= asked


def test_every_expression_parses(prometheus: Prometheus) -> None:
    """Those that may be empty too: Prometheus answers a wrong one with an error, which fails here."""
    for _, expression in expressions():
        prometheus.ask(expression)


def test_a_metric_that_nobody_exports_would_be_found(prometheus: Prometheus) -> None:
    assert prometheus.ask('sum(fluvial_nobody_exports_this{task="$task"})') == []
    assert prometheus.ask("vector(0)") == [0.0]
