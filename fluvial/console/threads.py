"""Threads that look again and again, and open everything anew when what they look at goes away."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from aggregation.errors import FluvialError
from fluvial.console.limits import LOOK_S, LOOK_STALE_S, REOPEN_S

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

log = logging.getLogger("fluvial.console")

T = TypeVar("T")

NOT_ASKED: Final = "not asked yet"


class OpenAgain(Exception):
    """Nothing is wrong, and what was opened is not the right thing any more."""


@dataclass(frozen=True, slots=True)
class Seen(Generic[T]):
    """The last answer of a source. ``reason`` is "" while it answers, else why it does not; then ``value`` is old."""

    value: T | None
    at_ms: int
    reason: str

    def problem(self, now_ms: int) -> str:
        """Why the source counts as away at ``now_ms``; "" while it does not."""
        age_s = (now_ms - self.at_ms) / 1000
        if self.reason:
            return self.reason
        return f"no answer for {age_s:.0f} s" if age_s > LOOK_STALE_S else ""


class Looker(Generic[T]):
    """A thread with one source, which ``open_look`` opens: what its context gives is called once in ``every_s``.

    ``seen`` is always the newest answer. An error closes all and opens again after a pause, for as long as it lasts.
    """

    def __init__(
        self,
        name: str,
        open_look: Callable[[], AbstractContextManager[Callable[[], T]]],
        *,
        every_s: float = LOOK_S,
    ) -> None:
        self._name = name
        self._open_look = open_look
        self._every_s = every_s
        self._ended = threading.Event()
        self.seen: Seen[T] = Seen(None, round(time.time() * 1000), NOT_ASKED)
        self.opened = 0
        self._thread = threading.Thread(target=self._run, name=f"console {name}", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def end(self) -> None:
        """Look no more; does not wait."""
        self._ended.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread, at most so long: it may be in a call to somebody who does not answer."""
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                with self._open_look() as look:
                    self.opened += 1
                    self._look(look)
            except OpenAgain:
                self._ended.wait(_AGAIN_S)
                continue
            except FluvialError as error:
                self._failed(error.message)
            except (
                Exception
            ) as error:  # one source of one page: told, and tried again, never the console's end
                reason = f"{type(error).__name__}: {error}"
                if not self.seen.reason.startswith(reason[:_SAME_CHARACTERS]):
                    log.exception("a look at %s failed", self._name)
                self._failed(reason)
            self._ended.wait(REOPEN_S)

    def _look(self, look: Callable[[], T]) -> None:
        while not self._ended.is_set():
            began_s = time.monotonic()
            self.seen = Seen(look(), round(time.time() * 1000), "")
            self._ended.wait(max(_PAUSE_S_MIN, self._every_s - (time.monotonic() - began_s)))

    def _failed(self, reason: str) -> None:
        self.seen = Seen(self.seen.value, self.seen.at_ms, reason[:_REASON_CHARACTERS])


_REASON_CHARACTERS: Final = 300
_SAME_CHARACTERS: Final = 60
_PAUSE_S_MIN: Final = 0.02
_AGAIN_S: Final = 0.2
