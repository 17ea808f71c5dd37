"""How a command meets Ctrl-C and SIGTERM: it stops in good order, and some blocks are ended first."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

EXIT_INTERRUPTED: Final = 130

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Signals that end a command wait until the block is over, and then raise KeyboardInterrupt.

    For what must not be done by half: a clean-up leaves things behind, and a process that was started in the middle
    of an interruption (``Popen`` raises after the fork) is known to nobody.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are delivered to the main thread only
        return
    came: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    before = {number: signal.signal(number, remember) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


def is_interruption(error: BaseException) -> bool:
    """Whether Ctrl-C or SIGTERM is behind an error.

    Kafka's client may come back from C with the KeyboardInterrupt still set that a signal raised there. The interpreter
    notices at the next call of any C function, and makes a SystemError of it.
    """
    return isinstance(error, KeyboardInterrupt) or (
        isinstance(error, SystemError) and isinstance(error.__cause__, KeyboardInterrupt)
    )


def stop_on_signals(*stops: Callable[[], None]) -> threading.Event:
    """SIGTERM and the first Ctrl-C stop in good order; the event is set by Ctrl-C. A second signal exits at once."""
    interrupted = threading.Event()

    def handle(number: int, _frame: object) -> None:
        if number == signal.SIGINT:
            interrupted.set()
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.default_int_handler)
        for stop in stops:
            stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
    return interrupted
