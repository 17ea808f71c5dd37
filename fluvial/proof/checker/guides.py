"""Whether each version's guide is one that its merger could name (invariant 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluvial.proof.checker.standing import guide_of
from fluvial.proof.checker.task import Damaged

if TYPE_CHECKING:
    from fluvial.proof.checker.chain import Chain


def check_guides(chain: Chain) -> None:
    """Hold the guide that each manifest names against guardians' signatures and the versions before it."""
    for version in chain.versions[1:]:
        before = chain.versions[version.number - 1]
        try:
            policy = chain.shelf.policy(before.signed["policy_sha256"])
            flaw = _flaw(chain, version.number, version.manifest.get("guide_sha256", ""), policy)
        except Damaged as damage:
            flaw = f"cannot be looked at: {damage}"
        if flaw:
            chain.findings.violate(2, f"manifest of version {version.number}: its guide {flaw}")


def _flaw(chain: Chain, number: int, name: object, policy: dict[str, Any]) -> str:
    defence = policy.get("defence", {})
    if defence.get("kind") != "guide":
        return f"is {name!r}, under a policy without guides" if name else ""
    if not isinstance(name, str) or not name:
        return "is missing, and its policy waits for one" if defence["guide_missing"] == "wait" else ""
    guide = guide_of(chain.shelf, name, set())
    if guide is None:
        return f"{name} was signed by no guardian, or is none of this layout"
    base, model_sha256, _ = guide
    if not 1 <= number - base <= defence["guide_versions_max"]:
        return f"{name} is for version {base}"
    if not 0 <= base < len(chain.versions) or chain.versions[base].signed["model_sha256"] != model_sha256:
        return f"{name} is for another model of version {base}"
    return ""
