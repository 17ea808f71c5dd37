"""Fair shares and time: what one device can have, who is let in, and for how long."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aggregation.defences import Usual
from aggregation.fold.shares import Share, Shares
from aggregation.policy import DefencePolicy, Policy, SharesPolicy
from aggregation.reasons import Reason
from aggregation.weights.fixed_point import WEIGHT_ONE
from tests.factories import (
    NOW_MS,
    REGION,
    TASK,
    Site,
    barrier,
    delta,
    devices,
    encoded,
    policy,
    state_of,
    update,
)

FORMAT = "fluvial/policy/v3"


def v3(**sections: Any) -> Policy:
    return policy(**({"format": FORMAT, "window": {"updates_max": 1000}} | sections))


class Clocked:
    """A partition and its log's time, in seconds."""

    def __init__(self, rules: Policy) -> None:
        self.rules = rules
        self.site = Site(state_of(rules))
        self.now_s = 0.0

    def to(self, version: int, **changed: Any) -> None:
        self.site.fold(barrier(version, self.rules, timestamp_ms=self._ms, **changed))

    def send(self, device: str, base: int, **changed: Any) -> str:
        return self.site.fold(update(device, base=base, timestamp_ms=self._ms, **changed)).outcome

    def send_length(self, device: str, base: int, norm: float) -> str:
        values = delta(3)
        values = (values * (norm / np.linalg.norm(values))).astype(np.float32)
        return self.send(device, base, tensors=encoded(values, "float32"), codec="float32")

    @property
    def _ms(self) -> int:
        return NOW_MS + int(self.now_s * 1000)


def test_a_device_that_sat_out_twenty_versions_does_not_answer_them_all_at_once() -> None:
    here = Clocked(v3())
    for version in range(1, 21):
        here.to(version)
    outcomes = [here.send("d-0", base) for base in range(21)]
    assert outcomes.count("accepted") == 2
    assert set(outcomes) == {"accepted", "over_share"}
    assert here.site.verdicts[-1].because.reason is Reason.OVER_SHARE
    weight = sum(verdict.weight for verdict in here.site.verdicts)
    assert weight < 2 * WEIGHT_ONE


def test_a_device_of_every_version_has_one_contribution_a_version() -> None:
    here = Clocked(v3())
    accepted = 0
    for version in range(1, 30):
        here.to(version)
        accepted += [here.send("d-0", version), here.send("d-0", version - 1)].count("accepted")
    assert accepted == 29 + 1  # one was saved at the beginning


def test_more_a_version_if_the_policy_says_so_and_all_of_them_if_it_says_none() -> None:
    two = Clocked(v3(shares={"per_version": 2, "saved_max": 3}))
    every = Clocked(v3(shares={"per_version": 0}))
    for here in (two, every):
        for version in range(1, 11):
            here.to(version)
    assert [two.send("d-0", base) for base in range(11)].count("accepted") == 3
    assert [every.send("d-0", base) for base in range(11)].count("accepted") == 11


@pytest.mark.parametrize("ratio", [2, 10, 100])
def test_fast_devices_do_not_lock_slow_ones_out(ratio: int) -> None:
    """Versions come every second; a slow device trains for ``ratio`` seconds, and every round of it counts."""
    here = Clocked(v3())
    slow, rounds = devices(5, start=500), 0
    began, bases = dict.fromkeys(slow, 0.0), dict.fromkeys(slow, 0)
    for version in range(1, 3 * ratio + 2):
        here.now_s += 1.0
        for fast in devices(3):
            assert here.send(fast, version - 1) == "accepted"
        for device in slow:
            if here.now_s - began[device] >= ratio:
                assert here.send(device, bases[device]) == "accepted"
                rounds += 1
                began[device], bases[device] = here.now_s, version - 1
        here.to(version)
    assert rounds == 5 * 3
    least = min(v.weight for v in here.site.verdicts if v.device_id in slow)
    assert least == here.rules.staleness.weights[min(ratio, 20)]


def test_a_base_is_welcome_for_its_seconds_and_not_one_longer() -> None:
    here = Clocked(v3(staleness={"versions_max": 1, "seconds_max": 60.0}))
    here.now_s = 5.0
    here.to(1)
    for version in range(2, 6):
        here.now_s += 1.0
        here.to(version)
    here.now_s = 65.0
    assert here.send("d-0", 0) == "accepted"
    here.now_s = 65.001
    assert here.send("d-1", 0) == "too_stale"
    reason = here.site.verdicts[-1].because
    assert reason.reason is Reason.STALE_FOR_LONG
    assert "60.0 s" in reason.text or "60 s" in reason.text
    assert here.send("d-1", 1) == "accepted"
    here.now_s = 66.0
    here.to(6)
    assert 0 not in here.site.state.models
    assert here.send("d-2", 0) == "too_stale"


