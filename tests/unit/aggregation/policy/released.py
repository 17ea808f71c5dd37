"""Policies' documents as they were released, by format."""

from __future__ import annotations

from pathlib import Path

GOLDEN = Path(__file__).parents[3] / "golden"
V1 = (GOLDEN / "policy.v1.json").read_bytes()
V2 = (GOLDEN / "policy.v2.json").read_bytes()
V3 = (GOLDEN / "policy.v3.json").read_bytes()
V4 = (GOLDEN / "policy.v4.json").read_bytes()
V5 = (GOLDEN / "policy.v5.json").read_bytes()
V6 = (GOLDEN / "policy.v6.json").read_bytes()
RELEASED = {
    f"fluvial/policy/v{number}": data for number, data in enumerate((V1, V2, V3, V4, V5, V6), start=1)
}
