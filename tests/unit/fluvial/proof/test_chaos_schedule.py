"""Which faults come when: all of it from the seed, enough of them, and never so many that nothing can go on."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from aggregation.errors import UsageProblem
from backends.crash_points import POINTS
from backends.kafka.faust.transport import SESSION_TIMEOUT_S
from fluvial.commands.chaos import parse_kinds
from fluvial.proof.chaos.schedule import (
    AT_ONCE_MAX,
    DEFAULT_KINDS,
    GROUND_REST_S,
    GUARDIANS,
    KINDS,
    NETWORK_MODES,
    SERVICES,
    Fault,
    Targets,
    plan_faults,
)

TARGETS = Targets(
    workers=["worker-eu-0", "worker-eu-1", "worker-us-0", "worker-us-1"], mergers=["merger-0", "merger-1"]
)
GUIDED = Targets(workers=TARGETS.workers, mergers=TARGETS.mergers, guardians=["guardian-0", "guardian-1"])
SECONDS = 600.0
SEEDS = range(20)


@pytest.fixture(params=[(seed, targets) for targets in (TARGETS, GUIDED) for seed in SEEDS])
def faults(request: pytest.FixtureRequest) -> list[Fault]:
    seed, targets = request.param
    return plan_faults(seed, SECONDS, DEFAULT_KINDS, targets)


def hit(fault: Fault) -> set[str]:
    return set(GUIDED.names(fault.target))


def test_the_same_seed_gives_the_same_faults_and_another_gives_others() -> None:
    one = plan_faults(7, SECONDS, DEFAULT_KINDS, TARGETS)
    assert one == plan_faults(7, SECONDS, DEFAULT_KINDS, TARGETS)
    assert one != plan_faults(8, SECONDS, DEFAULT_KINDS, TARGETS)


def test_ten_minutes_have_more_than_sixty_faults_of_every_kind(faults: list[Fault]) -> None:
    counts = Counter(fault.kind for fault in faults)
    assert len(faults) >= 80
    assert set(counts) == set(DEFAULT_KINDS)


def test_faults_come_in_order_within_the_time(faults: list[Fault]) -> None:
    assert all(one.at_s < two.at_s for one, two in pairwise(faults))
    assert faults[0].at_s > 0 and faults[-1].at_s < SECONDS
    assert [fault.number for fault in faults] == list(range(1, len(faults) + 1))


def test_no_target_is_hit_while_another_fault_holds_it(faults: list[Fault]) -> None:
    for index, fault in enumerate(faults):
        for later in faults[index + 1 :]:
            if hit(fault) & hit(later):
                assert later.at_s > fault.at_s + fault.seconds


def test_the_ground_has_one_fault_at_a_time_and_rests_between(faults: list[Fault]) -> None:
    ground = [fault for fault in faults if fault.on_ground]
    assert ground
    for one, two in pairwise(ground):
        assert two.at_s >= one.at_s + one.seconds + GROUND_REST_S


def test_only_so_many_are_there_at_once(faults: list[Fault]) -> None:
    for fault in faults:
        there = [one for one in faults if one.at_s <= fault.at_s < one.at_s + one.seconds]
        assert len(there) <= AT_ONCE_MAX


def test_pauses_last_longer_than_the_session(faults: list[Fault]) -> None:
    assert all(fault.seconds > SESSION_TIMEOUT_S for fault in faults if fault.kind == "pause")


def test_details_are_what_the_injector_knows(faults: list[Fault]) -> None:
    for fault in faults:
        if fault.kind == "network":
            mode, service = fault.detail.split()
            assert mode in NETWORK_MODES and service in SERVICES
            assert fault.target not in SERVICES or fault.target == service
        elif fault.detail:
            point, passing = fault.detail.split(":")
            assert fault.kind == "kill" and point in POINTS and int(passing) >= 1
            assert fault.target.startswith(point.partition(".")[0])


@pytest.mark.parametrize("seed", SEEDS)
def test_guardians_are_hit_as_the_others_are_where_there_are_any(seed: int) -> None:
    found = Counter(
        (fault.kind, fault.target)
        for fault in plan_faults(seed, SECONDS, DEFAULT_KINDS, GUIDED)
        if fault.target.startswith("guardian")
    )
    assert {kind for kind, _ in found} == {"kill", "pause", "network"}
    assert GUARDIANS in {target for _, target in found}, "all at once"
    assert ("network", GUARDIANS) not in found, "a link is one process's"
    plain = plan_faults(seed, SECONDS, DEFAULT_KINDS, TARGETS)
    assert not any(fault.target.startswith("guardian") for fault in plain)


def test_the_crash_points_of_guardians_are_met() -> None:
    points = {
        fault.detail.partition(":")[0]
        for seed in SEEDS
        for fault in plan_faults(seed, SECONDS, ["kill"], GUIDED)
        if fault.detail.startswith("guardian.")
    }
    assert points == {point for point in POINTS if point.startswith("guardian.")}


def test_a_store_that_is_a_folder_is_not_hit() -> None:
    targets = Targets(workers=TARGETS.workers, mergers=TARGETS.mergers, store=False)
    faults = plan_faults(1, SECONDS, DEFAULT_KINDS, targets)
    assert all(fault.target != "store" and not fault.detail.endswith(" store") for fault in faults)


def test_corruptions_are_planned_elsewhere() -> None:
    assert plan_faults(1, SECONDS, ["corrupt"], TARGETS) == []


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "corrupt"])
def test_a_short_run_has_what_was_asked_for(kind: str) -> None:
    faults = plan_faults(1, 30.0, parse_kinds(kind), TARGETS)
    assert faults and {fault.kind for fault in faults} == {kind}


def test_kinds_are_read_in_any_order_and_once() -> None:
    assert parse_kinds("disk, kill,kill") == ("kill", "disk")


@pytest.mark.parametrize("text", ["", ",", "kill,quake"])
def test_unknown_kinds_are_refused(text: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        parse_kinds(text)
    assert caught.value.error_id == "FLV-6407"
