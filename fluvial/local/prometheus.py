"""Prometheus of the local stack: it watches the processes of one home, with the rules of ``infra/prometheus``.

Nothing depends on it. Where it is not installed, or does not start, the stack comes up all the same and says so.
"""

from __future__ import annotations

import shutil
import string
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import urllib3

from aggregation.errors import TimeoutProblem
from fluvial.local import names, ports
from fluvial.local.process import Daemon
from fluvial.local.resources import infra_file

if TYPE_CHECKING:
    from fluvial.terminal.output import Reporter

INSTALL_HINT: Final = (
    "install it with `sudo apt install --no-install-recommends prometheus` (Debian, Ubuntu; its own service may "
    "stay off: `sudo systemctl disable --now prometheus`), then `fluvial up --with-prometheus` again"
)
NOT_INSTALLED: Final = (
    "warning[FLV-7020]: there is no `prometheus` on this machine: the stack runs without it\n"
    f"hint: {INSTALL_HINT}"
)
READY_TIMEOUT_S: Final = 180.0
RETENTION: Final = "15d"
DOCS_ADDRESS: Final = "http://127.0.0.1:8440"
"""Where `fluvial console` serves by itself, and with it the runbooks that alerts link to."""
_PROBE_TIMEOUT_S: Final = 1.0
_HTTP_OK: Final = 200


def find_prometheus() -> Path | None:
    """The program on the path; None where it is not installed."""
    found = shutil.which("prometheus")
    return Path(found) if found is not None else None


class PrometheusServer:
    """The server of one home folder. Holds no state of its own: everything is in the folder."""

    def __init__(self, home: Path, rules: Path | None = None) -> None:
        """Describe the server of ``home``; nothing is touched yet. ``rules`` replaces the folder of the rules."""
        self._home = home
        self.data = home / "data" / "prometheus"
        self.config = home / "config" / "prometheus.yml"
        self._metrics = home / "run" / "metrics"
        self._rules = rules
        self.daemon = Daemon(
            name="Prometheus",
            pid_path=home / "run" / "prometheus.json",
            console=home / "logs" / "prometheus.log",
            marker=str(self.data),
            folder=home,
        )

    def start(self, port: int, program: Path) -> None:
        """Start on ``port`` of 127.0.0.1; ``wait_ready`` says when it serves.

        Raises EnvironmentProblem: FLV-1008, it does not start.
        """
        self.data.mkdir(parents=True, exist_ok=True)
        self._metrics.mkdir(parents=True, exist_ok=True)
        self.config.parent.mkdir(parents=True, exist_ok=True)
        self.config.write_text(configuration(), encoding="utf-8")
        rules = self.config.with_name("rules")
        shutil.rmtree(rules, ignore_errors=True)
        shutil.copytree(self._rules or infra_file("prometheus/rules/alerts.yml").parent, rules)
        self.daemon.start(
            [
                str(program),
                f"--config.file={names.seen_from(self._home, self.config)}",
                f"--storage.tsdb.path={names.seen_from(self._home, self.data)}",
                f"--storage.tsdb.retention.time={RETENTION}",
                f"--web.listen-address={ports.LOOPBACK}:{port}",
                "--log.level=warn",
            ]
        )

    def wait_ready(self, port: int, reporter: Reporter) -> None:
        """Wait until it serves.

        Raises EnvironmentProblem: FLV-1008, it ended. TimeoutProblem: FLV-1009, it does not answer in time.
        """
        with reporter.waiting(f"Prometheus to answer on {ports.LOOPBACK}:{port}") as waiting:
            while waiting.seconds < READY_TIMEOUT_S:
                if self.daemon.process() is None:
                    raise self.daemon.died("its process ended")
                if _is_ready(port):
                    return
                time.sleep(0.1)
        raise TimeoutProblem(
            "FLV-1009",
            f"Prometheus (on {ports.LOOPBACK}:{port}) does not answer after {READY_TIMEOUT_S:.0f} s",
            where=self.daemon.log_tail(),
            hint=f"read {self.daemon.console}; a machine under heavy load may only need `fluvial up` again",
        )


def configuration() -> str:
    """``infra/prometheus/prometheus.yml`` as it lies in a home: its lists of files are globs below its folder."""
    template = string.Template(infra_file("prometheus/prometheus.yml").read_text("utf-8"))
    return template.safe_substitute(
        metrics_folder="../run/metrics", rules_folder="rules", docs_address=DOCS_ADDRESS
    )


def _is_ready(port: int) -> bool:
    try:
        answer = urllib3.request(
            "GET",
            f"http://{ports.LOOPBACK}:{port}/-/ready",
            timeout=_PROBE_TIMEOUT_S,
            retries=False,
            redirect=False,
        )
    except urllib3.exceptions.HTTPError:
        return False
    return answer.status == _HTTP_OK
