"""Whether a device may take part now: what its owner's program says, asked before fetching and before training.

A device that may not says so, in its log and in its own counts, and asks again later. Nothing is lost by it: a base
that it has fetched may be answered as long as the policy takes it, and nobody waits for one device.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from aggregation.errors import TimeoutProblem
from backends.clock import Clock
from backends.shown import one_line

CanRun = Callable[[], object]
"""Says whether a device may take part now: True, None or "" where it may; False, or why not in a few words."""

ASKED_EVERY_S: Final = 5.0
"""How long a device that may not take part waits before it asks again."""
REASONS_MAX: Final = 32
"""Kinds of reasons that are counted each for itself; further ones are counted together."""
REASON_CHARACTERS_MAX: Final = 200
OTHERS: Final = "other reasons"
_NUMBER: Final = re.compile(r"\d+(\.\d+)?")

log = logging.getLogger("fluvial.device")


class NotNowProblem(TimeoutProblem):
    """FLV-2512: the device may not take part now, or did not become able to in time."""


class Eligibility:
    """Asks ``can_run`` for one device, and remembers what it said. None: it may always.

    ``who`` is the device in words, for the log. What the program raises is a reason not to run: nobody should train on
    an empty battery because the question for it has failed.
    """

    def __init__(self, can_run: CanRun | None, who: str) -> None:
        self._can_run = can_run
        self._who = who
        self._said = ""
        self.asked = 0
        self.reasons: Counter[str] = Counter()
        """How often it might not, by kind of reason: numbers make no kind of their own."""

    def why_not(self) -> str:
        """Why the device may not take part now, in words; "" where it may."""
        if self._can_run is None:
            return ""
        self.asked += 1
        reason = reason_of(self._can_run)
        if reason:
            count_in(self.reasons, reason)
        if kind_of(reason) != kind_of(self._said):
            log.info("%s", self._told(reason))
        self._said = reason
        return reason

    def require(self) -> None:
        """NotNowProblem FLV-2512 where the device may not take part now."""
        reason = self.why_not()
        if reason:
            raise not_now(self._who, reason)

    def wait(self, clock: Clock, timeout_s: float, tell: Callable[[str], object] = lambda _: None) -> None:
        """Until the device may take part; NotNowProblem FLV-2512 when it may not within ``timeout_s``.

        ``tell`` is called with every reason why it may not yet.
        """
        until = clock.monotonic() + timeout_s
        while reason := self.why_not():
            tell(reason)
            left_s = until - clock.monotonic()
            if left_s <= 0.0:
                raise not_now(self._who, reason, timeout_s)
            clock.sleep(min(left_s, ASKED_EVERY_S))

    def document(self) -> dict[str, Any]:
        """For JSON: how often it was asked, how often it might not, and why."""
        return {
            "asked": self.asked,
            "declined": self.reasons.total(),
            "reasons": dict(self.reasons.most_common()),
        }

    def _told(self, reason: str) -> str:
        return f"{self._who} takes no part now: {reason}" if reason else f"{self._who} takes part again"


def not_now(who: str, reason: str, timeout_s: float = 0.0) -> NotNowProblem:
    """FLV-2512, ready to raise."""
    within = f", nor was it able to within {timeout_s:g} s" if timeout_s else ""
    return NotNowProblem(
        "FLV-2512",
        f"{who} takes no part now: {reason}{within}",
        hint="it is its own program that says so (`can_run`); try again later",
    )


def count_in(reasons: Counter[str], reason: str) -> bool:
    """Count it under its kind, or with all others where there are ``REASONS_MAX``; whether it is the first of it."""
    kind = kind_of(reason)
    counted = kind if kind in reasons or len(reasons) < REASONS_MAX else OTHERS
    reasons[counted] += 1
    return reasons[counted] == 1


def kind_of(reason: str) -> str:
    """The reason without its numbers: a battery at 11 % and one at 12 % are one kind."""
    return _NUMBER.sub("#", reason)


def reason_of(can_run: CanRun) -> str:
    """Why not, in words of at most ``REASON_CHARACTERS_MAX`` characters; "" where it says that the device may."""
    try:
        said = can_run()
    except Exception as error:  # noqa: BLE001 (users' code may raise anything; it is said, and counted)
        return _short(f"the question fails: {type(error).__name__}: {error}")
    if said is None or said is True or said == "":
        return ""
    if said is False:
        return "its program says no"
    if isinstance(said, str):
        return _short(said)
    return f"the question gives {type(said).__name__}, expected True, False or why not in words"


def _short(reason: str) -> str:
    text = one_line(reason)
    return text if len(text) <= REASON_CHARACTERS_MAX else text[: REASON_CHARACTERS_MAX - 1] + "…"
