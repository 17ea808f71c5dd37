"""A simulation under the policy ``guide`` runs a guardian, too: the same rules, one history."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aggregation.errors import UsageProblem
from aggregation.policy import policy_from_mapping
from aggregation.reasons import Reason
from fluvial.session.simulation import SimulationResult, simulate
from learning.task import load_task
from tests.task_files import HEAD, PLAIN

if TYPE_CHECKING:
    from pathlib import Path

GUIDED = policy_from_mapping(
    {
        "format": "fluvial/policy/v3",
        "updates": {"norm_clip": 1.5},
        "buffer": {"updates": 8},
        "window": {"seconds_max": 0.25},
        "defence": {"kind": "guide", "guide_missing": "wait"},
    }
)


def guided(**changed: object) -> SimulationResult:
    return simulate("digits", devices=12, versions=4, attackers=2, policy=GUIDED, **changed)  # type: ignore[arg-type]


def test_attackers_are_refused_against_the_guide_and_the_honest_are_not() -> None:
    result = guided()
    against = [one for one in result.updates if one.verdict.because.reason is Reason.AGAINST_GUIDE]
    assert against
    assert {one.honest for one in against} == {False}
    assert [facts.version for facts in result.versions] == [1, 2, 3, 4]


def test_the_same_arguments_give_the_same_models() -> None:
    first, second = guided(), guided()
    assert [one.model_sha256 for one in first.versions] == [one.model_sha256 for one in second.versions]


def test_a_root_set_that_covers_too_little_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(f"{HEAD}\ndef model():\n    return {PLAIN}\n")
    with pytest.raises(UsageProblem) as refused:
        simulate(load_task(str(file)), devices=4, versions=1, policy=GUIDED)
    assert refused.value.error_id == "FLV-2251"
