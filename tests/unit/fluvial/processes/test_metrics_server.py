"""The HTTP side of metrics, over real sockets."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest

from backends.observing.endpoints import CONNECTIONS_MAX, REQUEST_BYTES_MAX, MetricsServer
from backends.observing.metrics import Metrics
from backends.settings import Settings, StoreSettings
from fluvial.processes.identity import ProcessIdentity
from fluvial.processes.metrics_server import MetricsOptions, remove_targets, targets_folder
from fluvial.processes.observing import observing
from tests.waiting import WAIT_S

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROBLEM = {"ready": ""}
FLEET = ProcessIdentity("t", "fleet", "fleet-1")


@pytest.fixture
def address() -> Iterator[str]:
    PROBLEM["ready"] = ""
    server = MetricsServer(
        Metrics("fleet").registry, live=lambda: "", ready=lambda: PROBLEM["ready"], host="127.0.0.1", port=0
    )
    server.start()
    yield server.address
    server.close()


def get(address: str, path: str, accept: str = "") -> tuple[int, str, str]:
    request = urllib.request.Request(f"http://{address}{path}", headers={"Accept": accept})
    try:
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read().decode()


def raw(address: str, data: bytes) -> bytes:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=8) as connection:
        connection.sendall(data)
        try:
            return connection.makefile("rb").read()
        except ConnectionResetError:  # closed with bytes of ours unread
            return b""


def settings(home: Path) -> Settings:
    return Settings(
        home=home, bootstrap_servers="127.0.0.1:1", store=StoreSettings(kind="file", path=home / "objects")
    )


def test_paths_answer_and_everything_else_is_not_found(address: str) -> None:
    assert "fluvial_build_info" in get(address, "/metrics")[2]
    assert get(address, "/metrics?x=1")[1].startswith("text/plain")
    assert get(address, "/metrics", "application/openmetrics-text; version=1.0.0")[2].endswith("# EOF\n")
    assert [get(address, path)[0] for path in ("/livez", "/healthz", "/readyz", "/", "/metrics/x")] == [
        200, 200, 200, 404, 404,
    ]  # fmt: skip
    PROBLEM["ready"] = "not yet"
    assert get(address, "/readyz")[::2] == (503, "not yet\n")


def test_what_is_no_small_get_is_refused_and_the_next_one_is_answered(address: str) -> None:
    assert b" 405 " in raw(address, b"POST /metrics HTTP/1.1\r\n\r\n")
    assert raw(address, b"\x16\x03\x01 nonsense\r\n\r\n") == b""
    assert raw(address, b"GET / HTTP/1.1\r\nA: " + b"x" * 2 * REQUEST_BYTES_MAX) == b""
    assert raw(address, b"HEAD /livez HTTP/1.1\r\n\r\n").endswith(b"\r\n\r\n")
    assert get(address, "/livez")[0] == 200


def test_who_connects_and_asks_nothing_keeps_nobody_out(address: str) -> None:
    host, _, port = address.rpartition(":")
    before = threading.active_count()
    idle = []
    for number in range(3 * CONNECTIONS_MAX):
        connection = socket.create_connection((host, int(port)), timeout=WAIT_S)
        connection.sendall(b"GET " if number % 2 else b"")
        idle.append(connection)
    assert [get(address, path)[0] for path in ("/livez", "/metrics", "/readyz")] == [200, 200, 200]
    assert threading.active_count() <= before + CONNECTIONS_MAX + 1
    for connection in idle[:CONNECTIONS_MAX]:
        assert connection.recv(1) == b"", "the oldest were closed"
    for connection in idle:
        connection.close()
    assert get(address, "/livez")[0] == 200


def test_a_port_in_use_is_said_and_a_free_one_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said: list[str] = []
        warned: list[str] = []
        with observing(settings(tmp_path), FLEET, MetricsOptions(port), say=said.append, warn=warned.append):
            (found,) = json.loads(target_of(tmp_path, os.getpid()).read_text())
            assert found["labels"] == {"task": "t", "role": "fleet", "process": "fleet-1"}
            (address,) = found["targets"]
            assert address in said[0] and not address.endswith(f":{port}")
            assert get(address, "/metrics")[0] == 200
        assert len(warned) == 1 and "FLV-7001" in warned[0] and str(port) in warned[0]
    assert not list(targets_folder(tmp_path).iterdir())


def test_without_metrics_nothing_is_served_or_written(tmp_path: Path) -> None:
    with observing(settings(tmp_path), FLEET, MetricsOptions(on=False)):
        assert not targets_folder(tmp_path).exists()


def target_of(home: Path, pid: int, name: str = "t-fleet-1") -> Path:
    return targets_folder(home) / f"{name}.{pid}.json"


def test_processes_of_one_name_have_a_file_each_and_what_killed_ones_left_is_removed(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    alive, killed = target_of(tmp_path, os.getppid()), target_of(tmp_path, ended.pid)
    others = [target_of(tmp_path, ended.pid, name) for name in ("t-fleet-10", "u-fleet-1")]
    odd = targets_folder(tmp_path) / "t-fleet-1.json"
    targets_folder(tmp_path).mkdir(parents=True)
    for path in (alive, killed, odd, *others):
        path.write_text("[]\n")
    with observing(settings(tmp_path), FLEET):
        found = {*targets_folder(tmp_path).iterdir()}
        assert found == {alive, odd, *others, target_of(tmp_path, os.getpid())}
    assert {*targets_folder(tmp_path).iterdir()} == {alive, odd, *others}


def test_a_successors_file_stays_and_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    path = target_of(tmp_path, os.getpid())
    with observing(settings(tmp_path), FLEET):
        path.write_text("[]\n")
    assert path.read_text() == "[]\n"
    assert remove_targets(tmp_path) == 1 and not path.exists()


def test_a_home_that_cannot_be_written_is_said_and_metrics_are_served(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file where a folder should be")
    said: list[str] = []
    warned: list[str] = []
    with observing(settings(tmp_path), FLEET, say=said.append, warn=warned.append):
        assert get(said[0].rpartition("//")[2].partition("/")[0], "/livez")[0] == 200
    assert "FLV-7003" in warned[0]
