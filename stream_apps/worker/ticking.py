"""When a partition's clock asks for the end of its open window. Pure: the log records what was asked, by a Tick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from aggregation.fold.state import OpenWindow

TICK_REPEAT_S: Final = 2.0
"""A window that was asked to close and did not is asked again after so long."""
REFUSALS_S: Final = 60.0
"""How old a window of refusals only may grow before a Tick closes it."""


@dataclass(frozen=True, slots=True)
class AskedTick:
    """A Tick that was written for the window which began at this offset, by the process' monotonic clock."""

    window_first_offset: int
    asked_s: float


def tick_due(
    window: OpenWindow,
    asked: AskedTick | None,
    *,
    now_s: float,
    window_since_s: float,
    seconds_max: float,
    on_its_way: bool,
) -> bool:
    """Whether to write a Tick for ``window`` now.

    ``window_since_s`` is when its first record was folded, ``seconds_max`` the policy's ``window.seconds_max``,
    ``asked`` the newest Tick of this process, and ``on_its_way`` whether the broker has yet to acknowledge that one.
    """
    if not window.records or on_its_way:
        return False  # while the broker is away one Tick is enough
    # Refusals alone make no version: such a window may be longer, so that a trickle of junk makes few of them.
    age_s_max = seconds_max if window.accepted else max(seconds_max, REFUSALS_S)
    if now_s - window_since_s < age_s_max:
        return False
    if asked is None or asked.window_first_offset != window.first_offset:
        return True
    return now_s - asked.asked_s >= TICK_REPEAT_S
