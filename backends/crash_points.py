"""Named points at which a process kills itself, for fault injection: between two effects, where it hurts most.

``FLUVIAL_CRASH_AT=<point>`` or ``<point>:<n>`` makes the process die by SIGKILL at the first, or n-th, passing of that
point. Unset, as it is wherever nobody tests, a point costs one comparison.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import Final

from aggregation.errors import UsageProblem
from backends.environment import crash_point_asked

POINTS: Final = (
    "worker.before-verdicts",
    "worker.after-verdicts",
    "worker.after-objects",
    "worker.after-aggregate",
    "worker.resumed",
    "merger.before-commit",
    "merger.after-commit",
    "merger.after-checkpoint",
    "merger.between-barriers",
    "merger.before-announcement",
    "guardian.before-object",
    "guardian.after-object",
    "guardian.after-announcement",
    "edge.before-copy",
    "edge.after-copy",
    "edge.before-window",
    "edge.after-window",
)
"""In the order in which a window, and then a version, passes them."""


class _Asked:
    """The point at which this process shall die, and how many passings are left until then."""

    def __init__(self, text: str) -> None:
        self.name, colon, count = text.partition(":")
        if (text and self.name not in POINTS) or (colon and not count.isdigit()):
            raise UsageProblem(
                "FLV-1002",
                f"FLUVIAL_CRASH_AT is {text!r}, expected one of {', '.join(POINTS)}, and `:n` for the n-th passing",
                hint="unset it: it is for tests of crashes",
            )
        self.left = int(count or 1)
        self.lock = threading.Lock()


_asked: _Asked | None = None


def crash_point(name: str) -> None:
    """Die here by SIGKILL, if that was asked for."""
    global _asked  # noqa: PLW0603 (read once for a process, at the first point that it passes)
    if _asked is None:
        _asked = _Asked(crash_point_asked())
    if _asked.name != name:
        return
    with _asked.lock:
        _asked.left -= 1
        if _asked.left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
