"""Free ports: two processes that choose at the same time, seconds before they bind, choose different ones."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fluvial.local import ports

ROOT = Path(__file__).parents[4]
SAME_DICE = """
import random, sys
from fluvial.local import ports
random.seed(7)
print(ports.choose(), flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def own_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUVIAL_CACHE", str(tmp_path))


def test_what_another_process_has_chosen_and_not_bound_yet_is_not_chosen_again() -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", SAME_DICE], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdin is not None and other.stdout is not None
    try:
        theirs = int(other.stdout.readline())
        random.seed(7)
        assert ports.is_free(theirs) and ports.choose() != theirs
    finally:
        other.communicate("", timeout=30)
    random.seed(7)
    assert ports.choose() == theirs, "its process has ended"


def test_a_preferred_port_is_kept_while_it_is_free() -> None:
    port = ports.choose()
    assert ports.choose(port) == port
    with socket.create_server(("127.0.0.1", port)):
        assert ports.choose(port) != port
    assert ports.choose(port, avoid=frozenset({port})) != port


def test_where_the_cache_cannot_be_written_ports_are_chosen_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FLUVIAL_CACHE", str(tmp_path / "file"))
    assert ports.is_free(ports.choose())
