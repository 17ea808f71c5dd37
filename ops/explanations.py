"""What a verdict means to a person: one sentence and the next step for every outcome."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aggregation.events import ACCEPTED, CONTROL, SKIPPED, Rejection

ERROR_ID_OF: Final = {rejection.outcome: rejection.error_id for rejection in Rejection}
OUTCOMES: Final = (ACCEPTED, CONTROL, SKIPPED, *ERROR_ID_OF)

_HINTS: Final[dict[Rejection, str]] = {
    Rejection.UNDECODABLE: "whatever writes this is no Fluvial device, or was cut short: see the raw bytes above",
    Rejection.UNKNOWN_SCHEMA: "its writer is newer than this reader: upgrade the workers",
    Rejection.TOO_STALE: "fetch the current model with `fluvial device fetch`, then train   (staleness.versions_max)",
    Rejection.TOO_LARGE: "send a smaller model or the int8 codec   (limit: updates.bytes_max)",
    Rejection.WRONG_LAYOUT: "it trains another model than the task's: compare its task file with `fluvial task list`",
    Rejection.NOT_FINITE: "training has diverged on the device: lower its learning rate",
    Rejection.BAD_CERTIFICATE: "issue a certificate by the region's own CA with `fluvial ca issue`",
    Rejection.CERTIFICATE_EXPIRED: "issue a new certificate with `fluvial ca issue`",
    Rejection.REVOKED: "an operator has barred this device or certificate; a new certificate needs a new device id",
    Rejection.BAD_SIGNATURE: "the bytes were changed on the way, or signed with another key than the certificate's",
    Rejection.WRONG_TASK: "the device publishes to another task's topic: check its task name",
    Rejection.WRONG_REGION: "the device publishes to another region's topic: check its region",
    Rejection.WRONG_PARTITION: "the record was copied here, or its writer does not key by device id with murmur2",
    Rejection.DUPLICATE: "nothing to mend: a device counts once per base version; fetch the next version first",
    Rejection.UNKNOWN_BASE: "the device trained on a model that this task never published: fetch it again",
    Rejection.FUTURE_BASE: "the device knows a version before its partition does: its announcement came from elsewhere",
    Rejection.NORM_EXCEEDED: "clip on the device, or see whether its training has diverged   (limit: updates.norm_max)",
    Rejection.ANOMALOUS: "look at the device: an attack and very unusual data look the same   (limits: anomaly.*)",
}


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


def explain(outcome: str | None) -> Explanation:
    """The explanation of an outcome; None means that there is no verdict yet."""
    match outcome:
        case None:
            return Explanation("no worker has folded this offset yet (see the lag in `fluvial status`)")
        case str() if outcome == ACCEPTED:
            return Explanation("it counts")
        case str() if outcome == CONTROL:
            return Explanation("a control record, obeyed from this offset on")
        case str() if outcome == SKIPPED:
            return Explanation(
                "an operator had it set aside, because it made the fold itself raise: nobody judged it"
            )
        case _:
            rejection = next((one for one in Rejection if one.outcome == outcome), None)
            if rejection is None:
                return Explanation(f"an outcome that this version of Fluvial does not know: {outcome}")
            return Explanation(
                "refused: it changes nothing but the counts", rejection.error_id, _HINTS[rejection]
            )
