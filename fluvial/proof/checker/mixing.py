"""FedAsync's mixing of whole models (Xie, Koyejo, Gupta 2019, algorithm 1), by schemas/meaning.md: ``server.mixing``.

A device's model is the one that it answered and its delta. What is mixed with the parent is that model, and not the
delta alone: so each base adds its distance from the parent, by what its updates weigh.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from fluvial.proof.checker.arithmetic import WEIGHT_ONE, Floats, Model


def mixes(policy: dict[str, Any]) -> bool:
    """Whether versions mix models; none did before v6."""
    return bool(policy["server"].get("mixing", False))


def mixed(delta: Floats, bases: Iterable[tuple[int, Model]], parent: Model, divisor: float) -> Floats:
    """The delta float64[P] of a version whose updates answered ``bases``.

    These are (what the updates weigh in 1/65536, the weights of the version), ascending by version.
    """
    for weight, base in bases:
        factor = float(weight) / float(WEIGHT_ONE) / divisor
        delta = delta + factor * (base.astype(np.float64) - parent.astype(np.float64))
    return delta
