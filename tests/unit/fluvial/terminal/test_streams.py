"""What a command says reaches a stream, whatever letters that has."""

from __future__ import annotations

import errno
import io
import sys

import pytest

from fluvial import cli
from fluvial.terminal import streams
from fluvial.terminal.machine_errors import of_the_machine


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_no_letter_is_one_too_many(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    streams.stand_up()
    sys.stdout.write("✓ Zoë 日 \udcff")
    sys.stdout.flush()
    expected = {"ascii": b"+ Zo\\xeb \\u65e5 \\udcff", "latin-1": b"+ Zo\xeb \\u65e5 \\udcff"}
    assert raw.getvalue() == expected.get(encoding, "✓ Zoë 日 \\udcff".encode())


def test_closed_streams_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    streams.stand_up()
    assert sys.stdin.read() == ""
    sys.stdout.write("x")
    sys.stderr.write("x")


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (OSError(errno.ENOSPC, "", "/a/b"), "No space left on device", "make room"),
        (OSError(errno.EROFS, "", "/a/b"), "Read-only file system", "--home"),
        (PermissionError(errno.EACCES, "", "/a/b"), "Permission denied", "owner or mode"),
        (OSError(errno.EMFILE, "", "/a/b"), "Too many open files", "ulimit -n"),
        (BlockingIOError(errno.EAGAIN, ""), "Resource temporarily unavailable", "processes"),
        (RuntimeError("can't start new thread"), "can't start new thread", "processes"),
        (MemoryError(), "Cannot allocate memory", "memory"),
        (ImportError("x.so: failed to map segment from shared object"), "failed to map", "memory"),
    ],
)
def test_what_the_machine_refuses_is_named(error: Exception, message: str, hint: str) -> None:
    problem = of_the_machine(error)
    assert problem is not None
    assert (problem.error_id, problem.exit_code) == ("FLV-1020", 2)
    assert message in problem.message and hint in problem.hint
    assert problem.where == (getattr(error, "filename", None) or "")


@pytest.mark.parametrize(
    "error",
    [FileNotFoundError(errno.ENOENT, ""), ConnectionResetError(errno.ECONNRESET, ""), RuntimeError("x")],
)
def test_what_may_be_our_own_fault_is_not(error: Exception) -> None:
    assert of_the_machine(error) is None


def test_a_folder_that_is_gone_is_named(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path_factory.mktemp("gone")
    monkeypatch.chdir(folder)
    folder.rmdir()
    assert cli.main(["doctor"]) == 4
    assert "error[FLV-1022]: the current folder has been deleted" in capsys.readouterr().err
