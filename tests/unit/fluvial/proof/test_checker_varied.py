"""What the checker makes of ``fluvial/policy/v6`` and ``fluvial/genesis/v6``: the vectors' bits, and the code's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregation.policy import policy_from_mapping
from aggregation.server.control import control_after
from aggregation.server.mixing import MixedBase, mix_into
from fluvial.proof.checker import control, encoding, mixing
from fluvial.proof.checker.fold import Partition
from fluvial.proof.checker.task import Damaged, Shelf, Task, object_key, task_of
from fluvial.proof.checker.wire import notary_of
from tests.unit.fluvial.proof.test_checker_learning import layout_of
from tests.vectors import below, cohorts, varied
from tests.vectors.__main__ import FOLDER
from tests.vectors.lying import random_log
from tests.vectors.replaying import case_of
from tests.vectors.wire import authorities

SEEN = ("offset", "outcome", "device_id", "update_id", "base_version", "staleness", "weight", "clip", "norm")


class Objects:
    """The objects of a log by their keys."""

    def __init__(self, task: str, objects: Mapping[str, str]) -> None:
        self._objects = {object_key(task, name): bytes.fromhex(data) for name, data in objects.items()}

    def get(self, key: str, /) -> bytes | None:
        return self._objects.get(key)

    def keys(self, prefix: str, /) -> Iterable[str]:
        return (key for key in self._objects if key.startswith(prefix))


def file(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / name).read_text())
    return found


def task_in(case: dict[str, Any], authorities: dict[str, str]) -> Task:
    """The task of a log of the vectors; no genesis document is known of it."""
    authorities = {name: authorities[name] for name in ("eu", "us", "control")}
    policy = json.loads(case["policy"])
    sha256 = next(
        name for name, data in case["objects"].items() if bytes.fromhex(data) == case["policy"].encode()
    )
    return Task(
        name=case["task"],
        genesis_sha256=case["genesis_sha256"],
        partitions={case["region"]: case["partitions"]},
        layout=layout_of(case["layout"]),
        policy=policy,
        policy_sha256=sha256,
        model_sha256=case["model_sha256"],
        optimizer_sha256="",
        notary=notary_of(tuple(sorted(authorities.items())), canonical=True, named=case["genesis_sha256"]),
        verdicts=2,
    )


@pytest.mark.parametrize("name", varied.LOGS | cohorts.LOGS | below.LOGS)
def test_the_checker_folds_the_logs_of_v6_to_the_vectors_bits(name: str) -> None:
    logs = file("logs.json")
    (case,) = [one for one in logs["cases"] if one["name"] == name]
    require_same(case, logs["authorities"])


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 1 << 30))
def test_the_code_and_the_checker_judge_any_window_of_an_edge_alike(seed: int) -> None:
    case = case_of("lying edges", random_log(seed))
    require_same(case, authorities())


def require_same(case: dict[str, Any], pems: dict[str, str]) -> None:
    """The checker folds a log of the vectors to the same verdicts, sums, states and windows."""
    task = task_in(case, pems)
    fold = Partition(Shelf(Objects(task.name, case["objects"]), task), (case["region"], case["partition"]))
    windows = iter(case["windows"])
    for record, verdict in zip(case["records"], case["verdicts"], strict=True):
        value = None if record["value"] is None else bytes.fromhex(record["value"])
        came = fold.take(record["timestamp_ms"], value)
        assert [came.verdict[key] for key in SEEN] == [verdict[key] for key in SEEN], record["note"]
        if came.closed is not None:
            expected = next(windows)
            sums = [] if came.closed.sums is None else came.closed.sums.tolist()
            assert sums == [int(one) for one in expected["sums"].split()], record["note"]
            assert encoding.encode("PartitionState", came.closed.snapshot).hex() == expected["state"]
            assert encoding.encode("RegionalAggregate", came.closed.record).hex() == expected["payload"]
    assert list(windows) == []


def test_a_genesis_of_v6_has_a_control_variate_of_each_weight_or_none() -> None:
    cases = [one for one in file("genesis.json")["cases"] if one["format"] == "fluvial/genesis/v6"]
    (good,) = [one for one in cases if one["good"]]
    task = task_of(good["document"].encode())
    assert [one.name for one in task.control] == [control.PREFIX + one.name for one in task.weights]
    assert (task.parameters, task.digits, task.sum_elements) == (
        good["weights"],
        10 * good["buffers"],
        good["sum_elements"],
    )
    document = json.loads(good["document"])
    without = document | {"layout": [one for one in document["layout"] if one["section"] != "control"]}
    assert task_of(json.dumps(without).encode()).control == []
    bad = [
        one["document"] for one in cases if json.loads(one["document"]).get("layout") != document["layout"]
    ]
    assert len(bad) > 10
    for one in bad:
        with pytest.raises(Damaged):
            task_of(one.encode())
    older = without | {"format": "fluvial/genesis/v5", "layout": document["layout"]}
    with pytest.raises(Damaged, match="does not know"):
        task_of(json.dumps(older).encode())


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(FLOATS, st.integers(-(1 << 62), 1 << 62)), min_size=1, max_size=9),
    st.integers(1, 10**9),
    st.integers(8, 48),
)
def test_the_code_and_the_checker_move_control_variates_to_the_same_bits(
    rows: list[tuple[float, int]], devices: int, exponent: int
) -> None:
    policy = policy_from_mapping(
        {
            "format": "fluvial/policy/v6",
            "updates": {"norm_clip": 1e-6},
            "control": {"devices": devices, "norm_clip": 1e-6},
            "fixed_point": {"exponent": exponent},
        }
    )
    before = np.array([one for one, _ in rows], dtype=np.float32)
    total = np.array([one for _, one in rows], dtype=np.int64)
    with np.errstate(over="ignore"):
        made = control.moved(before, total, json.loads(policy.canonical()))
        assert made.tobytes() == control_after(before, total, policy).tobytes()


@settings(deadline=None, max_examples=60)
@given(
    st.lists(FLOATS, min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(1, 1 << 40), FLOATS), max_size=4),
    st.floats(1e-6, 1e9),
)
def test_the_code_and_the_checker_mix_models_to_the_same_bits(
    parent: list[float], bases: list[tuple[int, float]], divisor: float
) -> None:
    before = np.array(parent, dtype=np.float32)
    models = [(weight, (before[::-1] * np.float32(0.5) + np.float32(x / 4))) for weight, x in bases]
    delta = np.linspace(-1.0, 1.0, before.size)
    made = mixing.mixed(delta.copy(), models, before, divisor)
    mix_into(delta, before, [MixedBase(*one) for one in models], divisor)
    assert made.tobytes() == delta.tobytes()


def test_a_policy_before_v6_mixes_nothing_and_clips_control_variates_as_weights() -> None:
    old = json.loads(policy_from_mapping({"format": "fluvial/policy/v5"}).canonical())
    assert not mixing.mixes(old)
    assert control.rule_of(old) == {"devices": 1000, "norm_clip": old["updates"]["norm_clip"]}
