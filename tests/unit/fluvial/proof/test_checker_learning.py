"""The checker's lots, weights by examples, rates and lateness of ``fluvial/policy/v5``, by the numbers."""

from __future__ import annotations

import json
import math
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregation.policy import Policy, policy_from_mapping
from aggregation.schedules import SCHEDULES
from aggregation.selection import SELECTIONS, Candidate, turns_after
from aggregation.selection import is_selected as is_lot
from aggregation.server.lateness import lateness_under
from aggregation.server.rates import server_at
from aggregation.weights.examples import by_examples
from fluvial.proof.checker import arithmetic, control, late, mixing
from fluvial.proof.checker.lots import is_selected, turns_of, weight_by_examples
from fluvial.proof.checker.optimizers import OPTIMIZERS
from fluvial.proof.checker.rates import rate_of
from tests import factories
from tests.factories import TASK, devices, model_sha
from tests.vectors.__main__ import FOLDER

OLD: dict[str, Any] = {"server": {"learning_rate": 0.7}, "buffer": {"late_windows": True}}
"""What of a policy before v5 is asked for."""


def scheduled(eta: float = 0.5, **schedule: Any) -> dict[str, Any]:
    whole = {"kind": "constant", "versions": 100, "factor": 0.1, "warmup_versions": 0} | schedule
    return {"server": {"learning_rate": eta, "delay_versions_max": 0}, "schedule": whole}


def choosing(**selection: Any) -> dict[str, Any]:
    return {"selection": {"kind": "all", "share": 1.0, "slots": 1} | selection}


def chosen(policy: dict[str, Any], base: int, names: list[str], turns: int = 0) -> list[str]:
    return [name for name in names if is_selected(policy, TASK, base, model_sha(base), name, turns=turns)]


# -- vectors


