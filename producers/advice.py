"""A verdict in words that help: the error id of its page, and what its device can do about it."""

from __future__ import annotations

from aggregation.errors import Finding
from aggregation.events import ACCEPTED, SKIPPED, Rejection, Verdict

_BY_OUTCOME = {rejection.outcome: rejection for rejection in Rejection}

_HINTS = {
    Rejection.UNDECODABLE: "publish with this version of Fluvial: the bytes are not a whole signed envelope",
    Rejection.UNKNOWN_SCHEMA: "workers are older than this device: upgrade them first",
    Rejection.TOO_STALE: (
        "fetch the current model with `fluvial device fetch`, then train again   "
        "(limit: policy.staleness.versions_max)"
    ),
    Rejection.TOO_LARGE: "use `--codec int8` or a smaller model   (limit: policy.updates.bytes_max)",
    Rejection.WRONG_LAYOUT: "train the task's own model: `fluvial device fetch` writes one of the right layout",
    Rejection.NOT_FINITE: 'lower CONFIG["learning_rate"] in the task file, or scale the inputs to about 0 … 1',
    Rejection.BAD_CERTIFICATE: "issue one with `fluvial ca issue --task T --region R NAME`",
    Rejection.CERTIFICATE_EXPIRED: "issue another, of a new name, with `fluvial ca issue --task T --region R NAME`",
    Rejection.REVOKED: "an operator barred this device: ask them why",
    Rejection.BAD_SIGNATURE: "sign with the key that `fluvial ca issue` wrote beside the certificate",
    Rejection.WRONG_TASK: "name the task that this log belongs to with `--task`",
    Rejection.WRONG_REGION: "publish to the region of the device's certificate with `--region`",
    Rejection.WRONG_PARTITION: "let the SDK choose the partition: it follows from the device id",
    Rejection.DUPLICATE: "nothing to do: one contribution counts for each version; wait for the next",
    Rejection.UNKNOWN_BASE: "fetch the current model with `fluvial device fetch`, then train again",
    Rejection.FUTURE_BASE: "fetch the announced model with `fluvial device fetch`, then train again",
    Rejection.NORM_EXCEEDED: 'lower CONFIG["learning_rate"] or train fewer epochs   (limit: policy.updates.norm_max)',
    Rejection.ANOMALOUS: "compare this device's data and learning rate with its peers'   (limits: policy.anomaly)",
}


_SKIPPED_HINT = (
    "nothing to mend on the device: train on the next version; an operator knows why this one was set aside"
)


def accepted(verdict: Verdict) -> bool:
    """Whether the update counts."""
    return verdict.outcome == ACCEPTED


def hint_for(outcome: str) -> str:
    """What a device can do about an outcome; "" for one that asks nothing of it."""
    if outcome == SKIPPED:
        return _SKIPPED_HINT
    rejection = _BY_OUTCOME.get(outcome)
    return _HINTS[rejection] if rejection else ""


def problem_of(verdict: Verdict, where: str) -> Finding | None:
    """A refused verdict as an error to show or raise; None when it was accepted. ``where`` names device and record."""
    rejection = _BY_OUTCOME.get(verdict.outcome)
    if rejection is None:
        return None
    return Finding(
        rejection.error_id, f"update refused: {verdict.detail}", where=where, hint=_HINTS[rejection]
    )
