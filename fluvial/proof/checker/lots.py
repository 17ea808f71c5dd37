"""Who may contribute to a version, and how much by examples: since ``fluvial/policy/v5``, by schemas/meaning.md.

To a policy before v5 everybody may, at any time, and nobody's examples are counted.
"""

from __future__ import annotations

import hashlib
import math
from fractions import Fraction
from typing import Any, Final

LOT: Final = b"fluvial/lot/v1"
SLOT: Final = b"fluvial/slot/v1"
ALL_TICKETS: Final = 2**64
DOUBLINGS_MAX: Final = 64


def is_synchronous(policy: dict[str, Any]) -> bool:
    """Whether versions are rounds: only the newest one may be answered."""
    return bool(policy["buffer"].get("mode") == "rounds")


def turns_of(policy: dict[str, Any], since_ms: int, now_ms: int) -> int:
    """How many deadlines of a version have passed ``now_ms`` where it stands since then; 0 in its first one."""
    deadline_s = float(policy["buffer"]["seconds_max"])
    return max(0, math.trunc((now_ms - since_ms) / 1000.0 / deadline_s))


def is_selected(
    policy: dict[str, Any],
    task: str,
    base: int,
    model_sha256: str,
    device: str,
    *,
    turns: int,
    cohort: str = "",
) -> bool:
    """Whether a device may answer version ``base``, whose model's hash in hex is ``model_sha256``, in its turn.

    A share doubles with each of a version's ``turns``; of slots one more may answer, that of the version before.
    ``cohort`` is what the device's certificate says, "" where it says none.
    """
    selection = policy.get("selection", {"kind": "all"})
    if selection["kind"] in {"share", "cohorts"}:
        share = selection["share"]
        if selection["kind"] == "cohorts" and cohort:
            share = selection["cohorts"].get(cohort, share)
        # A float is a fraction, exactly: nothing is rounded before the comparison.
        winning = Fraction(share) * (ALL_TICKETS << min(turns, DOUBLINGS_MAX))
        return _ticket(LOT, model_sha256, device) < math.floor(min(winning, Fraction(ALL_TICKETS)))
    if selection["kind"] == "slots":
        slots = int(selection["slots"])
        return (base - _ticket(SLOT, task, device)) % slots <= turns
    return True


def _ticket(domain: bytes, subject: str, device: str) -> int:
    """0 to 2**64 - 1: the hash's first 16 hex digits, as one number."""
    seen = hashlib.sha256(b"\0".join((domain, subject.encode(), device.encode()))).hexdigest()
    return int(seen[:16], 16)


def weight_by_examples(policy: dict[str, Any], weight: int, examples: int) -> int:
    """What is left of a weight in 1/65536 where the policy weighs by examples: of ``examples_max`` all of it."""
    rule = policy.get("weights", {"by": "updates"})
    if rule["by"] == "updates":
        return weight
    most = int(rule["examples_max"])
    counted = sorted((1, examples, most))[1]
    return max(1, weight * counted // most)
