"""Regions without a centre: the same set gives the same version, whoever has it, whatever the network did before."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from aggregation.policy import policy_from_mapping
from aggregation.server.lateness import lateness_under
from fluvial.simulating.regions import GENESIS, Chain, Chains, Decision, Facts, Window, decide
from tests.simulation.without_centre import (
    LAYOUT,
    POLICY,
    SLOTS,
    Place,
    Regions,
    undone_after_all_had_adopted_it,
    violations,
)


def test_16_networks_that_are_cut_and_heal_come_to_one_chain() -> None:
    """The slow lane tries thousands."""
    partitions = apart = forks = 0
    for seed in range(16):
        found, regions = violations(seed)
        assert found == [], seed
        partitions += regions.partitions
        apart += regions.made_while_cut
        forks += regions.forks
    # A network that is never cut, or in which nobody decides meanwhile, would prove nothing.
    assert min(partitions, apart, forks) > 16


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_3000_networks_come_to_one_chain() -> None:
    assert [seed for seed in range(1000, 4000) if violations(seed)[0]] == []


def played(seed: int) -> tuple[Regions, Chain]:
    regions = Regions(seed)
    regions.play(40)
    return regions, regions.heal()


def test_facts_in_any_order_and_more_than_once_give_the_same_head_and_model() -> None:
    for seed in range(8):
        regions, head = played(seed)
        first = next(iter(regions.places.values()))
        facts = first.facts.beyond(set())
        for again in range(3):
            place = Place("eu", POLICY)
            order = facts + facts[: len(facts) // 2]
            random.Random(again).shuffle(order)
            for fact in order:
                place.facts.learn(fact)
                place.chains.head()  # what it thinks meanwhile changes nothing
            assert place.chains.head() == head
            assert np.array_equal(place.model_of(head).model, first.model_of(head).model)


def test_a_version_is_what_its_windows_come_to_by_hand() -> None:
    """In fractions, with momentum, and each window by how far behind its branch parted from the chain."""
    regions, head = played(3)
    place = next(iter(regions.places.values()))
    momentum, model = [Fraction(0)] * LAYOUT.parameters, [Fraction(0)] * LAYOUT.parameters
    late = 0
    for number in range(1, head.number + 1):
        chain = place.chains.of(head.path[number])
        assert chain is not None
        assert chain.decision is not None
        weights = lateness_under(POLICY, number - 1).weights
        total, updates = [Fraction(0)] * LAYOUT.parameters, 0
        for name in chain.decision.windows:
            window = place.facts.windows[name]
            branch = place.chains.of(window.under)
            assert branch is not None
            parted = (
                sum(one == other for one, other in zip(branch.path, head.path[:number], strict=False)) - 1
            )
            late += parted < number - 1
            behind = number - 1 - parted
            weight = weights[behind] if behind < len(weights) else 0
            if window.aggregate.accepted and weight:
                total = [
                    a + Fraction(int(b) * weight, 1 << 16) for a, b in zip(total, window.sums, strict=True)
                ]
                updates += window.aggregate.accepted
        mean = [one / (1 << POLICY.fixed_point.exponent) / updates for one in total]
        momentum = [Fraction(1, 2) * a + b for a, b in zip(momentum, mean, strict=True)]
        model = [a + b for a, b in zip(model, momentum, strict=True)]
    assert late > 0
    found = place.model_of(head).model
    assert np.allclose(found, [float(one) for one in model], rtol=1e-4, atol=1e-5)


def whole(regions: Regions) -> tuple[Facts, Chains]:
    place = regions.places["eu"]
    return place.facts, place.chains


def healed_with_one_more(regions: Regions) -> Chain:
    """A window that is too late fills no version: it goes along with one that counts."""
    eu, before = regions.places["eu"], regions.heal().updates
    while regions.heal().updates == before:
        eu.facts.learn(regions.window(eu))
    return regions.heal()


def test_who_knows_the_same_decides_the_same() -> None:
    regions = Regions(1)
    windows = [regions.window(place) for place in regions.places.values() for _ in range(5)]
    for place in regions.places.values():
        place.facts.learn(*windows)
    decided = [decide(place.chains, POLICY, deadline_passed=True) for place in regions.places.values()]
    assert decided[0] is not None
    assert {one.name for one in decided if one} == {decided[0].name}


def test_the_side_with_more_updates_stays_and_the_other_ones_windows_come_late() -> None:
    regions = Regions(2)
    eu, us = regions.places["eu"], regions.places["us"]
    for place, windows in ((eu, 12), (us, 5)):
        for _ in range(windows):
            place.facts.learn(regions.window(place))
            decision = decide(place.chains, POLICY, deadline_passed=True)
            if decision is not None:
                place.facts.learn(decision)
    heavy, light = eu.chains.head(), us.chains.head()
    assert heavy.updates > light.updates > 0
    eu.facts.learn(*us.facts.beyond(eu.facts.names))
    assert eu.chains.head() == heavy
    waiting = eu.chains.waiting(heavy)
    assert {one.name for one in waiting if one.aggregate.accepted} == {
        name
        for one in light.path[1:]
        for name in us.facts.decisions[one].windows
        if us.facts.windows[name].aggregate.accepted
    }
    assert {eu.chains.seen_from(heavy, one).version for one in waiting} == {0}
    head = healed_with_one_more(regions)
    assert heavy.name in head.path
    assert light.name not in head.path
    behind = heavy.number > POLICY.staleness.versions_max
    assert head.dropped == (light.updates if behind else 0)


def test_windows_that_come_too_late_are_dropped_and_counted() -> None:
    regions = Regions(5, policy_from_mapping({"buffer": {"updates": 1}, "staleness": {"versions_max": 2}}))
    eu, us = regions.places["eu"], regions.places["us"]
    away = [regions.window(us) for _ in range(6)]
    while eu.chains.head().number < 6:
        eu.facts.learn(regions.window(eu))
        decision = decide(eu.chains, regions.policy, deadline_passed=True)
        if decision is not None:
            eu.facts.learn(decision)
    us.facts.learn(*away)
    head = healed_with_one_more(regions)
    assert head.dropped == sum(one.aggregate.accepted for one in away) > 0


def test_a_decision_that_no_merger_may_make_is_no_version() -> None:
    regions = Regions(4)
    facts, chains = whole(regions)
    windows: list[Window] = []
    while sum(one.aggregate.accepted for one in windows) < 4:
        windows.append(regions.window(regions.places["ap"]))
    facts.learn(*windows)
    names = tuple(one.name for one in windows)
    spoiled = [
        Decision(2, GENESIS, names),
        Decision(1, GENESIS, names[1:]),
        Decision(1, GENESIS, names[::-1]),
        Decision(1, GENESIS, (*names, names[-1])),
        Decision(1, GENESIS, ()),
        Decision(1, "of nobody", names),
        Decision(1, GENESIS, (*names, "a window that never came")),
    ]
    for decision in spoiled:
        facts.learn(decision)
        assert chains.of(decision.name) is None, decision
        assert chains.head().name == GENESIS
    good = Decision(1, GENESIS, names)
    facts.learn(good)
    assert chains.head().name == good.name


def test_of_two_windows_of_one_sequence_one_counts() -> None:
    """A worker that lies: the chain holds the one that was decided of, and no window that follows the other."""
    regions = Regions(6)
    facts, chains = whole(regions)
    place = regions.places["ap"]
    first = regions.window(place)
    while not first.aggregate.accepted:
        facts.learn(first)
        first = regions.window(place)
    other = replace(
        first, aggregate=replace(first.aggregate, sha256="0" * 64, accepted=first.aggregate.accepted + 1)
    )
    facts.learn(first, other, *(regions.window(place) for _ in range(3)))
    for _ in range(4):
        decision = decide(chains, POLICY, deadline_passed=True)
        if decision is not None:
            facts.learn(decision)
    held = {name for one in chains.head().path[1:] for name in facts.decisions[one].windows}
    assert len(held & {first.name, other.name}) == 1


def test_what_all_have_adopted_may_be_undone_while_facts_are_under_way() -> None:
    """So a version is settled when all know the same, and not when all have it (ADR 58)."""
    assert undone_after_all_had_adopted_it(161)


def test_every_partition_is_some_regions() -> None:
    assert {region for region, _ in SLOTS} == set(Regions(0).places)