def test_without_seconds_only_versions_count() -> None:
    here = Clocked(v3(staleness={"versions_max": 2, "seconds_max": 0.0}))
    for version in range(1, 4):
        here.to(version)
    assert [here.send(device, base) for base, device in enumerate(devices(4))] == [
        "too_stale",
        *["accepted"] * 3,
    ]
    assert here.site.state.superseded == {}


def test_a_log_whose_clock_goes_back_lets_nobody_in_that_was_not_before() -> None:
    here = Clocked(v3(staleness={"versions_max": 0, "seconds_max": 10.0}))
    here.now_s = 100.0
    here.to(1)
    here.now_s = 0.0
    assert here.send("d-0", 0) == "accepted"
    here.to(2)
    here.now_s = 50.0
    assert here.send("d-1", 1) == "too_stale"


def test_a_rollbacks_floor_holds_whatever_the_time() -> None:
    here = Clocked(v3(staleness={"versions_max": 1, "seconds_max": 1000.0}))
    for version in range(1, 6):
        here.to(version)
    here.to(6, floor=5)
    assert here.send("d-0", 4) == "too_stale"
    assert here.send("d-0", 5) == "accepted"
    assert list(here.site.state.superseded) == [5]


def test_most_of_its_last_ones_anomalous_bring_a_device_into_quarantine_for_a_while() -> None:
    here = Clocked(
        v3(
            defence={"quarantine_refusals": 3, "quarantine_versions": 4},
            shares={"per_version": 8, "saved_max": 8},
        )
    )
    for version in range(1, 4):
        here.to(version)
        assert here.send_length("d-0", version, 0.0) == "anomalous"
        assert here.send_length("d-1", version, 1.0) == "accepted"
    assert here.send_length("d-0", 2, 1.0) in {"duplicate", "quarantined"}
    assert here.send_length("d-0", 0, 1.0) == "quarantined"
    assert here.site.verdicts[-1].because.values == ("d-0", 7)
    for version in range(4, 7):
        here.to(version)
        assert here.send_length("d-0", version, 1.0) == "quarantined"
        assert here.send_length("d-1", version, 1.0) == "accepted"
    here.to(7)
    assert here.send_length("d-0", 7, 1.0) == "accepted"
    assert here.site.state.shares.quarantined == {}


def test_no_update_is_longer_than_the_usual_one_nor_shorter_than_the_floor() -> None:
    here = Clocked(
        v3(defence={"norm_clip_floor": 0.125, "norm_clip_medians": 2.0}, updates={"norm_clip": 4.0})
    )
    for version, usual, expected in ((1, 0.0, 4.0), (2, 1.25, 2.5), (3, 0.001, 0.5), (4, 80.0, 4.0)):
        here.to(version, usual=Usual(norm=usual))
        assert here.send_length("d-0", version, 100.0) == "accepted"
        verdict = here.site.verdicts[-1]
        assert verdict.clip * verdict.norm == pytest.approx(expected)
        assert here.send_length("d-1", version, 0.25) == "accepted"
        assert here.site.verdicts[-1].clip == 1.0


def test_who_is_silent_for_long_is_forgotten_with_a_full_bucket() -> None:
    limits, defence = SharesPolicy(), DefencePolicy()
    shares = Shares()
    shares.take("d-0", shares.of("d-0", 3, limits), accepted=True, defence=defence)
    shares.forget_before(10)
    assert len(shares) == 1
    shares.forget_before(11)
    assert len(shares) == 0
    assert shares.of("d-0", 11, limits) == Share(11, 2)


def test_a_share_is_of_the_last_eight_versions() -> None:
    limits, defence = SharesPolicy(), DefencePolicy()
    shares = Shares()
    for version in range(20):
        share = shares.of("d-0", version, limits)
        assert share.total == min(version, 7)
        shares.take("d-0", share, accepted=True, defence=defence)
    assert shares.of("d-0", 22, limits).total == 5


def test_a_refused_update_takes_a_token_and_no_share() -> None:
    here = Clocked(v3())
    here.to(1)
    assert here.send_length("d-0", 1, 0.0) == "anomalous"
    ((_, share),) = here.site.state.shares
    assert (share.tokens, share.total, share.refused, share.scored) == (1, 0, 1, 1)


def test_what_is_refused_before_it_is_scored_takes_nothing() -> None:
    here = Clocked(v3())
    assert here.send("d-0", 0, task="another") == "wrong_task"
    assert here.send("d-0", 5) == "future_base"
    assert here.send("d-0", 0, names=("x",)) == "wrong_layout"
    assert len(here.site.state.shares) == 0
    assert (here.site.state.task, here.site.state.region) == (TASK, REGION)
