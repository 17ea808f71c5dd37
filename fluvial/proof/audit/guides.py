"""Whether each version's guide is one: which of them a merger names is its choice, that it is one is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aggregation.defences import defence_named
from aggregation.errors import IntegrityProblem
from backends.object_store import ObjectNotFound
from fluvial.proof.audit.findings import OBJECT, Findings
from schemas.guides import NoGuideError, flaw_of_guide, guide_in
from schemas.objects import manifest_key, object_key

if TYPE_CHECKING:
    from aggregation.policy import Policy
    from backends.store.task_store import TaskStore
    from fluvial.proof.audit.versions import Chain

GUIDE: Final = "FLV-5030"


def check_guides(objects: TaskStore, chain: Chain, first: int, findings: Findings) -> None:
    """Hold the guides that versions ``first`` and later name against guardians' signatures and the chain."""
    for version in range(first, chain.last + 1):
        try:
            policy = _policy(objects, chain, version - 1)
        except IntegrityProblem:
            return  # merging it again has found that
        flaw = _flaw(objects, chain, version, policy, findings)
        if flaw:
            findings.add(
                GUIDE,
                f"manifest of version {version}",
                manifest_key(objects.task, version),
                "guide_sha256",
                expected="a guide of a young version, signed by a guardian of this task",
                got=flaw,
            )


def _flaw(objects: TaskStore, chain: Chain, version: int, policy: Policy, findings: Findings) -> str:
    """Why a merger may not have named what it did, in words; "" for a guide, and for one that cannot be looked at."""
    name = chain.links[version - 1].manifest.guide_sha256
    defence, layout = policy.defence, chain.genesis.tensor_layout
    if not defence_named(defence.kind).guided:
        return f"{name}, under a policy without guides" if name else ""
    if not name:
        return "none, and its policy waits for one" if defence.guide_missing == "wait" else ""
    key = object_key(objects.task, name)
    try:
        guide = guide_in(objects.get_object(name), chain.genesis.trust, objects.task, layout)
    except ObjectNotFound:
        findings.add(OBJECT, f"guide of version {version}", key, "bytes", expected=name, got="no object")
        return ""
    except IntegrityProblem as problem:
        findings.unreadable(OBJECT, f"guide of version {version}", key, problem)
        return ""
    except NoGuideError as problem:
        return f"{name}: it {problem}"
    known = 0 <= guide.version <= chain.last
    model_sha256 = chain.hashes(guide.version)[0] if known else ""
    flaw = flaw_of_guide(guide, version, defence.guide_versions_max, model_sha256)
    return f"{name}: it {flaw}" if flaw else ""


def _policy(objects: TaskStore, chain: Chain, version: int) -> Policy:
    sha256, first = chain.policy_sha256(version), chain.genesis.first_policy
    return first if sha256 == first.sha256 else objects.policy(sha256)
