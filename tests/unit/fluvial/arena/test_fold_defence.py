"""The fold in the arena: partitions hear what the merger would tell them, and a policy's rules are the fold's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fluvial.arena.attacks import ATTACKS
from fluvial.arena.attacks.shape import Rules
from fluvial.arena.defences import POLICIES, policy_of
from fluvial.arena.fold_defence import FoldDefence, rules_of
from fluvial.arena.measures import measured
from fluvial.arena.play import Play, Played
from fluvial.arena.world import Root, world

DEVICES = 20
VERSIONS = 8


def played(name: str, attack: str = "none", root: Root | None = None) -> tuple[FoldDefence, Played]:
    shared = world("digits", DEVICES, 0.5, 0, root or Root())
    defence = FoldDefence(shared, policy_of(shared, POLICIES[name]))
    play = Play(shared, ATTACKS.get(attack), defence, malicious=0.4, seed=0, versions=VERSIONS)
    return defence, play.run()


def test_what_is_usual_is_what_the_honest_send() -> None:
    defence, found = played("median")
    usual = [state.usual for state in defence._states.values()]
    assert usual[0] == usual[1]
    norms = [float(np.linalg.norm(sent.delta)) for sent in found.sent]
    assert np.quantile(norms, 0.25) < usual[0].norm < np.quantile(norms, 0.75)


@pytest.mark.parametrize("attack", ["starvation", "starvation-short"])
def test_fast_devices_with_short_updates_do_not_make_theirs_the_usual_norm(attack: str) -> None:
    defence, found = played("median", attack)
    sent = [float(np.linalg.norm(one.delta)) for one in found.sent if not one.malicious]
    assert len(sent) < len(found.sent) / 4
    usual = max(state.usual.norm for state in defence._states.values())
    assert usual > 0.7 * float(np.median(sent))


def test_under_a_guide_partitions_know_usual_cosines_and_the_attack_loses() -> None:
    defence, guided = played("guide", "sign-flip")
    _, undefended = played("undefended", "sign-flip")
    assert all(state.usual.cosine > 0 for state in defence._states.values())
    assert np.mean(guided.accuracies) > np.mean(undefended.accuracies) + 0.1
    outcomes = {sent.outcome for sent in guided.sent if sent.malicious}
    assert "anomalous" in outcomes
    assert measured(guided).malicious_weight < measured(undefended).malicious_weight / 2


def test_a_root_set_that_lacks_classes_costs_what_only_the_honest_know() -> None:
    whole, half = (measured(played("guide", root=Root(classes=classes))[1]) for classes in (10, 3))
    assert half.accuracy < whole.accuracy - 0.05


@pytest.mark.parametrize(
    ("sections", "rules"),
    [
        ({"defence": {"kind": "none"}}, Rules(1.5)),
        ({"defence": {"kind": "median"}}, Rules(1.5)),
        ({"defence": {"kind": "peers", "cosine_min": -0.25}}, Rules(1.5, -0.25)),
        ({"defence": {"kind": "guide", "guide_cosine_min": -0.2}}, Rules(1.5, -0.2, guided=True)),
        ({"updates": {"norm_clip": 0.5}, "defence": {"kind": "none"}}, Rules(0.5)),
    ],
)
def test_attackers_read_the_bounds_of_the_policy(sections: dict[str, Any], rules: Rules) -> None:
    assert rules_of(policy_of(world("digits", DEVICES, 0.5, 0), sections)) == rules