def cases(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((FOLDER / name).read_text())["cases"]
    return found


def test_the_checker_agrees_with_every_vector_of_lots_weights_and_rates() -> None:
    for one in cases("lots.json"):
        place = (one["task"], one["base_version"], one["base_sha256"], one["device_id"])
        lot = is_selected(one, *place, turns=one["turns"], cohort=one.get("cohort", ""))
        assert lot == one["selected"], one
    for one in cases("examples.json"):
        assert weight_by_examples(one, one["weight"], one["num_examples"]) == one["weighs"], one
    for one in cases("lateness.json"):
        assert late.weight_left(one, one["parent"], one["version"]) == one["weight"], one
    for one in cases("rates.json"):
        assert rate_of(one, one["version"], one["delay_versions"]) == one["rate"], one


@pytest.mark.parametrize("case", [one for one in cases("merges.json") if "schedule" in one])
def test_the_checker_makes_the_versions_of_the_vectors(case: dict[str, Any]) -> None:
    parent, windows = case["version"] - 1, case["windows"]
    left = [late.weight_left(case, parent, one["version"]) for one in windows]
    assert left == [one["weight"] for one in windows]
    counting = [one for one, weight in zip(windows, left, strict=True) if weight]
    latest = max(max(0, parent - one["version"]) for one in counting if one["accepted"])
    delay = late.delay_of(case, max(one["staleness_max"] for one in counting), latest)
    rate = rate_of(case, case["version"], delay)
    assert rate == case["rate"]
    layout = layout_of(case["layout"])
    trained = [one for one in layout if not one.is_buffer and not one.is_control]
    varied = [one for one in layout if one.is_control]
    size = trained[-1].end
    running = sum(one.end - one.begin for one in layout if one.is_buffer)
    sums = late.Sums(size, 10 * running)
    for one, weight in zip(windows, left, strict=True):
        if weight:
            numbers = np.array([int(text) for text in one["sums"].split()], dtype=np.int64)
            buckets = [each["weight"] for each in one.get("buckets", [{"weight": one["weight_total"]}])]
            sums.add(numbers, buckets, one["weight_total"], weight)
            sums.answered(one, weight)
    weighs = sum(late.weight_after(one["weight_total"], one["weight"]) for one in windows)
    policy = {"merge": {"kind": "mean"}} | case | {"fixed_point": {"exponent": case["exponent"]}}
    divisor = arithmetic.divisor_of(sum(one["accepted"] for one in counting), weighs, policy)
    delta = arithmetic.mean_delta(sums.combined(policy), divisor, policy)
    before = arithmetic.model_from(bytes.fromhex(case["parent_model"]), layout)
    if mixing.mixes(policy):
        answered = [
            (sums.bases[base], arithmetic.model_from(bytes.fromhex(case["models"][str(base)]), layout)[:size])
            for base in sorted(sums.bases)
            if base < parent
        ]
        delta = mixing.mixed(delta, answered, before[:size], divisor)
    state = arithmetic.optimizer_from(bytes.fromhex(case["parent_optimizer"]))
    after, state = arithmetic.server_step(case["server"], before[:size], state, delta, rate)
    parts = [after, *([sums.means()] if running else [])]
    if varied:
        parts.append(control.moved(before[varied[0].begin :], sums.control, policy))
    assert arithmetic.model_bytes(np.concatenate(parts), layout).hex() == case["model"]
    assert arithmetic.optimizer_bytes(state).hex() == case["optimizer"]
    assert arithmetic.direction_bytes(before[:size], after, trained).hex() == case["reference"]


def layout_of(tensors: list[dict[str, Any]]) -> list[arithmetic.Tensor]:
    """A layout of the vectors in the checker's words."""
    edges = [0, *accumulate(math.prod(one["shape"]) for one in tensors)]
    return [
        arithmetic.Tensor(
            one["name"],
            tuple(one["shape"]),
            edges[t],
            edges[t + 1],
            is_buffer=one["section"] == "buffers",
            nonnegative=one["nonnegative"],
            is_control=one["section"] == "control",
        )
        for t, one in enumerate(tensors)
    ]


# -- the code


@st.composite
def learning(draw: st.DrawFn) -> Policy:
    """A policy of v6 with any schedule, lot, weights and delays."""
    kind, selection = draw(st.sampled_from(sorted(SCHEDULES))), draw(st.sampled_from(sorted(SELECTIONS)))
    schedule = {
        "kind": kind,
        "versions": draw(st.one_of(st.integers(1, 30), st.integers(1, 10**9))),
        "factor": draw(st.floats(0.0, 1.0)),
        "warmup_versions": draw(st.one_of(st.integers(0, 30), st.integers(0, 10**9))),
    }
    chosen: dict[str, Any] = {"kind": selection}
    if selection == "share":
        chosen["share"] = draw(st.floats(1e-6, 1.0))
    if selection == "cohorts":
        names, shares = st.sampled_from(["a", "b", "c-1"]), st.floats(0.0, 1.0)
        chosen |= {"share": draw(st.floats(1e-9, 1.0)), "cohorts": draw(st.dictionaries(names, shares))}
    if selection == "slots":
        chosen["slots"] = draw(st.integers(1, 10_000))
    server = {
        "learning_rate": draw(st.floats(1e-12, 1e12)),
        "delay_versions_max": draw(st.integers(0, 20)),
        "divide_by": "weights",
    }
    return policy_from_mapping(
        {
            "format": "fluvial/policy/v6",
            "schedule": schedule,
            "selection": chosen,
            "server": server,
            "buffer": {
                "mode": draw(st.sampled_from(["buffer", "rounds"])),
                "late_windows": draw(st.booleans()),
            },
            "weights": {"by": "examples", "examples_max": draw(st.integers(1, 65_536))},
        }
    )


@settings(deadline=None, max_examples=150)
@given(
    learning(),
    st.one_of(st.integers(1, 100), st.integers(1, 10**10)),
    st.integers(0, 40),
    st.integers(1, 65_536),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.integers(0, 1 << 30),
)
def test_the_code_and_the_checker_say_the_same_of_any_policy(
    policy: Policy, version: int, delay: int, weight: int, examples: int, number: int
) -> None:
    said = json.loads(policy.canonical())
    assert rate_of(said, version, delay) == server_at(policy, version, delay).learning_rate
    left = by_examples(weight, examples, policy.weights.examples_max)
    assert weight_by_examples(said, weight, examples) == left
    model, device = model_sha(number % 97), f"d-{number}"
    turns = turns_after(delay * 1000 / 1000.0, policy.buffer.seconds_max)
    assert turns_of(said, number, number + 1000 * delay) == turns
    cohort = ("", "a", "b", "c-1", "d")[number % 5]
    lot = is_lot(policy.selection, Candidate(TASK, device, version, model, turns, cohort))
    assert is_selected(said, TASK, version, model, device, turns=turns, cohort=cohort) == lot
    window = factories.aggregate("eu", 0, 0)
    kept = lateness_under(policy, window.version + delay).weight_of(window)
    assert late.weight_left(said, window.version + delay, window.version) == kept


# -- lots


@pytest.mark.parametrize("policy", [{}, choosing(), choosing(kind="share"), choosing(kind="slots")])
def test_everybody_is_selected_unless_a_policy_says_otherwise(policy: dict[str, Any]) -> None:
    names = devices(50)
    assert chosen(policy, 3, names) == names


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_a_share_of_all_devices_is_selected_another_for_each_version(share: float) -> None:
    names = devices(2000)
    first, second = (set(chosen(choosing(kind="share", share=share), base, names)) for base in (0, 1))
    spread = 5 * math.sqrt(2000 * share * (1 - share))
    assert all(abs(len(one) - 2000 * share) < spread for one in (first, second))
    assert abs(len(first & second) - 2000 * share * share) < spread  # one lot says nothing of the next
    larger = set(chosen(choosing(kind="share", share=min(1.0, 2 * share)), 0, names))
    assert first <= larger


def test_with_slots_every_device_has_one_turn_in_so_many_versions() -> None:
    names, policy = devices(300), choosing(kind="slots", slots=7)
    turns = {name: [base for base in range(40) if name in chosen(policy, base, [name])] for name in names}
    for name, taken in turns.items():
        assert taken == list(range(taken[0], 40, 7)) and taken[0] < 7, name
    starts = [taken[0] for taken in turns.values()]
    assert min(starts.count(slot) for slot in range(7)) > 20


def test_with_every_deadline_more_may_answer_until_everybody_may() -> None:
    names = devices(400)
    rules = {"share": choosing(kind="share", share=0.1), "slots": choosing(kind="slots", slots=5)}
    for rule in rules.values():
        taken = [set(chosen(rule, 3, names, turns)) for turns in range(6)]
        assert all(one < other for one, other in pairwise(taken[:5])) and len(taken[4]) == len(names)
    assert set(chosen(rules["share"], 3, names, 2)) == set(
        chosen(choosing(kind="share", share=0.4), 3, names)
    )
    earlier = {*chosen(rules["slots"], 3, names), *chosen(rules["slots"], 2, names)}
    assert set(chosen(rules["slots"], 3, names, 1)) == earlier


def test_deadlines_are_counted_whole_from_the_barrier_on() -> None:
    buffer = {"buffer": {"seconds_max": 1.5}}
    assert [turns_of(buffer, 10_000, at) for at in (0, 10_000, 11_499, 11_500, 14_499)] == [0, 0, 0, 1, 2]


# -- weights


def test_a_boast_counts_as_the_most_that_the_policy_lets_count() -> None:
    policy = {"weights": {"by": "examples", "examples_max": 200}}
    said = [weight_by_examples(policy, 65_536, one) for one in (-3, 0, 1, 50, 200, 201, 10**18)]
    assert said == [327, 327, 327, 16_384, 65_536, 65_536, 65_536]
    assert weight_by_examples(policy, 1, 1) == 1
    assert weight_by_examples({"weights": {"by": "updates", "examples_max": 200}}, 9, 1) == 9
    assert weight_by_examples({}, 9, 1) == 9


# -- rates


def test_before_v5_the_rate_is_the_policys() -> None:
    assert [rate_of(OLD, version, 99) for version in (1, 2, 10**9)] == [0.7] * 3


@pytest.mark.parametrize(("versions", "factor"), [(1, 0.0), (7, 0.25), (100, 0.1), (10**9, 0.0)])
def test_the_cosine_is_half_a_wave_from_the_rate_down_to_its_share(versions: int, factor: float) -> None:
    policy = scheduled(0.3, kind="cosine", versions=versions, factor=factor)
    for u in {0, 1, versions // 3, versions // 2, versions - 1, versions, versions + 1, 3 * versions}:
        reached = min(1.0, u / versions)
        expected = 0.3 * (factor + (1 - factor) * (1 + math.cos(math.pi * reached)) / 2)
        assert rate_of(policy, u + 1, 0) == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_steps_fall_by_the_factor_and_end_falling() -> None:
    policy = scheduled(0.5, kind="step", versions=3, factor=0.5)
    assert [rate_of(policy, version, 0) for version in range(1, 8)] == [
        0.5,
        0.5,
        0.5,
        0.25,
        0.25,
        0.25,
        0.125,
    ]
    assert rate_of(policy, 10**6, 0) == 0.5 * 0.5**64


def test_a_warm_up_rises_evenly_and_the_schedule_begins_behind_it() -> None:
    policy = scheduled(1.0, kind="step", versions=2, factor=0.1, warmup_versions=4)
    assert [rate_of(policy, version, 0) for version in range(1, 8)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 0.1]


def test_a_delayed_version_goes_by_one_over_its_delay_and_never_further_than_the_schedule() -> None:
    policy = scheduled(0.2)
    policy["server"]["delay_versions_max"] = 4
    rates = [rate_of(policy, 9, delay) for delay in (0, 4, 5, 10, 100)]
    assert rates == [0.2, 0.2, 0.2, 0.1, 0.01]


# -- lateness


def test_in_rounds_a_window_of_an_earlier_version_is_dropped_whole() -> None:
    rounds = {
        "buffer": {"mode": "rounds", "late_windows": False},
        "staleness": {"versions_max": 9, "weights": [1] * 10},
    }
    assert [late.weight_left(rounds, 5, version) for version in (3, 4, 5, 6)] == [0, 0, 65_536, 65_536]


def test_a_delay_is_the_largest_staleness_and_the_largest_lateness() -> None:
    assert late.delay_of({"buffer": {"late_windows": True}}, 3, 2) == 5
    assert late.delay_of({"buffer": {"late_windows": False}}, 3, 2) == 3


# -- optimizers


def test_the_largest_second_moment_stays_where_later_deltas_are_small() -> None:
    server = {"beta_1": 0.0, "beta_2": 0.5, "adaptivity": 1e-3}
    _, state = OPTIMIZERS["amsgrad"](server, {}, np.array([4.0, 0.0]))
    direction, after = OPTIMIZERS["amsgrad"](server, state, np.array([1.0, 1.0]))
    assert state["v"].tolist() == state["v_max"].tolist() == [8.0, 0.0]
    assert after["v"].tolist() == [4.5, 0.5] and after["v_max"].tolist() == [8.0, 0.5]
    assert direction == pytest.approx([1 / (math.sqrt(8) + 1e-3), 1 / (math.sqrt(0.5) + 1e-3)])


def test_a_state_of_another_optimizer_is_forgotten() -> None:
    server = {"beta_1": 0.5, "beta_2": 0.5, "adaptivity": 1.0, "momentum": 0.5, "nesterov": True}
    ones = np.ones(1)
    assert set(OPTIMIZERS["amsgrad"](server, {"m": ones, "v": ones}, ones)[1]) == {"m", "v", "v_max"}
    assert OPTIMIZERS["amsgrad"](server, {"m": ones, "v": ones}, ones)[1]["m"] == [0.5]
    assert OPTIMIZERS["adagrad"](server, {"m": ones, "v": ones, "v_max": ones}, ones)[1]["v"] == [1.0]
    direction, state = OPTIMIZERS["sgd"](server, {"velocity": ones}, ones)
    assert [*state["velocity"], *direction] == [1.5, 1.75]
