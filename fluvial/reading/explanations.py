"""What a verdict means to a person: one sentence and the next step for every outcome."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from aggregation.fold.rejections import ACCEPTED, AGGREGATED, CONTROL, PARKED, REJECTIONS, RejectionReason
from schemas.avro import MARKER, registry


@dataclass(frozen=True, slots=True)
class Explanation:
    """``error_id``, ``hint`` and ``page`` are "" where the outcome is no rejection."""

    sentence: str
    error_id: str = ""
    hint: str = ""

    @property
    def page(self) -> str:
        """The documentation page of a rejection."""
        return f"docs/errors/{self.error_id}.md" if self.error_id else ""


_CAUSES: Final[tuple[tuple[RejectionReason, str, str], ...]] = (
    (
        RejectionReason.UNDECODABLE,
        r"the record has no value$",
        "somebody wrote a record without a value here: no device does; see who may write to this topic",
    ),
    (
        RejectionReason.UNDECODABLE,
        r"a \w+ does not belong into an updates topic$",
        "a record of Fluvial's, in the wrong topic: see which process writes it here",
    ),
    (
        RejectionReason.UNDECODABLE,
        r"not single-object encoded Avro$",
        "these are no bytes of Fluvial's at all: see which program writes to this topic",
    ),
    (
        RejectionReason.UNDECODABLE,
        r"not the one encoding of a \w+: (?!cut_short)",
        "its writer encodes Avro otherwise than the contract has it: see *One encoding* in schemas/README.md",
    ),
    (
        RejectionReason.BAD_CERTIFICATE,
        r"not in canonical DER form$",
        "the CA, or whatever the certificate went through, writes DER otherwise than X.690 has it: issue it anew",
    ),
    (
        RejectionReason.BAD_SIGNATURE,
        r"forged \w+: ",
        "somebody whose role may not do so wrote a control record: it had no effect; find out whose certificate it is",
    ),
    (
        RejectionReason.BAD_SIGNATURE,
        r"it names device .*, signed by ",
        "a device signed an update in another's name: it had no effect; see what runs with the signer's key",
    ),
    (
        RejectionReason.WRONG_LAYOUT,
        r"codec .*, the policy takes ",
        "the policy does not take this codec: publish in one that it takes   (updates.codecs)",
    ),
    (
        RejectionReason.WRONG_LAYOUT,
        r"update_id is over ",
        "the device's program makes update ids that are too long: let the SDK choose them",
    ),
)
"""Where one outcome has several causes: how a verdict's detail begins, and what to do about that one."""
_FINGERPRINT: Final = re.compile(r"unknown schema fingerprint ([0-9a-f]{16})$")
_NEWER_THAN_POLICY: Final = (
    "the device writes a newer kind of update than the task's policy takes: an older codec, or a newer policy"
)
_NOBODYS_SCHEMA: Final = (
    "no release up to this one has this schema: most likely these are no bytes of a device; "
    "upgrade the workers only if a newer Fluvial writes here"
)


def _hint_for_cause(rejection: RejectionReason, detail: str) -> str:
    """What to do about the cause that a verdict's detail names; "" where it names none of several."""
    found = _FINGERPRINT.match(detail)
    if rejection is RejectionReason.UNKNOWN_SCHEMA and found is not None:
        known = MARKER + bytes.fromhex(found[1]) in registry()
        return _NEWER_THAN_POLICY if known else _NOBODYS_SCHEMA
    return next(
        (hint for reason, pattern, hint in _CAUSES if reason is rejection and re.match(pattern, detail)), ""
    )


def explain(outcome: str | None, detail: str = "") -> Explanation:
    """The explanation of an outcome; None means that there is no verdict yet. ``detail`` is what its verdict says."""
    match outcome:
        case None:
            return Explanation("no worker has folded this offset yet (see the lag in `fluvial status`)")
        case str() if outcome == ACCEPTED:
            return Explanation("it counts")
        case str() if outcome == CONTROL:
            return Explanation("a control record, obeyed from this offset on")
        case str() if outcome == AGGREGATED:
            return Explanation(
                "a window of an edge: its updates count, the edge's own log has their verdicts"
            )
        case str() if outcome == PARKED:
            return Explanation(
                "an operator parked it, because it made the fold itself raise: nobody judged it"
            )
        case _:
            rejection = REJECTIONS.get(outcome)
            if rejection is None:
                return Explanation(f"an outcome that this version of Fluvial does not know: {outcome}")
            return Explanation(
                "refused: it changes nothing but the counts",
                rejection.error_id,
                _hint_for_cause(rejection, detail) or rejection.hint_for_operators,
            )
