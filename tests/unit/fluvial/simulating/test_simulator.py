"""A crowd in virtual time over the real loops: one history for the same plan, whoever trains and whoever signs."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest

from aggregation.errors import FluvialError
from aggregation.policy import Policy, policy_from_mapping
from fluvial.session.aim import Aim
from fluvial.simulating.ledger import Ledger, Point
from fluvial.simulating.plan import Plan
from fluvial.simulating.population import Drawn
from fluvial.simulating.simulator import Outcome, simulate_crowd
from fluvial.simulating.trace import read_trace
from fluvial.simulating.training import Trainers
from learning.task import load_task

TASK = """
import os
import numpy as np
import learning

CONFIG = {"epochs": 1, "batch_size": 8, "learning_rate": 0.05}

def data():
    r = np.random.default_rng(1)
    x = r.normal(size=(400, 4))
    y = (x[:, 0] > 0).astype(int)
    return learning.Dataset(train=(x[:320], y[:320]), test=(x[320:], y[320:]))

def model():
    return {"w": np.zeros(4, "f4"), "b": np.zeros((), "f4")}

def evaluate(model, data):
    score = data.x @ model["w"] + model["b"]
    right = float(((score > 0) == (data.y > 0)).mean())
    return {"loss": float(((score - (2.0 * data.y - 1.0)) ** 2).mean()), "accuracy": right}

def train(model, data, config):
    BEFORE
    order = np.random.permutation(len(data))
    errors = (data.x[order] @ model["w"] + model["b"] - (2.0 * data.y[order] - 1.0)) / len(data)
    model["w"] -= (0.1 * data.x[order].T @ errors).astype("f4")
    model["b"] -= np.float32(0.1 * errors.sum())
    return evaluate(model, data)
