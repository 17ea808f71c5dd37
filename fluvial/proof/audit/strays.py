"""Records of derived topics that no worker or merger of the task has written there: counted apart, never a finding.

Whoever may write to a topic (the brokers' ACLs say who) can have written such a record, and no reader believes it. So
an audit counts it, names the first of its kind, and says who could have written it; what a worker or merger signed and
got wrong stays a finding.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, assert_never

from schemas.records import Flaw

NAMED_MAX: Final = 5

NO_RECORD: Final = "no_record"
FORGED: Final = "forged"
ELSEWHERE: Final = "elsewhere"
REVOKED: Final = "revoked"
NOT_A_VERDICT: Final = "no_verdict"
BEYOND: Final = "beyond_log"
ANOTHER: Final = "other_verdict"
FORGED_HEAD: Final = "forged_head"
REVOKED_HEAD: Final = "revoked_head"
WORDS: Final = {
    NO_RECORD: "not what the topic holds",
    FORGED: "not signed by one who may sign it",
    ELSEWHERE: "signed for another partition, region or task, and copied here",
    REVOKED: "signed with a certificate that was revoked before",
    NOT_A_VERDICT: "no verdict at all",
    BEYOND: "of an offset beyond the log's end",
    ANOTHER: "other than what the log gives",
    FORGED_HEAD: "with a head that no worker of the region signed for this task",
    REVOKED_HEAD: "with a head by a worker whose certificate was revoked",
}
"""Kinds of strays, and what each of them is."""


def writers(topic: str) -> str:
    """Who could have written a stray."""
    return f"whoever may write to {topic}"


@dataclass(slots=True)
class Strays:
    """What one topic's partition has of them: how many by kind, and the places of the first."""

    kinds: dict[str, int] = field(default_factory=dict)
    named: list[str] = field(default_factory=list)

    def add(self, kind: str, where: str, records: int = 1) -> None:
        """One more, or several of which ``where`` is the first."""
        self.kinds[kind] = self.kinds.get(kind, 0) + records
        if len(self.named) < NAMED_MAX:
            self.named.append(where)


def kind_of(flaw: Flaw) -> str:
    """The kind of a record with this flaw."""
    match flaw:
        case Flaw.UNDECODABLE | Flaw.WRONG_KIND:
            return NO_RECORD
        case Flaw.FORGED:
            return FORGED
        case Flaw.WRONG_REGION | Flaw.WRONG_PLACE:
            return ELSEWHERE
        case Flaw.REVOKED:
            return REVOKED
        case _:
            assert_never(flaw)
