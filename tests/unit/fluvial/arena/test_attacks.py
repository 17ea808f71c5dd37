"""What every attack keeps to: its own randomness, the honest updates left as they are, the bounds that it knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from fluvial.arena.attacks import ATTACKS
from fluvial.arena.attacks.informed import MARGIN
from fluvial.arena.attacks.shape import Knowledge, Rules, Turn, against
from fluvial.arena.world import world

if TYPE_CHECKING:
    from fluvial.arena.world import World

every_attack = pytest.mark.parametrize("name", list(ATTACKS))


@pytest.fixture(scope="module")
def small() -> World:
    return world("digits", 12, 0.5, 0)


def turn_of(small: World, *, honest: int = 8, seed: int = 3) -> Turn:
    rng = np.random.default_rng(1)
    parameters = small.first.size
    drawn = rng.normal(0.1, 1.0, (honest, parameters)).astype(np.float32)
    known = Knowledge(
        world=small,
        rules=Rules(1.5, -0.5, guided=True),
        version=25,
        oldest_base=5,
        honest=drawn,
        last_step=rng.normal(size=parameters).astype(np.float32),
        guide=rng.normal(size=parameters).astype(np.float32),
        norm_usual=1.0,
        cosine_usual=0.3,
        model=lambda version: small.first * np.float32(1.0 + version),
    )
    own = rng.normal(size=parameters).astype(np.float32)
    return Turn("a-1", 1, 3, 25, own, known, np.random.default_rng(seed))


@every_attack
def test_the_same_turn_gives_the_same_updates_and_changes_nothing(name: str, small: World) -> None:
    one, other = turn_of(small), turn_of(small)
    before = one.own.copy(), one.known.honest.copy()
    first, second = ATTACKS[name].answers(one), ATTACKS[name].answers(other)
    assert [(a.device, a.base) for a in first] == [(b.device, b.base) for b in second]
    assert all(np.array_equal(a.delta, b.delta) for a, b in zip(first, second, strict=True))
    assert np.array_equal(one.own, before[0]) and np.array_equal(one.known.honest, before[1])
    assert all(np.isfinite(a.delta).all() and a.delta.shape == one.own.shape for a in first)


@every_attack
def test_an_attack_works_before_anybody_was_seen(name: str, small: World) -> None:
    for sent in ATTACKS[name].answers(turn_of(small, honest=0)):
        assert np.isfinite(sent.delta).all()


@every_attack
def test_poisoned_data_are_copies(name: str, small: World) -> None:
    x, y = small.x[0].copy(), small.y[0].copy()
    ATTACKS[name].data(small, 0, small.x[0], small.y[0])
    assert np.array_equal(small.x[0], x) and np.array_equal(small.y[0], y)


@every_attack
def test_a_backdoor_says_what_its_trigger_is(name: str, small: World) -> None:
    found = ATTACKS[name].triggered(small)
    assert (found is not None) == ATTACKS[name].backdoor
    assert found is None or len(found[0]) == len(found[1]) > 0


def test_inside_the_bound_is_inside_it(small: World) -> None:
    turn = turn_of(small)
    delta, guide = ATTACKS["inside-the-bound"].delta(turn), turn.known.guide
    assert guide is not None
    cosine = float(delta @ guide / np.linalg.norm(delta) / np.linalg.norm(guide))
    assert cosine >= turn.known.rules.cosine_min + MARGIN - 1e-4


@pytest.mark.parametrize("cosine", [-0.5, 0.0, 0.4])
def test_a_wish_is_turned_exactly_so_far_as_it_must(cosine: float) -> None:
    rng = np.random.default_rng(0)
    direction = rng.normal(size=50).astype(np.float32)
    turned = against(direction, -direction + rng.normal(size=50).astype(np.float32), cosine)
    assert float(turned @ direction / np.linalg.norm(direction)) == pytest.approx(cosine, abs=1e-4)
    assert float(np.linalg.norm(turned)) == pytest.approx(1.0, abs=1e-4)


def test_floods_answer_every_live_base(small: World) -> None:
    bases = [sent.base for sent in ATTACKS["flood-bases"].answers(turn_of(small))]
    assert bases == list(range(25, 4, -1))
