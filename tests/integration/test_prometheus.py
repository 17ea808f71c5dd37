"""A real Prometheus on the local stack: it scrapes real processes, and its alerts fire and end."""

from __future__ import annotations

import json
import re
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import urllib3

from backends.environment import read_stack_file
from fluvial import cli
from fluvial.local import ports
from fluvial.local.prometheus import DOCS_ADDRESS
from fluvial.local.resources import infra_file
from fluvial.local.stack import LocalStack, StackPlan
from fluvial.terminal.output import Output
from tests import factories
from tests.integration.pipeline import Federation
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backends.settings import Settings

POLICY = factories.policy(window={"updates_max": 2, "seconds_max": 3600.0}, buffer={"updates": 2})


def shortened(folder: Path) -> Path:
    """A copy of the shipped rules in which minutes are seconds: every `for` is 2 s, every range of minutes 20 s.

    Expressions, thresholds, labels and texts are the shipped ones. Ranges of hours stay: they only look further back.
    20 s hold four scrapes, and a rate needs two.
    """
    folder.mkdir()
    for path in infra_file("prometheus/rules/alerts.yml").parent.glob("*.yml"):
        text = re.sub(r"^( +for:) \d+[mh]$", r"\1 2s", path.read_text(), flags=re.MULTILINE)
        (folder / path.name).write_text(re.sub(r"\[\d+m\]", "[20s]", text))
    return folder


class Prometheus:
    """What the server of a home answers."""

    def __init__(self, home: Path) -> None:
        state = read_stack_file(home)
        assert state is not None
        self.address = f"{ports.LOOPBACK}:{state.prometheus_port}"

    def get(self, path: str) -> Any:
        answer = urllib3.request("GET", f"http://{self.address}/api/v1/{path}", timeout=60.0)
        assert answer.status == 200, answer.data
        return answer.json()["data"]

    def query(self, expression: str) -> list[Any]:
        answer = urllib3.request(
            "GET", f"http://{self.address}/api/v1/query", fields={"query": expression}, timeout=60.0
        )
        assert answer.status == 200, answer.data
        found: list[Any] = answer.json()["data"]["result"]
        return found

    def firing(self, task: str) -> dict[str, dict[str, Any]]:
        """The alerts of a task that fire, by name."""
        return {
            alert["labels"]["alertname"]: alert
            for alert in self.get("alerts")["alerts"]
            if alert["state"] == "firing" and alert["labels"].get("task") == task
        }


@pytest.fixture
def prometheus(local_stack: LocalStack, tmp_path: Path) -> Iterator[Prometheus]:
    """A server of the session's home, which has the shortened rules; the stack is left without one again."""
    plan = StackPlan(prometheus_rules=shortened(tmp_path / "rules"))
    with_prometheus(local_stack.home, plan)
    yield Prometheus(local_stack.home)
    stop_prometheus(local_stack.home)


def with_prometheus(home: Path, plan: StackPlan | None = None) -> LocalStack:
    stack = LocalStack(home, reporter=Output(), plan=plan, with_prometheus=True, secured=False)
    stack.up()
    return stack


def pid_of(home: Path) -> int | None:
    return {status.name: status.pid for status in LocalStack(home).status()}.get("prometheus")


