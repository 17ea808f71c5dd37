"""Starting services: a port that another program took, and left again, costs another attempt and no start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aggregation.errors import EnvironmentProblem
from backends.settings import StackFile
from fluvial.local.process import Daemon
from fluvial.local.starting import Starting
from fluvial.terminal.output import quiet_output

if TYPE_CHECKING:
    from pathlib import Path

TAKEN = {
    "Java": "Caused by: java.net.BindException: Address already in use\n",
    "Go": "listen tcp 127.0.0.1:9000: bind: address already in use\n",
}


def started(home: Path, log: str, failures: int) -> tuple[list[int], StackFile]:
    """The ports that were tried, where the first so many starts end with ``log`` at the end of the service's log."""
    daemon = Daemon("Kafka", home / "kafka.json", home / "kafka.out", "no such process")
    tried: list[int] = []

    def attempt(state: StackFile) -> None:
        tried.append(state.kafka_port)
        if len(tried) <= failures:
            daemon.console.write_text(log)
            raise EnvironmentProblem("FLV-1008", "Kafka stopped while starting")

    starting = Starting(home, quiet_output())
    state = starting._on_free_ports("Kafka", ("kafka_port",), StackFile(store_kind="file"), attempt, daemon)
    return tried, state


@pytest.mark.parametrize("log", TAKEN.values(), ids=TAKEN.keys())
def test_a_port_that_was_taken_for_a_moment_is_changed(tmp_path: Path, log: str) -> None:
    tried, state = started(tmp_path, log, failures=1)
    assert len(set(tried)) == 2 and state.kafka_port == tried[-1]


def test_another_reason_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem):
        started(tmp_path, "java.lang.OutOfMemoryError\n", failures=1)


def test_it_gives_up_in_the_end(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem):
        started(tmp_path, TAKEN["Java"], failures=100)
