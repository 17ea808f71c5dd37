"""Full disks: a small file system that fills and empties, or a quota; and no mount is ever left behind."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fluvial.proof.chaos import disks as module
from fluvial.proof.chaos.disks import Disk, Disks, unmount_below

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="file systems and quotas as Linux has them")
APPENDER = """
import sys
with open(sys.argv[1], "ab", buffering=0) as file:
    for _ in sys.stdin:
        try:
            file.write(b"x" * 8192)
            file.write(b"x" * 8192)
            print("written", flush=True)
        except OSError as error:
            print(error.errno, flush=True)
"""


def mounts() -> str:
    return Path("/proc/self/mounts").read_text()


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disks]:
    monkeypatch.setattr(module, "DISK_BYTES_MIN", 4 * MIB)
    monkeypatch.setattr(module, "MEMORY_LEFT_BYTES", 0)
    with Disks(tmp_path / "with a blank", ["broker", "store"], 0.0) as disks:
        if disks.how != "tmpfs":
            pytest.skip(f"nothing may be mounted here: {disks.reason}")
        yield disks


@LINUX
def test_a_full_disk_refuses_writes_and_an_emptied_one_takes_them(mounted: Disks) -> None:
    disk = mounted["broker"]
    assert disk.folder is not None
    with (disk.folder / "log").open("wb", buffering=0) as log:
        assert "MiB" in disk.fill(None)
        with pytest.raises(OSError, match="No space") as caught:
            log.write(b"x" * MIB)
        assert caught.value.errno == errno.ENOSPC
        (mounted["store"].folder or Path()).joinpath("log").write_bytes(b"x" * MIB)
        disk.empty(None)
        log.write(b"x" * MIB)


@LINUX
def test_the_data_lies_on_the_disk(mounted: Disks) -> None:
    assert mounted.data("broker") == (mounted["broker"].folder or Path()) / "broker"
    assert mounted.data("another") is None


@LINUX
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_mounts_end_with_the_block_however_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    monkeypatch.setattr(module, "DISK_BYTES_MIN", MIB)

    def block() -> None:
        with Disks(tmp_path, ["broker"], 0.0) as disks:
            assert disks.how
            raise error

    with pytest.raises(error):
        block()
    assert str(tmp_path) not in mounts()


@LINUX
def test_what_a_killed_run_has_left_is_undone_by_the_next(mounted: Disks, tmp_path: Path) -> None:
    folder = mounted["broker"].folder
    assert folder is not None
    with (folder / "open").open("wb"):
        unmount_below(tmp_path)
        assert str(tmp_path) not in mounts()


@LINUX
def test_a_quota_stops_a_running_process_and_can_be_lifted(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", APPENDER, str(tmp_path / "log")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    stdin, stdout = child.stdin, child.stdout
    assert stdin is not None and stdout is not None

    def write() -> str:
        print("go", file=stdin, flush=True)
        return stdout.readline().strip()

    disk = Disk("broker", None)
    try:
        assert write() == "written"
        assert str(child.pid) in disk.fill(child.pid)
        assert write() == str(errno.EFBIG)
        disk.empty(child.pid)
        assert write() == "written"
    finally:
        child.kill()
        child.wait()
        stdin.close()
        stdout.close()
    with pytest.raises(ProcessLookupError):
        disk.fill(child.pid)


def test_without_root_there_is_a_quota_and_it_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with Disks(tmp_path, ["broker"], 0.0) as disks:
        assert disks.how == ("quota" if sys.platform == "linux" else "")
        assert disks.reason
        assert disks.data("broker") is None
