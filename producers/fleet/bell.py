"""How a fleet's loop is woken and stopped from other threads."""

from __future__ import annotations

import threading


class StopAskedError(Exception):
    """The fleet was asked to stop while it waited for something."""


class RoundAbandoned(BaseException):
    """The fleet was asked to stop by a signal, in the middle of a device's training."""


class Bell:
    """How other threads and signal handlers wake the loop: there is news, or it has to stop."""

    def __init__(self) -> None:
        self._rung = threading.Event()
        self._stop = threading.Event()

    def ring(self) -> None:
        """There is news."""
        self._rung.set()

    def stop(self) -> None:
        """Begin no more rounds."""
        self._stop.set()
        self._rung.set()

    @property
    def stopping(self) -> bool:
        """Whether ``stop`` was called."""
        return self._stop.is_set()

    def raise_if_stopping(self) -> None:
        """Raise ``StopAskedError`` once ``stop`` was called."""
        if self.stopping:
            raise StopAskedError

    def silence(self) -> None:
        """Forget the news so far: the caller looks at everything next."""
        self._rung.clear()

    def wait(self, timeout_s: float) -> None:
        """Wait for news, at most ``timeout_s``."""
        self._rung.wait(timeout_s)
