"""Windows of edges that the log above them refuses, and what no log can come to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import isqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregation.defences import Histograms
from aggregation.fold.bases import Base
from aggregation.fold.edge_forms import is_longer
from aggregation.fold.events import EdgeAggregate, EdgeWindow
from aggregation.merges import Bucket
from aggregation.reasons import Reason
from schemas.verdicts import decode_verdict, encode_verdict
from tests.factories import (
    BUFFERED,
    EDGE,
    LAYOUT,
    Edge,
    Site,
    devices,
    edge_policy,
    log_above,
    reason_of,
    sha,
    snapshot,
    state_of,
    sums_with,
)

RULES = edge_policy()
ONES = devices(6)


def window_with(**changed: Any) -> Callable[[EdgeAggregate], EdgeAggregate]:
    return lambda event: replace(event, window=replace(event.window, **changed))


REFUSED: dict[str, tuple[Callable[[EdgeAggregate], EdgeAggregate], Reason]] = {
    "of another task": (lambda event: replace(event, task="other"), Reason.ANOTHER_TASK),
    "of another region": (lambda event: replace(event, region="us"), Reason.ANOTHER_REGION),
    "whose window is of another log": (window_with(region="eu.e2"), Reason.EDGE_MISLABELLED),
    "whose window is of another partition": (window_with(partition=1), Reason.EDGE_MISLABELLED),
    "whose window is of another task": (window_with(task="other"), Reason.EDGE_MISLABELLED),
    "of a version to come": (window_with(version=1), Reason.AHEAD),
    "of another model": (lambda event: replace(event, model_sha256=sha("x")), Reason.ANOTHER_MODEL),
    "of another policy": (window_with(policy_sha256=sha("policy")), Reason.EDGE_POLICY),
    "of too many updates": (window_with(accepted=17), Reason.EDGE_TOO_MANY),
    "too long": (sums_with(lambda sums: sums * 100), Reason.EDGE_NORM),
}
FLAWS: dict[str, tuple[Callable[[EdgeWindow], dict[str, Any]], str]] = {
    "less than none": (lambda _: {"accepted": -1}, "counts"),
    "a count below 0": (lambda w: {"counts": dict(w.counts) | {"duplicate": -1}}, "counts"),
    "more than it counts": (lambda _: {"accepted": 7}, "counts"),
    "fewer than it counts": (lambda _: {"accepted": 5}, "counts"),
    "a base to come": (lambda w: {"bases": (Base(1, 6, w.weight_total),)}, "bases"),
    "a base before the first": (lambda w: {"bases": (Base(-1, 6, w.weight_total),)}, "bases"),
    "bases that repeat": (
        lambda w: {"bases": (Base(0, 3, w.weight_total // 2), Base(0, 3, w.weight_total // 2))},
        "bases",
    ),
    "too heavy updates": (
        lambda _: {"bases": (Base(0, 6, (6 << 16) + 1),), "weight_total": (6 << 16) + 1},
        "bases",
    ),
    "a base of nothing": (lambda _: {"bases": (Base(0, 6, 0),), "weight_total": 0}, "bases"),
    "bases of fewer": (lambda w: {"bases": (Base(0, 5, w.weight_total),)}, "bases"),
    "bases of less": (lambda w: {"weight_total": w.weight_total - 1}, "bases"),
    "a staleness of its own": (lambda _: {"staleness_total": 1}, "staleness"),
    "a largest staleness of its own": (lambda _: {"staleness_max": 1 << 40}, "staleness"),
    "no bucket": (lambda _: {"buckets": ()}, "buckets"),
    "a bucket of another weight": (lambda _: {"buckets": (Bucket(6, 1),)}, "buckets"),
    "a boast among its norms": (
        lambda w: {"histograms": replace(w.histograms, norms=((8000, 6 * 840 * 64 + 1),))},
        "histograms",
    ),
    "a norm that is no number": (
        lambda w: {"histograms": replace(w.histograms, norms=((16376, 1),))},
        "histograms",
    ),
    "a cosine above 1": (lambda w: {"histograms": replace(w.histograms, cosines=((65, 1),))}, "histograms"),
    "more entries than updates": (
        lambda _: {"histograms": Histograms(shares=tuple((own, 1) for own in range(1, 8)))},
        "histograms",
    ),
}


EXTREMES = (-(2**63), -1, 0, 1, 2**31, 2**53, 2**63 - 1)
NUMBERS = (
    "accepted",
    "weight_total",
    "staleness_total",
    "staleness_max",
    "update_bytes",
    "version",
    "sequence",
)


@pytest.mark.parametrize("layout", [LAYOUT, BUFFERED], ids=["weights", "buffers"])
def test_no_number_of_a_window_ends_who_judges_it(layout: Any) -> None:
    """Whatever an edge that had something counted says next: there is a verdict, which a log can hold."""
    edge = Edge(RULES, layout=layout)
    first, second = edge.window(*ONES[:2]), edge.window(*ONES[2:])
    window, changed = second.window, list[dict[str, Any]]()
    for number in EXTREMES:
        changed += [{name: number} for name in NUMBERS]
        changed += [
            {"counts": dict(window.counts) | {outcome: number}} for outcome in ("accepted", "aggregated", "x")
        ]
        for other in EXTREMES:
            counts = {"accepted": number, "counts": {"accepted": number}, "buckets": (Bucket(number, other),)}
            changed.append(counts | {"weight_total": other, "bases": (Base(0, number, other),)})
            for name in ("norms", "cosines", "shares"):
                changed.append({"histograms": replace(window.histograms, **{name: ((number, other),)})})
    events = [replace(second, window=replace(window, **each)) for each in changed]
    assert second.sums is not None
    events += [replace(second, sums=np.full_like(second.sums, number)) for number in EXTREMES]
    seen = set[str]()
    for event in events:
        site = log_above(layout=layout)
        assert site.fold(first).outcome == "aggregated"
        verdict = site.fold(event)
        assert (
            decode_verdict(encode_verdict(verdict, site.trust.rules)).because.values == verdict.because.values
        )
        seen.add(verdict.outcome)
    assert seen >= {"aggregated", "bad_aggregate", "over_share", "duplicate", "future_base"}


@pytest.mark.parametrize("what", REFUSED)
def test_a_window_is_refused(what: str) -> None:
    change, expected = REFUSED[what]
    site, event = log_above(), Edge(RULES).window(*ONES)
    before = snapshot(site.state)
    assert reason_of(site, change(event)) is expected
    after = snapshot(site.state)
    changed = {name for name in after if after[name] != before[name]}
    assert changed <= {"next_offset", "edges", "window.counts"}


@pytest.mark.parametrize("what", FLAWS)
def test_a_window_that_no_log_gives_is_refused_with(what: str) -> None:
    change, flaw = FLAWS[what]
    site, event = log_above(), Edge(RULES).window(*ONES)
    verdict = site.fold(replace(event, window=replace(event.window, **change(event.window))))
    assert (verdict.because.reason, verdict.because.values) == (Reason.EDGE_FORM, (EDGE, flaw))
    assert site.state.window.sums is None


def test_sums_of_another_layout_are_refused() -> None:
    site, event = log_above(), Edge(RULES).window(*ONES)
    verdict = site.fold(sums_with(lambda sums: sums[:-1])(event))
    assert verdict.because.values == (EDGE, "elements")


def test_whoever_is_revoked_is_refused() -> None:
    for name in (EDGE, "e1"):
        site, event = log_above(), Edge(RULES).window(*ONES)
        site.state.revoked.add(name)
        assert site.fold(event).outcome == "revoked"


def test_a_window_too_old_is_too_stale() -> None:
    late = RULES.staleness.versions_max + 1
    site, event = log_above(late), Edge(RULES).window(*ONES)
    assert site.fold(event).outcome == "too_stale"


def test_an_edge_in_another_partition_is_refused() -> None:
    event = Edge(RULES).window(*ONES)
    found = {reason_of(Site(state_of(RULES, partition=n, partitions=7)), event) for n in range(7)}
    assert found == {Reason.EDGE_WINDOW, Reason.ANOTHER_PARTITION}


# -- length


def naive_is_longer(sums: list[int], accepted: int, weight_total: int, clipped: int) -> bool:
    """As the contract has it, in plain integers."""
    weight = min(weight_total + 8 * accepted, accepted * 65536)
    reach = -(-weight * clipped // 65536)
    largest, root = max(map(abs, sums)), isqrt(len(sums)) + 1
    if largest > reach + (reach >> 50) + 1 + 129 * accepted:
        return True
    k = max(0, largest.bit_length() - 24)
    bound = reach + (reach >> 50) + 1 + (129 * accepted + 2**k) * root
    return bool(sum((one >> k) ** 2 for one in sums) * 4**k > bound**2)


@given(
    st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=40),
    st.integers(1, 16),
    st.integers(8, 41),
    st.data(),
)
def test_length_is_measured_as_by_its_naive_twin(
    sums: list[int], accepted: int, bits: int, data: st.DataObject
) -> None:
    weight = data.draw(st.integers(1, accepted << 16))
    window = replace(Edge(RULES).window(ONES[0]).window, accepted=accepted, weight_total=weight)
    found = is_longer(np.array(sums, dtype=np.int64), window, 1 << bits)
    assert found == naive_is_longer(sums, accepted, weight, 1 << bits)


@pytest.mark.parametrize("exponent", [8, 24, 40])
def test_honest_sums_are_never_too_long(exponent: int) -> None:
    rules = edge_policy(fixed_point={"exponent": exponent})
    edge, site = Edge(rules), Site(state_of(rules))
    same = [0] * 6  # the same direction from each, and clipped: the longest that there is
    for device, seed in zip(ONES, same, strict=True):
        edge.updates(device, seed=seed)
    edge.close()
    assert reason_of(site, edge.event()) is Reason.EDGE_WINDOW