"""
CROWD = Drawn(devices=24, dropouts=0.2)
PLAN = Plan(population=CROWD, at_once=12, versions=6, regions={"eu": 2, "us": 1})


def rules(**sections: dict[str, object]) -> Policy:
    return policy_from_mapping({"buffer": {"updates": 6}, "window": {"seconds_max": 0.25}} | sections)


def played(
    folder: Path,
    plan: Plan = PLAN,
    policy: Policy | None = None,
    *,
    processes: int = 1,
    before: str = "",
    seen: list[Point] | None = None,
) -> Outcome:
    file = folder / "crowd.py"
    file.write_text(TASK.replace("BEFORE", before))
    task = load_task(str(file))
    points = [] if seen is None else seen

    def on_point(point: Point, _ledger: Ledger) -> None:
        points.append(point)

    with Trainers(task, {}, processes) as trainers:
        return simulate_crowd(plan, policy or rules(), task=task, trainers=trainers, on_point=on_point)


def same(one: Outcome, other: Outcome) -> bool:
    mine, yours = one.document(), other.document()
    return one.points == other.points and mine | {"machine": 0} == yours | {"machine": 0}


def test_a_crowd_learns_and_every_version_is_a_point(tmp_path: Path) -> None:
    seen: list[Point] = []
    outcome = played(tmp_path, replace(PLAN, versions=20), seen=seen)
    assert [point.version for point in seen] == list(range(1, 21))
    assert seen == outcome.points
    assert seen[-1].metrics["loss"] < 0.7 * seen[0].metrics["loss"]
    for earlier, later in pairwise(seen):
        for field in ("seconds", "updates", "accepted", "rounds", "device_seconds", "bytes_up", "bytes_down"):
            assert getattr(later, field) >= getattr(earlier, field)
    ledger = outcome.ledger
    assert ledger.rounds == ledger.updates + ledger.rounds_lost
    assert ledger.rounds_lost > 0
    assert ledger.device_seconds > 0.0


def test_any_number_of_processes_gives_the_same_history(tmp_path: Path) -> None:
    assert same(played(tmp_path), played(tmp_path, processes=2))


def test_another_seed_gives_another_one(tmp_path: Path) -> None:
    other = replace(PLAN, seed=1, population=CROWD.seeded(1))
    assert played(tmp_path, other).points[-1].model_sha256 != played(tmp_path).points[-1].model_sha256


def test_who_signs_changes_no_model_and_no_verdict(tmp_path: Path) -> None:
    signed, unsigned = played(tmp_path), played(tmp_path, replace(PLAN, signed=False))
    for one, other in zip(signed.points, unsigned.points, strict=True):
        assert msgspec.structs.replace(one, bytes_up=0) == msgspec.structs.replace(other, bytes_up=0)
    assert signed.ledger.outcomes == unsigned.ledger.outcomes
    assert unsigned.ledger.bytes_up < signed.ledger.bytes_up


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ({"versions": 3}, "3 versions"),
        ({"updates": 30}, "updates are judged"),
        ({"seconds": 5.0}, "5 s have passed"),
        ({"aim": Aim(("accuracy", 0.6), higher_is_better=True)}, "reaches accuracy"),
    ],
)
def test_it_ends_by_whichever_comes_first(tmp_path: Path, end: dict[str, object], words: str) -> None:
    outcome = played(tmp_path, replace(PLAN, **{"versions": 200} | end))  # type: ignore[arg-type]
    assert words in outcome.ended


def test_versions_are_evaluated_as_often_as_asked(tmp_path: Path) -> None:
    outcome = played(tmp_path, replace(PLAN, versions=5, evaluate_every=2))
    assert [bool(point.metrics) for point in outcome.points] == [False, True, False, True, True]


def test_a_trace_decides_who_comes(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    rows = "".join(f"p{one},{10 * (one % 3)},{10 * (one % 3) + 9},5\n" for one in range(9))
    path.write_text("device,start_s,end_s,round_s\n" + rows)
    plan = replace(PLAN, population=read_trace(path), at_once=9, versions=4)
    outcome = played(tmp_path, plan, rules(buffer={"updates": 3}))
    assert [point.accepted for point in outcome.points] == [3, 6, 9, 12]
    assert [int(point.seconds // 10) for point in outcome.points] == [0, 1, 2, 3]
    assert outcome.ledger.rounds_lost >= 9


def test_when_no_version_can_come_it_says_so() -> None:
    strict = rules(updates={"norm_clip": 0.1, "norm_max": 0.1})
    with pytest.raises(FluvialError) as caught:
        simulate_crowd(replace(PLAN, synthetic=10), strict)
    assert caught.value.error_id == "FLV-2217"
    assert "norm_exceeded" in caught.value.message


def test_rounds_that_fail_are_told_with_their_line_and_end_it_when_none_succeeds(tmp_path: Path) -> None:
    some = played(tmp_path, before="assert config.seed % 3, 'no battery'")
    assert some.failed.total > 0
    assert "no battery" in some.failed.causes[0].line()
    with pytest.raises(FluvialError) as caught:
        played(tmp_path, before="raise ValueError('no battery')")
    assert caught.value.error_id == "FLV-6310"
    assert "crowd.py" in caught.value.where


def test_a_process_that_dies_is_named_and_leaves_no_other_behind(tmp_path: Path) -> None:
    import multiprocessing

    with pytest.raises(FluvialError) as caught:
        played(tmp_path, processes=2, before="os._exit(3)")
    assert caught.value.error_id == "FLV-6452"
    assert multiprocessing.active_children() == []


def test_when_every_round_is_lost_it_says_so(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("device,start_s,end_s,round_s\n" + "".join(f"p{one},0,5,6\n" for one in range(400)))
    plan = replace(PLAN, population=read_trace(path), at_once=400)
    with pytest.raises(FluvialError) as caught:
        simulate_crowd(replace(plan, synthetic=10, signed=False), rules())
    assert caught.value.error_id == "FLV-6453"


def test_in_rounds_a_cohort_trains_and_who_is_late_stops(tmp_path: Path) -> None:
    plan = replace(PLAN, population=Drawn(devices=24, tail=2.0), at_once=8, versions=5)
    outcome = played(tmp_path, plan, rules(buffer={"updates": 5, "mode": "rounds", "seconds_max": 1000.0}))
    assert outcome.ledger.outcomes.keys() == {"accepted"}
    assert [point.staleness for point in outcome.points] == [0.0] * 5
    ledger = outcome.ledger
    assert 4 * 8 + 5 <= ledger.rounds <= 5 * 8
    assert ledger.rounds_lost == ledger.rounds - ledger.updates > 0


# -- synthetic

SYNTHETIC = Plan(
    population=Drawn(devices=100_000), at_once=60, versions=30, synthetic=500, signed=False, round_s=60.0
)


def test_a_large_crowd_without_training_makes_versions(tmp_path: Path) -> None:
    outcome = simulate_crowd(SYNTHETIC, rules(buffer={"updates": 20}, window={"seconds_max": 15.0}))
    assert len(outcome.points) == 30
    assert outcome.ledger.outcomes.keys() == {"accepted"}
    again = simulate_crowd(SYNTHETIC, rules(buffer={"updates": 20}, window={"seconds_max": 15.0}))
    assert same(outcome, again)


def test_windows_of_equal_sums_share_their_objects_and_outlive_each_other() -> None:
    alike = Drawn(devices=4, speed_spread=0.0, delays="none")
    plan = Plan(population=alike, at_once=4, versions=140, synthetic=20, signed=False)
    outcome = simulate_crowd(plan, rules(buffer={"updates": 4}))
    assert len(outcome.points) == 140


def test_synthetic_devices_sign_where_asked() -> None:
    policy = rules(buffer={"updates": 20}, window={"seconds_max": 15.0})
    plan = replace(SYNTHETIC, versions=2)
    signed = simulate_crowd(replace(plan, signed=True), policy)
    unsigned = simulate_crowd(plan, policy)
    assert [point.model_sha256 for point in signed.points] == [
        point.model_sha256 for point in unsigned.points
    ]


def test_a_guided_policy_needs_somebody_who_trains() -> None:
    with pytest.raises(FluvialError) as caught:
        simulate_crowd(SYNTHETIC, rules(defence={"kind": "guide"}))
    assert caught.value.error_id == "FLV-6450"


def test_updates_of_a_synthetic_crowd_move_the_model() -> None:
    outcome = simulate_crowd(replace(SYNTHETIC, versions=2), rules(buffer={"updates": 20}))
    shas = [point.model_sha256 for point in outcome.points]
    assert len(set(shas)) == len(shas)
    assert np.isfinite([point.staleness for point in outcome.points]).all()


@pytest.mark.parametrize("selection", [{"kind": "slots", "slots": 6}, {"kind": "share", "share": 0.1}])
@pytest.mark.parametrize("devices", [24, 5000])
def test_devices_draw_their_lots_and_where_too_few_are_selected_more_are(
    selection: dict[str, object], devices: int
) -> None:
    buffer: dict[str, object] = {"updates": 6, "quorum": 6, "seconds_max": 30.0, "mode": "rounds"}
    plan = replace(PLAN, population=replace(CROWD, devices=devices), synthetic=50, signed=False)
    outcome = simulate_crowd(plan, rules(selection=selection, buffer=buffer))
    assert len(outcome.points) == PLAN.versions
    assert set(outcome.ledger.outcomes) <= {"accepted", "round_over"}


def test_models_that_versions_mix_in_stay_as_long_as_they_may_be_answered() -> None:
    plan = replace(PLAN, population=Drawn(devices=40, tail=2.0), synthetic=30, signed=False, versions=80)
    mixing: dict[str, dict[str, object]] = {
        "server": {"mixing": True, "learning_rate": 0.5},
        "buffer": {"updates": 1},
        "window": {"updates_max": 1, "seconds_max": 0.1},
        "staleness": {"versions_max": 12, "seconds_max": 2.0},
    }
    outcome = simulate_crowd(plan, rules(**mixing))
    assert len(outcome.points) == 80
    assert max(point.staleness for point in outcome.points) > 4, (
        "nothing older than what is kept was answered"
    )
    plain = simulate_crowd(plan, rules(**mixing | {"server": {"learning_rate": 0.5}}))
    assert plain.points[0].model_sha256 == outcome.points[0].model_sha256
    assert plain.points[-1].model_sha256 != outcome.points[-1].model_sha256


# -- cohorts


def by_cohorts(share: float, **cohorts: float) -> Policy:
    return policy_from_mapping(
        {
            "format": "fluvial/policy/v6",
            "selection": {"kind": "cohorts", "share": share, "cohorts": cohorts},
            "buffer": {"updates": 4, "seconds_max": 30.0},
            "window": {"seconds_max": 0.25},
        }
    )


def traced(folder: Path, cohorts: str) -> Plan:
    """Devices that are always there, of these cohorts in turn."""
    path = folder / "trace.csv"
    rows = "".join(f"p{one},0,1000,1,{cohorts[one % len(cohorts)].strip()}\n" for one in range(24))
    path.write_text("device,start_s,end_s,round_s,cohort\n" + rows)
    return replace(PLAN, population=read_trace(path), at_once=24, synthetic=50)


@pytest.mark.parametrize("signed", [True, False])
def test_of_each_cohort_its_share_takes_part(tmp_path: Path, *, signed: bool) -> None:
    plan = replace(traced(tmp_path, "ab "), signed=signed)
    outcome = simulate_crowd(plan, by_cohorts(0.0, a=1.0, b=0.0))
    assert outcome.ledger.outcomes.keys() == {"accepted"}
    first = outcome.points[0].accepted
    assert first == 24, "everybody may answer version 0"
    gained = [later.accepted - earlier.accepted for earlier, later in pairwise(outcome.points)]
    assert set(gained) == {0, 8}


@pytest.mark.parametrize("cohorts", ["b", "bc"])
def test_shares_that_select_nobody_of_the_crowd_are_refused(tmp_path: Path, cohorts: str) -> None:
    with pytest.raises(FluvialError) as caught:
        simulate_crowd(traced(tmp_path, cohorts), by_cohorts(0.0, a=1.0, b=0.0))
    assert caught.value.error_id == "FLV-2511"
    assert "'b'" in caught.value.message


def test_a_crowd_without_cohorts_beside_shares_for_cohorts_alone_is_refused() -> None:
    with pytest.raises(FluvialError) as caught:
        simulate_crowd(SYNTHETIC, by_cohorts(0.0, a=1.0))
    assert caught.value.error_id == "FLV-2511"


def test_where_the_task_says_who_is_of_which_cohort_that_is_what_certificates_name(tmp_path: Path) -> None:
    plan = replace(PLAN, population=Drawn(devices=24, dropouts=0.0))
    policy = by_cohorts(0.0, **{"1": 1.0, "2": 0.0})
    text = (
        TASK.replace("BEFORE", "pass")
        + "\ndef cohorts(data):\n    return (data.x[:, 1] > 0).astype(int) + 1\n"
    )
    file = tmp_path / "crowd.py"
    file.write_text(text)
    task = load_task(str(file))
    with Trainers(task, {}, 1) as trainers:
        outcome = simulate_crowd(plan, policy, task=task, trainers=trainers)
    assert outcome.ledger.outcomes.keys() == {"accepted"}
    gained = [later.accepted - earlier.accepted for earlier, later in pairwise(outcome.points)]
    assert len(outcome.points) == PLAN.versions and max(gained) < 20
    with pytest.raises(FluvialError) as caught:
        played(tmp_path, plan, by_cohorts(0.0, **{"1": 1.0}))
    assert caught.value.error_id == "FLV-2511", "without cohorts() nobody is of any"


def test_to_an_older_policy_nobody_of_a_crowd_has_a_cohort(tmp_path: Path) -> None:
    plan = traced(tmp_path, "ab")
    outcome = simulate_crowd(plan, rules(format="fluvial/policy/v5"))  # type: ignore[arg-type]
    assert outcome.ledger.outcomes.keys() == {"accepted"}
