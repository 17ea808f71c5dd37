"""A simulation under each merge: it trains, and the same arguments give the same models."""

from __future__ import annotations

from aggregation.merges import MERGES
from aggregation.policy import policy_from_mapping
from fluvial.session.simulation import SimulationResult, simulate


def merged(kind: str) -> SimulationResult:
    policy = policy_from_mapping(
        {
            "buffer": {"updates": 12},
            "window": {"seconds_max": 0.25},
            "merge": {"kind": kind, "buckets": 8} if MERGES[kind].robust else {},
        }
    )
    return simulate("digits", devices=14, versions=2, attackers=1, policy=policy)


def test_each_merge_makes_versions_of_its_own_and_the_same_ones_again() -> None:
    results = {kind: merged(kind) for kind in MERGES}
    models = {kind: [one.model_sha256 for one in result.versions] for kind, result in results.items()}
    assert {len(found) for found in models.values()} == {2}
    assert len({found[-1] for found in models.values()}) == len(MERGES)
    again = merged("krum")
    assert [one.model_sha256 for one in again.versions] == models["krum"]
