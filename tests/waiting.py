"""To wait for a condition and not for a time: with a limit that only tells waiting from hanging."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

WAIT_S = 180.0
POLL_S = 0.1


def until(condition: Callable[[], object], what: str, timeout_s: float = WAIT_S) -> Any:
    """What ``condition`` gives as soon as it is true; an AssertionError that says ``what`` after ``timeout_s``."""
    deadline_s = time.monotonic() + timeout_s
    while not (result := condition()):
        assert time.monotonic() < deadline_s, f"not within {timeout_s:g} s: {what}"
        time.sleep(POLL_S)
    return result
