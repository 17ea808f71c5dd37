"""A device's turns: whether and when its task's policy lets it answer, by what is public.

What could never be accepted is said before anybody works for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aggregation.errors import TimeoutProblem, UsageProblem
from aggregation.selection import selection_named

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aggregation.policy import Policy
    from producers.sdk.bases import Base
    from producers.sdk.updates import Author


def is_ever_selected(policy: Policy, cohort: str) -> bool:
    """Whether a device whose certificate names ``cohort`` ("" for none) may answer any version but the first."""
    selection = policy.selection
    return selection_named(selection.kind).selects_ever(selection, cohort)


def check_cohort_known(policy: Policy, cohort: str) -> None:
    """UsageProblem FLV-2509 where the certificate names a cohort, and the policy is of a format that knows none."""
    if cohort and not policy.knows_cohorts:
        raise UsageProblem(
            "FLV-2509",
            f"the device's certificate names the cohort {cohort!r}, and the task's policy is of {policy.format}, "
            "which knows no cohorts: every update would be refused",
            hint='renew the certificate without it, `fluvial ca renew --cohort "" NAME`, or move the task to a policy '
            "of fluvial/policy/v6",
        )


def check_somebody(policy: Policy, cohorts: Iterable[str]) -> None:
    """UsageProblem FLV-2511 where the policy selects none of the devices of these cohorts, however long they wait."""
    found = sorted(set(cohorts))
    if found and not any(is_ever_selected(policy, cohort) for cohort in found):
        named = ", ".join(repr(cohort) if cohort else "none" for cohort in found[:8])
        raise UsageProblem(
            "FLV-2511",
            f"the policy selects none of these devices, ever: their cohorts are {named}, and the shares of all of "
            "these are 0 (selection.cohorts, selection.share)",
            hint="give one of them a share above 0, or issue certificates of the cohorts that the policy names "
            "(`fluvial ca issue --cohort NAME`)",
        )


def not_its_turn(author: Author, base: Base, timeout_s: float) -> TimeoutProblem:
    """FLV-2508, ready to raise."""
    kind, seconds = base.policy.selection.kind, base.policy.buffer.seconds_max
    if is_ever_selected(base.policy, author.cohort):
        hint = (
            f"wait longer: under selection.kind = {kind!r} more devices are asked with every {seconds:g} s that a "
            "version stands"
        )
    else:
        named = f"the cohort {author.cohort!r}" if author.cohort else "none of the cohorts"
        hint = f"it is of {named}, whose share is 0 in the policy (selection.cohorts): waiting does not change that"
    return TimeoutProblem(
        "FLV-2508",
        f"{author.device_id} may not answer version {base.version}, and within {timeout_s:g} s no other came that it "
        "may",
        hint=hint,
    )
