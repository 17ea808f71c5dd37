"""Windows of edges in the log above them: what they add, their bases and buffers, and the edge's own log."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregation.fold.bases import Base
from aggregation.fold.edges import scaled_sums
from aggregation.fold.events import EdgeAggregate
from aggregation.fold.state import EdgePlace
from aggregation.merges import Bucket
from aggregation.reasons import Reason
from aggregation.weights.fixed_point import WEIGHT_ONE, weight_after
from tests.factories import (
    BUFFERED,
    EDGE,
    LAYOUT,
    Edge,
    Site,
    barrier,
    devices,
    edge_policy,
    log_above,
    model_sha,
    policy,
    reason_of,
    sha,
    snapshot,
    state_of,
    sums_with,
    tick,
    update,
)

RULES = edge_policy()
ONES = devices(6)


# -- what it adds


def test_a_window_of_an_edge_adds_what_its_updates_would_have_added() -> None:
    edge, site, direct = Edge(RULES), log_above(), log_above()
    verdict = site.fold(edge.window(*ONES))
    assert (verdict.outcome, verdict.because.values) == ("aggregated", (EDGE, 0, 6))
    for number, one in enumerate(ONES):
        direct.fold(update(one, seed=number))
    ours, theirs = site.state.window, direct.state.window
    assert ours.sums is not None and theirs.sums is not None
    assert np.array_equal(ours.sums, theirs.sums)
    for name in ("accepted", "weight_total", "staleness_total", "staleness_max", "bases", "buckets"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.counting.closed() == theirs.counting.closed()
    assert dict(ours.counts) == {"aggregated": 1}


def test_updates_of_the_region_itself_stand_beside_those_of_its_edges() -> None:
    site = log_above()
    site.fold(update("d-own", seed=9))
    site.fold(Edge(RULES).window(*ONES[:3]))
    site.fold(Edge(RULES, "eu.e2").window(*ONES[3:]))
    assert site.state.window.accepted == 7
    assert dict(site.state.window.counts) == {"accepted": 1, "aggregated": 2}
    site.fold(tick(0))
    (closed,) = site.closed
    assert (closed.accepted, closed.bases) == (7, (Base(0, 7, 7 << 16),))


def test_a_late_window_weighs_less() -> None:
    edge, site = Edge(RULES), log_above(2)
    event = edge.window(*ONES[:3])
    verdict = site.fold(event)
    weight = RULES.staleness.weights[2]
    assert (verdict.staleness, verdict.weight, verdict.base_version) == (2, weight, 0)
    window = site.state.window
    assert event.sums is not None and window.sums is not None
    assert window.sums.tolist() == [(s * weight + 32768) >> 16 for s in event.sums.tolist()]
    assert window.weight_total == weight_after(3 << 16, weight)
    assert window.bases == {0: Base(0, 3, window.weight_total)}
    assert (window.staleness_total, window.staleness_max) == (6, 2)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=8), st.integers(1, WEIGHT_ONE))
def test_late_sums_are_the_nearest_integers(values: list[int], weight: int) -> None:
    found = scaled_sums(np.array(values, dtype=np.int64), weight)
    assert found.tolist() == [(value * weight + 32768) >> 16 for value in values]


def test_a_window_of_refusals_only_moves_the_edges_place() -> None:
    edge, site = Edge(RULES), log_above()
    edge.fold(update("d-1", region=EDGE, base=3))
    edge.close()
    event = edge.event()
    before = snapshot(site.state)
    verdict = site.fold(event)
    assert (verdict.outcome, verdict.because.values) == ("aggregated", (EDGE, 0, 0))
    after = snapshot(site.state)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"next_offset", "edges", "window.counts"}


def test_a_full_window_closes_and_may_be_over_full() -> None:
    rules = edge_policy(window={"updates_max": 4})
    edge, site = Edge(edge_policy()), Site(state_of(rules))
    event = edge.window(*ONES)
    event = replace(event, window=replace(event.window, policy_sha256=rules.sha256))
    site.fold(update("d-own", seed=9))
    site.fold(event)
    (closed,) = site.closed
    assert closed.accepted == 7


def test_an_edge_below_an_edge_reaches_the_region() -> None:
    deep, middle, site = Edge(RULES, "eu.e1.hall"), Edge(RULES), log_above()
    middle.fold(deep.window(*ONES[:2]))
    middle.updates(*ONES[2:4])
    middle.close()
    assert site.fold(middle.event()).outcome == "aggregated"
    assert site.state.window.accepted == 4


def test_windows_that_follow_each_other_are_a_chain() -> None:
    edge, site = Edge(RULES), log_above()
    first = edge.window(*ONES[:2])
    second = edge.window(*ONES[2:4])
    assert reason_of(site, second) is Reason.EDGE_GAP
    assert reason_of(site, first) is Reason.EDGE_WINDOW
    assert reason_of(site, first) is Reason.EDGE_AGAIN
    forked = replace(second, window=replace(second.window, previous_sha256=sha("another")))
    assert reason_of(site, forked) is Reason.EDGE_GAP
    assert reason_of(site, second) is Reason.EDGE_WINDOW
    assert site.state.edges == {EDGE: EdgePlace(2, second.window.sha256, 0, 4)}
    assert site.state.window.accepted == 4


def test_a_refused_window_is_behind_and_the_next_one_follows_it() -> None:
    edge, site = Edge(RULES), log_above()
    first = edge.window(*ONES[:2])
    second = edge.window(*ONES[2:4])
    lie = replace(first, window=replace(first.window, accepted=17, weight_total=17 << 16))
    assert reason_of(site, lie) is Reason.EDGE_TOO_MANY
    assert reason_of(site, first) is Reason.EDGE_AGAIN
    assert reason_of(site, second) is Reason.EDGE_WINDOW


def test_an_edge_has_so_many_updates_a_version_in_however_many_windows() -> None:
    rules = edge_policy(edges={"updates_max": 4}, window={"updates_max": 100})
    edge, site = Edge(rules), Site(state_of(rules))
    two = [edge.window(*devices(2, start=10 * number)) for number in range(5)]
    assert [reason_of(site, one) for one in two[:3]] == [
        Reason.EDGE_WINDOW,
        Reason.EDGE_WINDOW,
        Reason.EDGE_TOO_MANY,
    ]
    verdict = site.verdicts[-1]
    assert (verdict.outcome, verdict.because.values) == ("over_share", (EDGE, 6, 4))
    assert site.state.edges[EDGE] == EdgePlace(3, two[2].window.sha256, 0, 4)
    site.fold(barrier(1, rules))
    assert [reason_of(site, one) for one in two[3:]] == [Reason.EDGE_WINDOW, Reason.EDGE_WINDOW]
    assert site.state.edges[EDGE][2:] == (1, 4)


def test_control_variates_are_bounded_by_their_own_norm() -> None:
    rules = edge_policy(control={"norm_clip": 0.001})
    layout = LAYOUT.with_control()
    edge = Edge(rules, layout=layout)
    event = edge.window(*ONES[:2])
    assert reason_of(Site(state_of(rules, layout=layout)), event) is Reason.EDGE_WINDOW
    sums = np.array(event.sums)
    sums[-layout.control.parameters :] *= 50
    site = Site(state_of(rules, layout=layout))
    assert site.fold(replace(event, sums=sums)).because.values == (EDGE, "control")


# -- buffers


def buffered_window() -> EdgeAggregate:
    return Edge(RULES, layout=BUFFERED).window(*ONES[:3])


def test_buffers_are_added_and_not_when_late() -> None:
    event = buffered_window()
    assert reason_of(log_above(0, BUFFERED), event) is Reason.EDGE_WINDOW
    assert reason_of(log_above(1, BUFFERED), event) is Reason.EDGE_LATE_BUFFERS


@pytest.mark.parametrize(
    ("element", "digit", "value"),
    [(0, 3, (3 << 32) + 1), (0, 9, 1 << 33), (3, 0, -1)],
    ids=["a digit beyond its updates'", "a mean beyond all float32", "a variance below 0"],
)
def test_buffers_that_no_devices_send_are_refused(element: int, digit: int, value: int) -> None:
    weights = BUFFERED.trainable.parameters

    def change(sums: Any) -> Any:
        sums[weights + 10 * element : weights + 10 * element + 10] = 0
        sums[weights + 10 * element + digit] = value
        return sums

    verdict = log_above(0, BUFFERED).fold(sums_with(change)(buffered_window()))
    assert verdict.because.values == (EDGE, "buffers")


# -- the edge's own log


def test_an_edge_obeys_the_barriers_of_what_is_above_it() -> None:
    edge = Edge(RULES, "eu.e1.hall")
    for version, region in enumerate(("eu.e1.hall", "eu.e1", "eu"), start=1):
        edge.fold(barrier(version, RULES, region=region))
        assert edge.site.state.version == version
    for region in ("us", "eu.e", "eu.e1.hall.x", ""):
        edge.fold(barrier(9, RULES, region=region))
    assert edge.site.state.version == 3
    assert edge.site.state.models[3] == model_sha(3)


def test_ticks_of_the_region_above_are_not_the_edges() -> None:
    edge = Edge(RULES)
    edge.updates(ONES[0])
    edge.fold(tick(0, region="eu"))
    assert not edge.records


def test_without_edges_a_barrier_names_its_region() -> None:
    edge = Edge(edge_policy(edges={"updates_max": 0}))
    edge.fold(barrier(1, edge.rules, region="eu"))
    assert edge.site.state.version == 0


def test_a_policy_of_before_forgets_edges() -> None:
    edge, site = Edge(RULES), log_above()
    site.fold(edge.window(*ONES[:2]))
    site.fold(barrier(1, edge_policy(edges={"updates_max": 0})))
    assert site.state.edges.keys() == {EDGE}
    site.fold(barrier(2, policy(format="fluvial/policy/v5")))
    assert site.state.edges == {}


# -- which bases


def with_base(event: EdgeAggregate, base: int, weight: int, **changed: Any) -> EdgeAggregate:
    """As if all its updates had answered ``base``, with such a weight together."""
    accepted, stale = event.window.accepted, event.window.version - base
    told: dict[str, Any] = {
        "bases": (Base(base, accepted, weight),),
        "weight_total": weight,
        "buckets": (Bucket(accepted, weight),),
        "staleness_total": accepted * stale,
        "staleness_max": stale,
    }
    return replace(event, window=replace(event.window, **(told | changed)), sums=np.zeros_like(event.sums))


def at_version(rules: Any, version: int) -> tuple[Edge, Site]:
    edge, site = Edge(rules), Site(state_of(rules))
    for number in range(1, version + 1):
        edge.to(number)
        site.fold(barrier(number, rules))
    return edge, site


@pytest.mark.parametrize(("base", "fits"), [(8, True), (6, True), (5, False)])
def test_bases_are_those_that_the_log_above_welcomes_or_did_a_while_ago(base: int, fits: bool) -> None:  # noqa: FBT001
    rules = edge_policy(staleness={"versions_max": 2, "seconds_max": 0.0})
    edge, site = at_version(rules, 10)
    weight = rules.staleness.weights[-1]
    event = with_base(edge.window(ONES[0], base=10), base, weight)
    assert (reason_of(site, event) is Reason.EDGE_WINDOW) is fits


def test_no_base_is_below_the_floor_of_a_rollback() -> None:
    rules = edge_policy(staleness={"versions_max": 4, "seconds_max": 0.0})
    edge, site = at_version(rules, 5)
    site.fold(barrier(6, rules, floor=4))
    edge.fold(barrier(6, rules, floor=4, region="eu"))
    event = edge.window(ONES[0], base=6)
    assert reason_of(site, with_base(event, 3, 10)) is Reason.EDGE_FORM


def test_an_old_base_weighs_as_much_as_a_device_would() -> None:
    rules = edge_policy(staleness={"versions_max": 4, "seconds_max": 0.0})
    weight = rules.staleness.weights[3]
    for more, expected in ((0, Reason.EDGE_WINDOW), (1, Reason.EDGE_FORM)):
        edge, site = at_version(rules, 5)
        assert reason_of(site, with_base(edge.window(ONES[0], base=5), 2, weight + more)) is expected


def test_a_late_window_of_an_edge_below_an_edge_counts() -> None:
    """The bases of such a window are older, by its lateness, than any that the middle edge folds itself."""
    rules = edge_policy(staleness={"versions_max": 2, "seconds_max": 0.0})
    deep, middle, site = Edge(rules, "eu.e1.hall"), Edge(rules), Site(state_of(rules))
    for version in (1, 2):
        deep.to(version)
    late = deep.window(ONES[0], base=0)
    for version in (1, 2, 3, 4):
        middle.to(version)
        site.fold(barrier(version, rules))
    middle.fold(late)
    middle.updates(ONES[1], base=4)
    middle.close()
    assert site.fold(middle.event()).outcome == "aggregated"
    assert site.state.window.accepted == 2
