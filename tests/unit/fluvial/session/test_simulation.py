"""`simulate`: the real fold and the real merge in this process, one history for the same arguments."""

from __future__ import annotations

import asyncio
import math
import signal
import threading

import pytest

from aggregation.errors import UsageProblem
from aggregation.policy import Policy, policy_from_mapping
from fluvial.session.engine import VersionFacts
from fluvial.session.simulation import SimulationResult, simulate
from learning.config import TrainConfig
from learning.task import Task, load_task

QUICK = TrainConfig(epochs=2, learning_rate=0.2)


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("digits")


def rules(**sections: dict[str, object]) -> Policy:
    return policy_from_mapping({"buffer": {"updates": 6}, "window": {"seconds_max": 0.25}} | sections)


def small(task: Task, **changed: object) -> SimulationResult:
    arguments: dict[str, object] = {"devices": 12, "versions": 4, "policy": rules(), "train_config": QUICK}
    return simulate(task, **arguments | changed)  # type: ignore[arg-type]


def test_a_simulation_learns_and_reports_every_version(task: Task) -> None:
    seen: list[VersionFacts] = []
    result = simulate(task, devices=12, versions=12, policy=rules(), on_version=seen.append)
    assert [facts.version for facts in seen] == list(range(1, 13))
    assert seen == result.versions
    assert result.curve()[-1] > 0.8
    assert all(facts.updates >= 6 and facts.step_norm > 0 for facts in result.versions)
    assert math.isnan(result.curve("what the task does not report")[0])


def test_the_same_arguments_give_the_same_models_and_verdicts(task: Task) -> None:
    first, second = small(task), small(task)
    assert [one.model_sha256 for one in first.versions] == [one.model_sha256 for one in second.versions]
    assert first.parameters.tobytes() == second.parameters.tobytes()
    assert first.updates == second.updates


@pytest.mark.parametrize("selection", [{"kind": "slots", "slots": 6}, {"kind": "share", "share": 0.2}])
def test_devices_draw_their_lots_and_where_too_few_are_selected_more_are(
    task: Task, selection: dict[str, object]
) -> None:
    policy = rules(
        selection=selection, buffer={"updates": 6, "quorum": 6, "seconds_max": 2.0, "mode": "rounds"}
    )
    result = small(task, policy=policy)
    assert len(result.versions) == 4
    assert {one.verdict.outcome for one in result.updates} <= {"accepted", "round_over"}
    assert all(facts.updates >= 6 for facts in result.versions)


def test_another_seed_gives_another_model(task: Task) -> None:
    assert small(task).versions[-1].model_sha256 != small(task, seed=1).versions[-1].model_sha256


def test_a_device_contributes_once_to_a_base(task: Task) -> None:
    pairs = [(one.device, one.verdict.base_version) for one in small(task).updates]
    assert len(pairs) == len(set(pairs))


def test_a_buffer_larger_than_the_fleet_merges_what_it_has_at_the_deadline(task: Task) -> None:
    result = small(task, devices=3, versions=2, policy=rules(buffer={"updates": 50, "seconds_max": 10.0}))
    assert [facts.updates for facts in result.versions] == [3, 3]


def test_the_whole_policy_is_obeyed(task: Task) -> None:
    adam = rules(server={"optimizer": "adam", "learning_rate": 0.01}, staleness={"kind": "constant"})
    result = small(task, policy=adam)
    assert {one.verdict.weight for one in result.updates if one.verdict.weight} == {1 << 16}
    assert result.versions[-1].model_sha256 != small(task).versions[-1].model_sha256


def test_regions_and_partitions_change_the_history_and_not_the_rules(task: Task) -> None:
    result = small(task, regions={"eu": 2, "us": 1})
    assert {(one.region, one.partition) for one in result.updates} == {("eu", 0), ("eu", 1), ("us", 0)}
    assert set(result.verdicts) <= {"accepted", "anomalous"}


def test_attackers_are_found_and_the_model_survives(task: Task) -> None:
    result = simulate(
        task,
        devices=20,
        attackers=2,
        versions=10,
        policy=rules(buffer={"updates": 10}, updates={"norm_clip": 2.5}, defence={"kind": "guide"}),
    )
    hostile = [one.verdict.outcome for one in result.updates if not one.honest]
    honest = [one.verdict.outcome for one in result.updates if one.honest]
    assert hostile.count("anomalous") + hostile.count("quarantined") > len(hostile) / 3
    assert honest.count("accepted") > 0.9 * len(honest)
    assert result.curve()[-1] > 0.8


def test_devices_that_break_rules_get_their_verdicts(task: Task) -> None:
    result = small(task, misbehaving=9, versions=3)
    assert {"bad_signature", "duplicate", "undecodable", "not_finite"} <= set(result.verdicts)
    assert all(one.verdict.outcome != "accepted" or one.honest for one in result.updates if one.device < 3)


def test_when_everything_is_refused_the_simulation_says_so(task: Task) -> None:
    strict = rules(updates={"norm_clip": 1e-9, "norm_max": 1e-9})
    with pytest.raises(UsageProblem) as caught:
        small(task, devices=4, policy=strict, versions=5, attackers=4)
    assert caught.value.error_id == "FLV-2217"
    assert "norm_exceeded" in caught.value.message


@pytest.mark.parametrize(
    ("wrong", "error_id"),
    [
        ({"versions": 0}, "FLV-2216"),
        ({"devices": 0}, "FLV-2505"),
        ({"attackers": 40}, "FLV-2505"),
        ({"alpha": 0.0}, "FLV-2505"),
        ({"regions": {}}, "FLV-2405"),
    ],
)
def test_arguments_out_of_bounds_are_refused(task: Task, wrong: dict[str, object], error_id: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        small(task, **wrong)
    assert caught.value.error_id == error_id


def test_it_runs_where_a_loop_runs_already_as_in_a_notebook(task: Task) -> None:
    async def cell() -> SimulationResult:
        return small(task, versions=1)

    assert len(asyncio.run(cell()).versions) == 1


def test_what_a_callback_raises_ends_it(task: Task) -> None:
    def enough(_facts: VersionFacts) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small(task, on_version=enough)


def test_ctrl_c_in_a_notebook_ends_the_simulation_beside_it(task: Task) -> None:
    seen: list[VersionFacts] = []
    caller = threading.get_ident()

    def interrupted(facts: VersionFacts) -> None:
        seen.append(facts)
        if len(seen) == 1:
            signal.pthread_kill(caller, signal.SIGINT)

    async def cell() -> SimulationResult:
        return small(task, versions=200, on_version=interrupted)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(cell())
    finally:
        signal.signal(signal.SIGINT, before)
        loop.close()
    assert len(seen) < 200
    assert not [one for one in threading.enumerate() if one.name.startswith("simulation")]
