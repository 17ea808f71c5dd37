"""Plays: the real fold and its plain twin agree, a play is a function of its arguments, attacks do harm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from fluvial.arena import grid
from fluvial.arena.attacks import ATTACKS, NO_ATTACK
from fluvial.arena.defences import contender, names
from fluvial.arena.grid import Plan
from fluvial.arena.measures import measured
from fluvial.arena.play import Play
from fluvial.arena.versions import ACCEPTED
from fluvial.arena.world import world

if TYPE_CHECKING:
    from pathlib import Path

    from fluvial.arena.play import Played

VERSIONS = 6
DEVICES = 16


def played(
    defence: str, attack: str = NO_ATTACK, *, malicious: float = 0.25, versions: int = VERSIONS
) -> Played:
    shared = world("digits", DEVICES, 0.5, 0)
    play = Play(
        shared,
        ATTACKS.get(attack),
        contender(defence).make(shared, 0),
        malicious=malicious,
        seed=0,
        versions=versions,
    )
    return play.run()


def test_without_defence_the_fold_is_what_its_plain_twin_says() -> None:
    real, twin = played("undefended"), played("mean")
    assert [(one.device, one.base, one.outcome) for one in real.sent] == [
        (one.device, one.base, one.outcome) for one in twin.sent
    ]
    assert real.accuracies == pytest.approx(twin.accuracies, abs=0.02)


def test_a_play_is_a_function_of_its_arguments() -> None:
    one, other = (played("undefended", "gaussian") for _ in range(2))
    assert one.accuracies == other.accuracies
    assert [sent.outcome for sent in one.sent] == [sent.outcome for sent in other.sent]


def test_an_attack_harms_who_has_no_defence_and_less_who_has() -> None:
    clean, attacked = (
        measured(played("undefended")),
        measured(played("undefended", "sign-flip", malicious=0.4)),
    )
    defended = measured(played("multi-krum", "sign-flip", malicious=0.4))
    assert clean.malicious_weight == 0.0 < attacked.malicious_weight
    assert attacked.accuracy < clean.accuracy - 0.1
    assert defended.accuracy > attacked.accuracy + 0.05
    assert clean.honest_refused == 0.0


@pytest.mark.parametrize("name", names())
def test_every_defence_plays_to_the_end(name: str) -> None:
    one = played(name, "inner-product", versions=3)
    assert one.versions >= 3 and 0.0 <= np.mean(one.accuracies) <= 1.0
    assert measured(one).cpu_us > 0.0 and measured(one).state_bytes > 0.0


@pytest.mark.parametrize("name", list(ATTACKS))
def test_every_attack_gets_into_the_undefended_fold(name: str) -> None:
    one = played("undefended", name, versions=3)
    bad = [sent for sent in one.sent if sent.malicious]
    assert bad and any(sent.outcome == ACCEPTED for sent in bad)
    assert all(sent.outcome for sent in one.sent)


def test_floods_make_up_the_traffic_that_they_say() -> None:
    sent = played("undefended", "flood-identities", versions=3).sent
    assert sum(one.malicious for one in sent) / len(sent) > 0.75


def test_a_known_play_is_not_played_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(
        alphas=(0.5,),
        shares=(0.25,),
        attacks=("sign-flip",),
        defences=("undefended", "mean"),
        seeds=1,
        devices=DEVICES,
        versions=2,
    )
    told: list[tuple[int, int]] = []
    first = grid.run(plan, tmp_path, lambda *one: told.append(one))
    again = grid.run(plan, tmp_path, lambda *one: told.append(one))
    assert first == again
    assert told[3] == (4, 0) and told[-1] == (4, 4)
    monkeypatch.setattr(grid, "code_sha256", lambda: "other code")
    grid.run(plan, tmp_path, lambda *one: told.append(one))
    assert told[-1] == (4, 0)
