"""The home of a chaos run, ``<home>/chaos``: fresh at its beginning, gone at its end, and nobody else's.

A run that was killed outright may leave its services and its mounts behind: the next one ends them first.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psutil

from aggregation.errors import UsageProblem
from fluvial.local import files
from fluvial.processes.signals import undisturbed
from fluvial.proof.chaos.disks import unmount_below

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fluvial.terminal.output import Reporter

MARKER: Final = ".fluvial-chaos"
LOCK_TIMEOUT_S: Final = 1.0
_KILL_WAIT_S: Final = 5.0


@dataclass(slots=True)
class ChaosHome:
    """Where a run lives. ``keep`` may be set until its end: evidence is not thrown away."""

    folder: Path
    keep: bool

    @contextlib.contextmanager
    def kept_on_failure(self) -> Iterator[None]:
        """What the block raises keeps the home, but for an interruption by its user."""
        try:
            yield
        except Exception:
            self.keep = True
            raise


@contextlib.contextmanager
def chaos_home(home: Path, reporter: Reporter, *, keep: bool) -> Iterator[ChaosHome]:
    """The folder ``<home>/chaos``, empty, ours alone while the block runs; removed afterwards unless it is kept.

    Raises UsageProblem: FLV-6402, there is something else in its place. TimeoutProblem: FLV-1016, another chaos run
    has it.
    """
    files.prepare_home(home)
    folder = home / "chaos"
    with files.exclusive(
        home / "run" / "chaos.lock",
        reporter,
        "another `fluvial chaos` on this home",
        timeout_s=LOCK_TIMEOUT_S,
    ):
        if folder.exists() and any(folder.iterdir()) and not (folder / MARKER).exists():
            raise UsageProblem(
                "FLV-6402",
                "the folder of chaos runs holds something that no chaos run has made",
                where=str(folder),
                hint="move it away, or choose another home: `fluvial --home DIR chaos`",
            )
        _clear(folder, reporter)
        folder.mkdir()
        (folder / MARKER).touch()
        own = ChaosHome(folder, keep)
        try:
            yield own
        finally:
            with undisturbed():
                if own.keep:
                    reporter.say(f"kept until the next run: {folder}")
                else:
                    _clear(folder, reporter)


@contextlib.contextmanager
def hangup_interrupts() -> Iterator[None]:
    """A terminal that goes away ends the run as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def _clear(folder: Path, reporter: Reporter) -> None:
    if not folder.exists():
        return
    left = _processes_of(folder)
    for process in left:
        reporter.say(f"ending what an earlier run has left: pid {process.pid}")
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=_KILL_WAIT_S)
    unmount_below(folder)
    shutil.rmtree(folder)


def _processes_of(folder: Path) -> list[psutil.Process]:
    """The processes that a run in ``folder`` has started and that still live."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.uids().real == os.getuid() and _is_of(process.cmdline(), folder):
                found.append(process)
    return found


def _is_of(command: list[str], folder: Path) -> bool:
    """Whether a command line is one of ours for the home ``folder``: a part, the broker or the store."""
    if "fluvial.cli" in command:
        return any(pair == ("--home", str(folder)) for pair in itertools.pairwise(command))
    data = (f"{folder}/disks/", f"{folder}/data/")
    return f"-Dfluvial.home={folder}" in command or ("server" in command and command[-1].startswith(data))
