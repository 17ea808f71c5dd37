"""What a worker vouches for: now and then a signed head over the verdicts since the last (ADR 34)."""

from __future__ import annotations

import hashlib
from typing import Final

from aggregation.fold.events import Verdict
from aggregation.fold.rejections import PARKED
from backends.log import Headers
from schemas.vouching import HEADER, SKIPPED_MAX, Stretch, mark_of, sign_head
from stream_apps.worker.place import PartitionPlace

VOUCH_EVERY_S: Final = 1.0
"""One head in so long, where records come without a pause."""
HEADS_AT_ONCE_MAX: Final = 16
"""Heads that may go sooner where none went before. A portion with a skipped record has one whatever went before."""


class Vouching:
    """One partition's verdicts since the last head, as one hash: what it keeps does not grow with them."""

    def __init__(self, place: PartitionPlace) -> None:
        self._place = place
        self._left = float(HEADS_AT_ONCE_MAX)
        self._counted_at_s = place.context.clock.monotonic()
        self._begin(0)

    def _begin(self, offset: int) -> None:
        self._first = self._next = offset
        self._marks = hashlib.sha256()
        self._skipped: list[int] = []

    def add(self, verdict: Verdict, value: bytes) -> None:
        """A verdict of ours, whether it is written or stands there already; ``value`` is its bytes."""
        if verdict.offset != self._next or len(self._skipped) == SKIPPED_MAX:
            self._begin(verdict.offset)  # resumed somewhere else
        self._marks.update(mark_of(verdict, value, self._place.context.trust.rules))
        self._next = verdict.offset + 1
        if verdict.outcome == PARKED:
            self._skipped.append(verdict.offset)

    def is_due(self) -> bool:
        """Whether a head may go with the verdict that was added last."""
        now_s = self._place.context.clock.monotonic()
        since_s, self._counted_at_s = now_s - self._counted_at_s, now_s
        self._left = min(HEADS_AT_ONCE_MAX, self._left + since_s / VOUCH_EVERY_S)
        return bool(self._skipped) or self._left >= 1

    def head(self) -> Headers:
        """A header over all since the last one; the next begins where this ends."""
        place = self._place
        stretch = Stretch(self._first, self._next, self._marks.digest(), tuple(self._skipped))
        self._left = max(0.0, self._left - 1)
        self._begin(self._next)
        return ((HEADER, sign_head(stretch, place.context.signer, place.head)),)
