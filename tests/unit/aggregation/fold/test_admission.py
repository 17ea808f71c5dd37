"""Admission looks at the state and changes nothing; its checks stand in a fixed order."""

from __future__ import annotations

import math
from typing import Any

import pytest

from aggregation.fold.admission import Admitted, RejectedUpdate, admit
from aggregation.fold.rejections import RejectionReason
from aggregation.weights.staleness import WEIGHT_ONE
from tests.factories import (
    Site,
    barrier,
    delta,
    encoded,
    model_sha,
    policy,
    snapshot,
    state_of,
    update,
)

RULES = policy(staleness={"versions_max": 3})


def at_version(version: int, *, floor: int = 0) -> Site:
    """A partition that has seen every version up to this one."""
    site = Site(state_of(RULES))
    for number in range(1, version + 1):
        site.fold(barrier(number, RULES, floor=floor if number == version else 0))
    return site


@pytest.mark.parametrize("tau", range(4))
def test_staleness_is_counted_by_the_log_and_weighs_by_the_table(tau: int) -> None:
    admitted = admit(at_version(5).state, update("d-1", base=5 - tau))
    assert isinstance(admitted, Admitted)
    assert admitted.staleness == tau
    assert admitted.weight == RULES.staleness.weights[tau] == round(WEIGHT_ONE / (1 + tau) ** 0.5)


@pytest.mark.parametrize(
    ("base", "rejection"),
    [
        (6, RejectionReason.FUTURE_BASE),
        (1, RejectionReason.TOO_STALE),
        (-1, RejectionReason.TOO_STALE),
    ],
)
def test_bases_outside_the_live_range_are_refused(base: int, rejection: RejectionReason) -> None:
    denied = admit(at_version(5).state, update("d-1", base=base))
    assert isinstance(denied, RejectedUpdate)
    assert denied.rejection is rejection


def test_a_version_that_was_skipped_is_unknown() -> None:
    site = Site(state_of(RULES))
    site.fold(barrier(2, RULES))
    denied = admit(site.state, update("d-1", base=1))
    assert isinstance(denied, RejectedUpdate)
    assert denied.rejection is RejectionReason.UNKNOWN_BASE


def test_a_floor_shuts_out_what_a_rollback_undid() -> None:
    state = at_version(5, floor=4).state
    denied = admit(state, update("d-1", base=3))
    assert isinstance(denied, RejectedUpdate)
    assert denied.rejection is RejectionReason.TOO_STALE
    assert "no base below 4" in denied.because.text
    assert isinstance(admit(state, update("d-1", base=4)), Admitted)


def test_a_message_says_expected_and_got() -> None:
    denied = admit(at_version(5).state, update("d-1", base=1))
    assert isinstance(denied, RejectedUpdate)
    assert denied.because.text == "base version 1 is 4 versions old, the policy allows 3"


ORDER: list[tuple[dict[str, Any], RejectionReason]] = [
    ({"task": "other"}, RejectionReason.WRONG_TASK),
    ({"region": "us"}, RejectionReason.WRONG_REGION),
    ({"base_version": 99}, RejectionReason.FUTURE_BASE),
    ({"base_sha256": model_sha(77)}, RejectionReason.UNKNOWN_BASE),
    ({"names": ("x",)}, RejectionReason.WRONG_LAYOUT),
    ({"scales": (float("nan"),) * 3}, RejectionReason.NOT_FINITE),
    ({"scales": (1e6,) * 3}, RejectionReason.NORM_EXCEEDED),
]


@pytest.mark.parametrize("first", range(len(ORDER)))
def test_the_first_check_that_fails_gives_the_verdict(first: int) -> None:
    changed: dict[str, Any] = {}
    for fields, _ in reversed(ORDER[first:]):
        changed |= fields
    denied = admit(state_of(RULES), update("d-1", **changed))
    assert isinstance(denied, RejectedUpdate)
    assert denied.rejection is ORDER[first][1]


def test_a_codec_that_the_policy_does_not_take_is_a_wrong_layout() -> None:
    only_int8 = policy(updates={"codecs": ["int8"]})
    denied = admit(state_of(only_int8), update("d-1", codec="float32"))
    assert isinstance(denied, RejectedUpdate)
    assert denied.rejection is RejectionReason.WRONG_LAYOUT
    assert "float32" in denied.because.text


def test_a_norm_at_the_clip_is_not_clipped_and_one_above_it_is() -> None:
    state = state_of(RULES)
    admitted = admit(state, update("d-1", tensors=encoded(delta(0, size=1.0))))
    assert isinstance(admitted, Admitted)
    norm = admitted.measured.norm
    for limit, clip in ((norm, 1.0), (norm / 2, 0.5)):
        again = admit(
            state_of(policy(updates={"norm_clip": limit})), update("d-1", tensors=encoded(delta(0, size=1.0)))
        )
        assert isinstance(again, Admitted)
        assert again.clip == clip


def test_a_norm_at_its_limit_passes_and_one_above_it_is_refused() -> None:
    tensors = encoded(delta(0, size=1.0))
    free = admit(state_of(RULES), update("d-1", tensors=tensors))
    assert isinstance(free, Admitted)
    norm = free.measured.norm
    for limit, passes in ((norm, True), (math.nextafter(norm, 0.0), False)):
        judged = admit(
            state_of(policy(updates={"norm_max": limit, "norm_clip": limit / 2})),
            update("d-1", tensors=tensors),
        )
        assert isinstance(judged, Admitted) is passes
        if isinstance(judged, RejectedUpdate):
            assert (judged.rejection, judged.norm) == (RejectionReason.NORM_EXCEEDED, norm)


@pytest.mark.parametrize("changed", [{}, {"base_version": 9}, {"scales": (1e9,) * 3}])
def test_admission_changes_nothing(changed: dict[str, Any]) -> None:
    state = at_version(2).state
    before = snapshot(state)
    admit(state, update("d-1", base=2, **changed))
    assert snapshot(state) == before
