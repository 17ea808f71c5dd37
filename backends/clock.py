"""The clock, as an argument: the real one in production, a simulated one under ``tests/simulation``."""

from __future__ import annotations

import time
from typing import Final, Protocol


class Clock(Protocol):
    """Seconds. None of them decides what a record means: clocks say when to ask, the log says what happened."""

    def monotonic(self) -> float:
        """Seconds that never go back, from some beginning."""
        ...

    def time(self) -> float:
        """Seconds since 1970 UTC, as this machine believes."""
        ...

    def sleep(self, seconds: float) -> None:
        """Block the caller for ``seconds``."""
        ...


class SystemClock:
    """This machine's clock."""

    def monotonic(self) -> float:
        """As ``time.monotonic``."""
        return time.monotonic()

    def time(self) -> float:
        """As ``time.time``."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """As ``time.sleep``."""
        time.sleep(seconds)


SYSTEM_CLOCK: Final[Clock] = SystemClock()
