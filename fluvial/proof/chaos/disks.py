"""Disks that can be full: a small file system for each service, or, where nothing may be mounted, a quota.

- ``tmpfs``: the service's data lies on a file system of its own, and the fault fills it with a ballast file.
- ``quota``: the running process may write no file beyond ``QUOTA_BYTES`` (RLIMIT_FSIZE): its log directory fails with
  EFBIG as it would with ENOSPC. A process that was started again has no quota.

A mount is undone when the context ends, in whatever way; what a killed run left is undone by the next one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import psutil

if TYPE_CHECKING:
    from collections.abc import Sequence

DISK_BYTES_MIN: Final = 192 << 20
DISK_BYTES_PER_S: Final = 1536 << 10
"""More than a busy fleet of ``FLEET_DEVICES`` makes anybody write in a second; larger fleets in proportion."""
FLEET_DEVICES: Final = 24
MEMORY_LEFT_BYTES: Final = 2 << 30
QUOTA_BYTES: Final = 4096
MOUNT_TIMEOUT_S: Final = 10.0
_BALLAST: Final = "ballast"
_CHUNKS: Final = (16 << 20, 1 << 20, 64 << 10, 4 << 10)

How = Literal["tmpfs", "quota", ""]


@dataclass(slots=True)
class Disk:
    """The disk of one service. ``folder`` is where its file system is mounted, None without one."""

    service: str
    folder: Path | None

    @property
    def data(self) -> Path | None:
        """Where the service's data goes; None for its usual place."""
        return self.folder / self.service if self.folder is not None else None

    def fill(self, pid: int | None) -> str:
        """Make it full for the process ``pid``; how, in words. ProcessLookupError when a quota has no process."""
        if self.folder is None:
            if pid is None or not psutil.pid_exists(pid):
                raise ProcessLookupError
            _limit(pid, QUOTA_BYTES)
            return f"quota of {QUOTA_BYTES} bytes a file for pid {pid}"
        handle = os.open(self.folder / _BALLAST, os.O_WRONLY | os.O_CREAT, 0o600)
        size = 0
        try:
            for chunk in _CHUNKS:
                with contextlib.suppress(OSError):  # no space left for a chunk of this size: that is the aim
                    while True:
                        os.posix_fallocate(handle, size, chunk)
                        size += chunk
        finally:
            os.close(handle)
        return f"ballast of {size >> 20} MiB"

    def empty(self, pid: int | None) -> None:
        """Make room again."""
        if self.folder is not None:
            (self.folder / _BALLAST).unlink(missing_ok=True)
        elif pid is not None:
            with contextlib.suppress(ProcessLookupError):
                _limit(pid, None)


class Disks:
    """The disks of a run's services. A context manager: leaving it undoes every mount."""

    def __init__(
        self, folder: Path, services: Sequence[str], seconds: float, devices: int = FLEET_DEVICES
    ) -> None:
        """Disks for a run of ``seconds`` with ``devices``, mounted below ``folder`` where that may be done."""
        self._folder = folder
        self._size = DISK_BYTES_MIN + int(seconds * DISK_BYTES_PER_S * max(1.0, devices / FLEET_DEVICES))
        self._services = tuple(services)
        self._disks: dict[str, Disk] = {}
        self.how: How = ""
        self.reason = ""

    def __enter__(self) -> Disks:  # final in practice  # noqa: PYI034
        unmount_below(self._folder)
        try:
            self._open()
        except BaseException:
            unmount_below(self._folder)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        unmount_below(self._folder)

    def __getitem__(self, service: str) -> Disk:
        return self._disks[service]

    def data(self, service: str) -> Path | None:
        """Where a service's data goes; None for its usual place."""
        return self._disks[service].data if service in self._disks else None

    def _open(self) -> None:
        if not self._services:
            return
        self.reason = self._why_no_mount()
        if not self.reason:
            self.how = "tmpfs"
        elif sys.platform == "linux":
            self.how = "quota"
            self._disks = {service: Disk(service, None) for service in self._services}

    def _why_no_mount(self) -> str:
        """Mount all, or say why not."""
        if sys.platform != "linux" or shutil.which("mount") is None:
            return "there is no `mount` here"
        if os.geteuid() != 0:
            return "only root may mount"
        needed = self._size * len(self._services) + MEMORY_LEFT_BYTES
        if psutil.virtual_memory().available < needed:
            return f"less than {needed >> 20} MiB of memory are free"
        for service in self._services:
            folder = self._folder / service
            folder.mkdir(parents=True, exist_ok=True)
            command = [
                "mount",
                "-t",
                "tmpfs",
                "-o",
                f"size={self._size},mode=0700",
                "fluvial-chaos",
                str(folder),
            ]
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=MOUNT_TIMEOUT_S,
                check=False,
                stdin=subprocess.DEVNULL,
            )
            if done.returncode != 0:
                unmount_below(self._folder)
                self._disks = {}
                return f"mounting is refused: {done.stderr.strip() or f'exit code {done.returncode}'}"
            self._disks[service] = Disk(service, folder)
        return ""


def unmount_below(folder: Path) -> None:
    """Undo every mount below ``folder``; one that is still in use is detached and ends with its last user."""
    for mounted in _mounts_below(folder):
        for command in (["umount", str(mounted)], ["umount", "--lazy", str(mounted)]):
            done = subprocess.run(
                command, capture_output=True, timeout=MOUNT_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL
            )
            if done.returncode == 0:
                break


def _mounts_below(folder: Path) -> list[Path]:
    try:
        lines = Path("/proc/self/mounts").read_text("utf-8").splitlines()
    except FileNotFoundError:
        return []
    # The kernel writes a blank, a tab, a newline and a backslash in a path as octal escapes.
    points = [line.split(" ")[1].encode().decode("unicode_escape") for line in lines]
    return [Path(point) for point in reversed(points) if Path(point).is_relative_to(folder)]


def _limit(pid: int, size: int | None) -> None:
    """Set the largest file that a running process may write; None lifts the limit."""
    import resource

    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard if size is None else size, hard))
