"""What a policy has to be for a task whose devices train with control variates (SCAFFOLD)."""

from __future__ import annotations

from aggregation.errors import UsageProblem
from aggregation.policy import NEWEST, Policy
from aggregation.policy.policy import BEFORE_V6


def require_control_policy(policy: Policy) -> None:
    """UsageProblem FLV-2266 for a policy of a format that has no section ``control``."""
    if policy.format in BEFORE_V6:
        raise UsageProblem(
            "FLV-2266",
            f"the task's devices train with control variates, and its policy is of {policy.format}, which has no "
            "section for them",
            hint=f'leave out `format`, or write format = "{NEWEST}"; or train by another algorithm than scaffold',
        )
