"""When a device should come back: by the times of announcements and the policy, which are public.

It is a guess about others and binds nobody: a version may come sooner, where many devices are quick, or later. A device
that sleeps for so long and then asks again loses nothing but the time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from aggregation.selection import Candidate, selection_named, turns_after
from producers.sdk.updates import TURNS_LATE

if TYPE_CHECKING:
    from aggregation.policy import Policy
    from aggregation.selection.shape import Selection
    from backends.clock import Clock
    from schemas.records import Announcement

VERSIONS_REMEMBERED: Final = 16
"""Announcements by whose times the next one is expected."""
OVERDUE: Final = 0.25
"""Of the usual time between versions: how long to wait for one that should have come."""
TURNS_FORESEEN: Final = 16_384
"""Turns that are looked ahead: of slots there are at most 10,000, and no share doubles more often than 64 times."""


class Turn(NamedTuple):
    """Come back in ``wait_s`` seconds (0 now, inf never) for version ``version``.

    ``foreseen``: the lot for it is drawn already; else it is only then that the device may ask.
    """

    wait_s: float
    version: int
    foreseen: bool


class Heard(NamedTuple):
    """The newest announced version, and for how many seconds it has been announced; ``pace_s`` of those before it."""

    version: int
    model_sha256: str
    policy_sha256: str
    since_s: float
    usual_s: float | None


class Followed(Protocol):
    """Announcements, as a device follows them."""

    def wait_for(self, region: str, version: int, timeout_s: float) -> Announcement:
        """The newest of at least that version."""
        ...

    def times_ms(self, region: str) -> Sequence[tuple[int, int]]:
        """(version, LogAppendTime in ms) of the last versions, ascending."""
        ...


def heard_of(announcements: Followed, region: str, clock: Clock, timeout_s: float) -> Heard:
    """What is announced to a region now; TimeoutProblem FLV-2502 where nothing is within ``timeout_s``."""
    newest = announcements.wait_for(region, 0, timeout_s)
    times_ms, now_s = announcements.times_ms(region), clock.time()
    since_s = max(0.0, now_s - dict(times_ms).get(newest.version, now_s * 1000.0) / 1000.0)
    return Heard(newest.version, newest.model_sha256, newest.policy_sha256, since_s, pace_s(times_ms))


def pace_s(times_ms: Sequence[tuple[int, int]]) -> float | None:
    """Usual seconds between versions: the median over (version, LogAppendTime in ms), ascending by version.

    None where nothing follows: fewer than two, or times that do not go on.
    """
    found = [
        (later_ms - earlier_ms) / 1000.0 / (later - earlier)
        for (earlier, earlier_ms), (later, later_ms) in pairwise(times_ms)
        if later > earlier and later_ms > earlier_ms
    ]
    return median(found) if found else None


def next_turn(
    policy: Policy, task: str, device_id: str, cohort: str, heard: Heard, *, newer_than: int
) -> Turn:
    """When the device may contribute to a version above ``newer_than``, as far as that can be known.

    Where nothing says how often versions come, they are expected at the deadline, ``buffer.seconds_max``.
    """
    selection, deadline_s = selection_named(policy.selection.kind), policy.buffer.seconds_max
    asked = Candidate(task, device_id, heard.version, heard.model_sha256, 0, cohort)
    if heard.version > newer_than:
        if heard.version == 0:
            return Turn(0.0, 0, foreseen=True)
        turns = max(0, turns_after(heard.since_s, deadline_s) - TURNS_LATE)
        if selection.selects(policy.selection, asked._replace(turns=turns)):
            return Turn(0.0, heard.version, foreseen=True)
    if not selection.selects_ever(policy.selection, cohort):
        return Turn(math.inf, heard.version, foreseen=True)
    every_s = heard.usual_s or deadline_s
    until = selection.versions_until(policy.selection, asked)
    wait_s = max(every_s * until - heard.since_s, OVERDUE * every_s)
    then = Turn(wait_s, heard.version + until, selection.foresees)
    if heard.version <= newer_than:
        return then
    widened = _turn_of(selection, policy, asked)
    at_s = (widened + TURNS_LATE) * deadline_s - heard.since_s
    return Turn(max(0.0, at_s), heard.version, foreseen=True) if at_s < then.wait_s else then


def _turn_of(selection: Selection, policy: Policy, asked: Candidate) -> float:
    """The first turn in which the newest version's lot is the device's, if it stays the newest; inf for none soon."""
    low, high = 0, 1
    while not selection.selects(policy.selection, asked._replace(turns=high)):
        low, high = high, 2 * high
        if low >= TURNS_FORESEEN:
            return math.inf
    while high - low > 1:  # what a turn admits, later ones do
        middle = (low + high) // 2
        if selection.selects(policy.selection, asked._replace(turns=middle)):
            high = middle
        else:
            low = middle
    return high
