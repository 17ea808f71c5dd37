"""Who may still announce versions: a models topic in its order, with the Revokes that operators put into it.

The log decides by itself, as every partition's does: what a certificate signed before the Revoke of it stands, what
comes behind it is nobody's. Each reader goes through the topic from its beginning and comes to the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aggregation.fold.events import Revoke
from schemas.records import Announcement, Flaw, Unverified, announcement_in, revoke_in

if TYPE_CHECKING:
    from schemas.certificates import Trust

REVOKES: Final = "Revoke"


class Announcers:
    """What the records of one task's models topic say; give them in their order.

    ``revoked`` says since when certificates are revoked (LogAppendTime in ms), ``announced`` has those that have
    announced something, by the names that ``RecordRules.certificate_name`` gives. Where a Revoke bars devices only,
    none is one here.
    """

    def __init__(self, trust: Trust, task: str) -> None:
        self._trust = trust
        self._task = task
        self.revoked: dict[str, int] = {}
        self.announced: set[str] = set()

    def read(self, value: bytes | None, timestamp_ms: int) -> Announcement | Revoke | Unverified:
        """An announcement of a merger that may still announce, of whatever region; or a Revoke, from here on."""
        found = announcement_in(value, timestamp_ms, self._trust)
        if isinstance(found, Unverified):
            revoke = self.hear(value, timestamp_ms) if (found.flaw, found.detail) == _IS_REVOKE else None
            return revoke or found
        if found.merger in self.revoked:
            serial = found.merger.rpartition(":")[2]
            return Unverified(Flaw.REVOKED, f"is signed with certificate {serial}, which was revoked before")
        if found.task == self._task:
            self.announced.add(found.merger)
        return found

    def hear(self, value: bytes | None, timestamp_ms: int) -> Revoke | None:
        """The Revoke of a certificate in a record, if an operator of this task signed it who may still revoke."""
        if not self._trust.rules.revokes_all:
            return None
        revoke = revoke_in(value, timestamp_ms, self._trust)
        if revoke is None or revoke.task != self._task or revoke.signer in self.revoked:
            return None
        if not revoke.certificate:
            return None  # of a device: that is for the updates topics
        self.revoked.setdefault(revoke.certificate, timestamp_ms)
        return revoke


_IS_REVOKE: Final = (Flaw.WRONG_KIND, REVOKES)
