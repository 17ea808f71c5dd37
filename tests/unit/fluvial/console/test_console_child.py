"""A run's console: its address is told, it ends with the run, and when it cannot run the run goes on."""

from __future__ import annotations

import time
import urllib.request
from typing import TYPE_CHECKING

import psutil

from fluvial.console.child import ConsoleChild
from fluvial.terminal.output import Waiting
from tests.unit.fluvial.console.console_home import TASK, LongLog, fill_store, page_on

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LIMIT_S = 120.0


class Said:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str, style: str = "") -> None:
        del style
        self.lines.append(text)

    def waiting(self, what: str) -> Waiting:
        return Waiting(what, self.say, LIMIT_S)


def checked_until(child: ConsoleChild, condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline_s
        child.check()
        time.sleep(0.1)


def test_its_address_is_told_and_it_ends_with_the_run(tmp_path: Path) -> None:
    page_on(fill_store(tmp_path / "store", 1, 1), LongLog(), tmp_path, head=1)
    said = Said()
    with ConsoleChild(tmp_path, tmp_path / "logs", TASK, said) as child:
        checked_until(child, lambda: bool(child.address))
        with urllib.request.urlopen(f"{child.address}healthz", timeout=20) as answer:
            assert answer.read() == b"ok\n"
        pid = child._supervisor.pid("console")
    assert f"watch it live: {child.address}" in said.lines
    assert not psutil.pid_exists(pid)


def test_a_console_that_cannot_run_fails_nothing(tmp_path: Path) -> None:
    said = Said()
    with ConsoleChild(tmp_path, tmp_path / "logs", "no-such-task", said) as child:
        checked_until(child, lambda: any("goes on without it" in line for line in said.lines))
        child.check()
    assert child.address == ""
    assert len([line for line in said.lines if "goes on without it" in line]) == 1
