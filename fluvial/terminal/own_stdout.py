"""stdout belongs to the command: whatever users' code writes there goes to stderr.

A task file may print, and so may C code that it calls, and programs that it starts. None of it may come between the
lines of a result, and least of all into ``--json``'s one document. So while a command runs, file descriptor 1 is
stderr's, and what the command itself says goes to a copy of the one that it was started with.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable

_STDOUT: Final = 1
_STDERR: Final = 2


class OwnStdout:
    """The command's own stdout. Before ``take`` it is the process's."""

    def __init__(self) -> None:
        self._stream: TextIO | None = None
        self._give_back: Callable[[], None] | None = None

    @property
    def stream(self) -> TextIO:
        """Where results go."""
        return self._stream or sys.stdout

    def take(self) -> None:
        """From now on nobody else writes to it. Doing so twice is harmless."""
        stdout = sys.stdout
        if self._stream is not None or stdout is None:
            return
        if not _is_the_process(stdout):
            # Somebody who runs us in his process has put something else there, and its descriptors are his.
            self._stream = stdout
            sys.stdout = sys.stderr
            self._give_back = lambda: setattr(sys, "stdout", stdout)
            return
        stdout.flush()
        try:
            kept = os.dup(_STDOUT)
            os.dup2(_STDERR, _STDOUT)
        except OSError:  # one of them is closed (``2>&-``): there is nowhere to send anything
            return
        self._stream = os.fdopen(kept, "w", encoding=stdout.encoding, errors=stdout.errors)
        if hasattr(stdout, "reconfigure"):
            stdout.reconfigure(line_buffering=True)  # among the lines of stderr, in their order
        self._give_back = self._restore_descriptor

    def give_back(self) -> None:
        """What ``take`` did, undone: for whoever runs a command within his own process."""
        if self._give_back is not None:
            self._give_back()
        self._stream = self._give_back = None

    def close(self) -> None:
        """At a process's end: stdout stays taken, so that what a user's exit handlers print is no result either."""
        if self._stream is not None and self._stream is not sys.stdout:
            with contextlib.suppress(OSError):  # its reader is gone (``| head``), which was told before
                self._stream.close()

    def _restore_descriptor(self) -> None:
        assert self._stream is not None, "it was taken"
        sys.stdout.flush()
        self._stream.flush()
        os.dup2(self._stream.fileno(), _STDOUT)
        self._stream.close()


def _is_the_process(stream: TextIO) -> bool:
    try:
        return stream.fileno() == _STDOUT
    except (OSError, ValueError):  # a file in memory has no descriptor
        return False
