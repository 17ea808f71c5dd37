"""Control variates (SCAFFOLD), ``fluvial/genesis/v6``: a section of the model that a version moves by itself.

By schemas/meaning.md. Karimireddy et al. 2020, algorithm 1, with option II on the devices.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from fluvial.proof.checker import arithmetic
from fluvial.proof.checker.arithmetic import Ints, Model

PREFIX: Final = "control:"
SECTIONS: Final = ("weights", "buffers", "control")
"""Of a layout, in their order."""
DEVICES_BEFORE_V6: Final = 1000
"""Of a policy that has no section ``control``; its deltas are clipped as the weights' are."""


def rule_of(policy: dict[str, Any]) -> dict[str, Any]:
    """The section ``control`` of a policy."""
    found: dict[str, Any] | None = policy.get("control")
    return found or {"devices": DEVICES_BEFORE_V6, "norm_clip": policy["updates"]["norm_clip"]}


def flaw_of(layout: list[dict[str, Any]]) -> str:
    """What is wrong with the sections of a v6 layout, as its document has it; "" for a good one."""
    sections = [one["section"] for one in layout]
    if any(one not in SECTIONS for one in sections):
        return "has a section that this checker does not know"
    if sections != sorted(sections, key=SECTIONS.index):
        return "does not have weights, then buffers, then control"
    control = [one for one in layout if one["section"] == "control"]
    if any(one["name"].startswith(PREFIX) for one in layout if one["section"] != "control"):
        return "calls a weight or a buffer as control variates are called"
    expected = [
        {"name": PREFIX + one["name"], "shape": one["shape"], "dtype": "float32", "nonnegative": False}
        for one in layout
        if one["section"] == "weights"
    ]
    got = [{key: one[key] for key in ("name", "shape", "dtype", "nonnegative")} for one in control]
    return "has control variates that are not its weights'" if got and got != expected else ""


def added(policy: dict[str, Any], parts: list[Any], scales: list[float], weight: int) -> Ints:
    """What the control tensors of an accepted update add to the sums: int64[C], clipped by their own norm."""
    squares = [arithmetic.squares_and_dot(part, None)[0] for part in parts]
    norm, most = arithmetic.norm_of(squares, scales), rule_of(policy)["norm_clip"]
    factor = weight / arithmetic.WEIGHT_ONE * (most / norm if norm > most else 1.0)
    exponent = policy["fixed_point"]["exponent"]
    found = [
        arithmetic.added(part, scale, square, factor, exponent)
        for part, scale, square in zip(parts, scales, squares, strict=True)
    ]
    return np.concatenate(found)


def moved(control: Model, total: Ints, policy: dict[str, Any]) -> Model:
    """The control variates of a version, float32[C], from its parent's and the sums of its windows int64[C]."""
    unit = float(2 ** policy["fixed_point"]["exponent"])
    step = total.astype(np.float64) / unit / float(rule_of(policy)["devices"])
    return (control.astype(np.float64) + step).astype(np.float32)