def stop_prometheus(home: Path) -> None:
    """End the server alone: its program gone from the path, `up` has nothing to watch with."""
    pid = pid_of(home)
    if pid is not None:
        process = psutil.Process(pid)
        process.terminate()
        psutil.wait_procs([process], timeout=60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fluvial.local.starting.find_prometheus", lambda: None)
        LocalStack(home, reporter=Output()).up()


@contextmanager
def traffic(federation: Federation) -> Iterator[None]:
    """Devices that publish two honest updates a second for the newest version, until the block ends."""
    over = threading.Event()
    problems: list[BaseException] = []

    def publish() -> None:
        try:
            seed = 0
            while not over.wait(0.5):
                seed += 1
                federation.append(
                    ("eu", 0), federation.update(f"d-{seed % 7}", base=federation.head, seed=seed)
                )
        except BaseException as problem:  # it ends the thread, and the test  # noqa: BLE001
            problems.append(problem)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert problems == []


@pytest.mark.needs("prometheus")
def test_a_worker_that_is_killed_lets_alerts_fire_and_its_successor_ends_them(
    prometheus: Prometheus, stack: Settings, tmp_path: Path
) -> None:
    federation = Federation(stack, tmp_path, {"eu": 1}, POLICY)
    task = federation.task
    try:
        federation.start("merger", "merger")
        worker = federation.start("worker", "worker-eu")
        with traffic(federation):
            until(
                lambda: prometheus.query(f'task_region:fluvial_verdicts:rate5m{{task="{task}"}} > 0'),
                f"verdicts are scraped\n{federation.logs()}",
            )
            until(lambda: prometheus.firing(task) == {}, "nothing fires while all is well")
            assert any(
                alert["labels"]["alertname"] == "FluvialDeadMansSwitch"
                for alert in prometheus.get("alerts")["alerts"]
            )

            worker.kill()
            down = until(lambda: prometheus.firing(task).get("FluvialProcessDown"), "the process is down")
            assert down["labels"]["role"] == "worker"
            assert down["labels"]["severity"] == "warning"
            assert down["annotations"]["summary"] == "worker worker-eu does not answer"
            assert (
                down["annotations"]["runbook_url"]
                == f"{DOCS_ADDRESS}/docs/runbooks/process-died.md#what-you-see"
            )
            silent = until(lambda: prometheus.firing(task).get("FluvialRegionSilent"), "the region is silent")
            assert silent["annotations"]["summary"] == "Nothing comes from region eu"

            federation.start("worker", "worker-eu")
            until(lambda: prometheus.firing(task) == {}, f"alerts end\n{federation.logs()}")
    finally:
        federation.end()


@pytest.mark.needs("prometheus")
def test_up_starts_it_once_status_shows_it_and_up_heals_it(
    local_stack: LocalStack, capfd: pytest.CaptureFixture[str]
) -> None:
    home = local_stack.home
    with_prometheus(home)
    try:
        before = pid_of(home)
        assert before is not None
        listening = {
            connection.laddr
            for connection in psutil.Process(before).net_connections(kind="inet")
            if connection.status == psutil.CONN_LISTEN
        }
        assert {address.ip for address in listening} == {"127.0.0.1"}
        assert {f"127.0.0.1:{address.port}" for address in listening} == {Prometheus(home).address}

        LocalStack(home, reporter=Output()).up()
        assert pid_of(home) == before

        psutil.Process(before).kill()
        until(lambda: pid_of(home) is None, "it is gone")
        assert {status.name: status.state for status in LocalStack(home).status()}["prometheus"] == "dead"
        capfd.readouterr()
        assert cli.main(["--home", str(home), "doctor"]) == 1
        assert "should run, and its process is gone" in capfd.readouterr().out

        address = Prometheus(home).address
        LocalStack(home, reporter=Output()).up()
        assert pid_of(home) not in {None, before}
        assert Prometheus(home).address == address, "its port is remembered"
    finally:
        stop_prometheus(home)


@pytest.mark.needs("prometheus")
def test_with_rules_that_are_no_rules_the_stack_comes_up_and_says_so(
    local_stack: LocalStack, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "broken.yml").write_text("groups: [{name: x, rules: [{alert: A, expr: 'sum('}]}]")
    try:
        stack = with_prometheus(local_stack.home, StackPlan(prometheus_rules=tmp_path / "rules"))
        said = capfd.readouterr().err
        assert "warning[FLV-7021]: the stack runs without Prometheus" in said
        states = {status.name: status.state for status in stack.status()}
        assert states.pop("prometheus") == "dead"
        assert set(states.values()) == {"running"}
    finally:
        stop_prometheus(local_stack.home)


def test_where_it_is_not_installed_the_stack_comes_up_with_a_hint(
    local_stack: LocalStack, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fluvial.local.starting.find_prometheus", lambda: None)
    capfd.readouterr()
    assert cli.main(["--home", str(local_stack.home), "up", "--with-prometheus", "--json"]) == 0
    shown = capfd.readouterr()
    assert "warning[FLV-7020]" in shown.err
    assert "sudo apt install --no-install-recommends prometheus" in shown.err
    services = json.loads(shown.out)["services"]
    assert {service["state"] for service in services} == {"running"}
    assert "prometheus" not in {service["name"] for service in services}
