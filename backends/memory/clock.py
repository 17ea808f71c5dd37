"""A clock that stands still until it is moved."""

from __future__ import annotations


class ManualClock:
    """``Clock`` whose time is what ``advance`` has made of it. ``sleep`` moves it, and returns at once."""

    def __init__(self, epoch_s: float) -> None:
        """``epoch_s``: the wall clock, in seconds since 1970, at which it begins."""
        self.now_s = 0.0
        self._epoch_s = epoch_s

    def monotonic(self) -> float:
        """Seconds since it was made."""
        return self.now_s

    def time(self) -> float:
        """Seconds since 1970 UTC."""
        return self._epoch_s + self.now_s

    def sleep(self, seconds: float) -> None:
        """Move on by ``seconds``."""
        self.now_s += seconds

    def advance_to(self, now_s: float) -> None:
        """Move on to ``now_s``; never back."""
        self.now_s = max(self.now_s, now_s)
