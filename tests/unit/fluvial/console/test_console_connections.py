"""Connections that never ask anything: the console as a process, with as many open files as a shell gives it."""

from __future__ import annotations

import re
import resource
import socket
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING

import pytest

from fluvial.console.limits import CONNECTIONS_MAX
from tests.unit.fluvial.console.console_home import LongLog, fill_store, page_on
from tests.waiting import WAIT_S, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILES_MAX = 1024
HALF_OPEN = 1100


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """Where a console listens that may open ``FILES_MAX`` files."""
    page_on(fill_store(tmp_path / "store", 3, 1), LongLog(), tmp_path, head=3)
    log = tmp_path / "console.log"
    command = [sys.executable, "-m", "fluvial", "--home", str(tmp_path), "console", "--port", "0"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (FILES_MAX, FILES_MAX))
    try:
        until(
            lambda: "console: http://" in log.read_text() or process.poll() is not None, "the console", WAIT_S
        )
        found = re.search(r"console: http://127.0.0.1:(\d+)", log.read_text())
        assert found, log.read_text()
        yield int(found[1])
        assert process.poll() is None, "it lives on"
        assert "Traceback" not in log.read_text()
    finally:
        process.terminate()
        process.wait(WAIT_S)


def healthy(port: int) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=WAIT_S) as answer:
        return bool(answer.status == 200)


def test_half_open_connections_keep_nobody_out(port: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    half_open: list[socket.socket] = []
    try:
        for number in range(HALF_OPEN):
            connection = socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)
            connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " if number % 2 else b"")
            half_open.append(connection)
            if number % 250 == 0:
                assert healthy(port)
        assert healthy(port)
        for connection in half_open[: HALF_OPEN - CONNECTIONS_MAX - 50]:
            assert connection.recv(1) == b"", "the oldest were closed"
        assert healthy(port)
    finally:
        for connection in half_open:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
