"""Blocks that a signal may not cut off: it is taken when they are over."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

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
