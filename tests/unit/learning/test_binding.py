"""A task file and a genesis document: what is frozen, tied and of which dtype, and that both have to fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from aggregation.codecs import encode_update
from aggregation.errors import IntegrityProblem, UsageProblem
from backends.memory.store import MemoryStore
from backends.store.task_store import TaskStore
from fluvial.local.create import FirstVersion, first_version, make_keys
from fluvial.proof.audit.findings import Findings
from fluvial.proof.audit.named import check_named_objects
from learning.binding import bind
from learning.randomness import seeded
from learning.tensors import initial_parameters
from learning.training import evaluate_parameters, train_locally
from schemas.checkpoints import decode_model
from schemas.documents import genesis_v1
from schemas.manifests import NEWEST_GENESIS, decode_genesis
from schemas.objects import object_key, sha256_hex
from schemas.states import frozen_of
from tests import factories
from tests.task_files import FROZEN, IDLE, MODULES, PLAIN, TIED, file_of, written

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

    from learning import Task


def first_of(task: Task, folder: Path, seed: int = 0, form: str = NEWEST_GENESIS) -> FirstVersion:
    make_keys(folder, {"eu": 1})
    policy = factories.policy()
    return first_version(
        "own", task, regions={"eu": 1}, policy=policy, folder=folder, seed=seed, document_format=form
    )


def nothing_stored(sha256: str) -> bytes:
    raise AssertionError(f"{sha256} was asked for")


def objects_of(first: FirstVersion) -> dict[str, bytes]:
    return {sha256_hex(data): data for data in first.objects}


def test_a_genesis_says_what_is_trained_what_is_averaged_and_what_is_frozen(tmp_path: Path) -> None:
    task = written(tmp_path, FROZEN)
    genesis = first_of(task, tmp_path).genesis
    assert [(entry.name, entry.section, entry.nonnegative) for entry in genesis.layout] == [
        ("norm.weight", "weights", False),
        ("norm.bias", "weights", False),
        ("head.weight", "weights", False),
        ("head.bias", "weights", False),
        ("norm.running_mean", "buffers", False),
        ("norm.running_var", "buffers", True),
    ]
    assert genesis.model.kind == "torch"
    assert genesis.model.frozen is not None
    frozen = frozen_of(genesis, objects_of(first_of(task, tmp_path)).__getitem__)
    assert sorted(frozen) == ["base.bias", "base.weight", "mask", "norm.num_batches_tracked"]
    assert decode_genesis(genesis.canonical()) == genesis


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_a_genesis_says_each_tensors_dtype(tmp_path: Path, dtype: str) -> None:
    genesis = first_of(written(tmp_path, file_of(MODULES[dtype])), tmp_path).genesis
    assert {entry.dtype for entry in genesis.layout} == {dtype}
    assert genesis.model.frozen is None
    assert genesis.model.tied == {}


def test_ties_are_named_also_among_frozen_tensors(tmp_path: Path) -> None:
    assert first_of(written(tmp_path, TIED), tmp_path).genesis.model.tied == {"b.weight": "a.weight"}
    frozen = TIED.replace("        self.gain", "        self.a.requires_grad_(False)\n        self.gain")
    genesis = first_of(written(tmp_path, frozen, "frozen"), tmp_path).genesis
    assert genesis.model.tied == {"b.weight": "a.weight"}
    assert "a.weight" not in [entry.name for entry in genesis.layout]


def test_frozen_values_follow_from_the_seed_and_reach_every_round(tmp_path: Path) -> None:
    task = written(tmp_path, FROZEN)
    first, other = first_of(task, tmp_path, seed=1), first_of(task, tmp_path, seed=2)
    assert first.objects != other.objects
    assert first.objects == first_of(task, tmp_path, seed=1).objects
    bound = bind(task, first.genesis, objects_of(first).__getitem__)
    base = decode_model(first.model, first.genesis.tensor_layout)
    data = task.data().test
    assert evaluate_parameters(bound, base, data) != evaluate_parameters(
        bind(task, other.genesis, objects_of(other).__getitem__), base, data
    )
    held: nn.Module = bound.fresh_model()
    bound.kind.load(held, bound.anatomy, base)
    with seeded(1):
        drawn = task.model()
    wanted = drawn.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in held.state_dict().items())


def test_an_update_holds_the_trained_part_and_the_buffers_only(tmp_path: Path) -> None:
    base = "nn.Linear(1000, 1000, bias=False).requires_grad_(False)"
    text = file_of(f"nn.Sequential(nn.Linear(4, 1000), {base}, nn.ReLU(), nn.Linear(1000, 2))")
    task = written(tmp_path, text.replace("nn.Linear(4, 1000)", "nn.Linear(4, 1000).requires_grad_(False)"))
    layout = task.anatomy.layout
    result = train_locally(task, initial_parameters(task, 0), task.data().test, task.config)
    encoded = encode_update(result.delta, layout, "int8", np.random.default_rng(0))
    assert sum(len(tensor.data) for tensor in encoded) == 2002


@pytest.mark.parametrize(
    "thaw",
    [
        "model.base.requires_grad_(True); model.base.weight.data += 1.0",
        "model.mask.zero_()",
        "model.base = nn.Linear(4, 64); model.base.bias.data += 1.0",
    ],
)
def test_a_round_that_changes_what_is_frozen_says_so(tmp_path: Path, thaw: str) -> None:
    more = f"\ndef train(model, data, config):\n    {thaw}\n    return {{'loss': 1.0}}\n"
    task = written(tmp_path, FROZEN + more)
    with pytest.raises(
        UsageProblem, match=r"train\(\) changed (base\.weight|base\.bias|mask), which is frozen"
    ) as caught:
        train_locally(task, initial_parameters(task, 0), task.data().test, task.config)
    assert caught.value.error_id == "FLV-2208"
    assert "requires_grad" in caught.value.hint


def test_counters_may_count(tmp_path: Path) -> None:
    task = written(tmp_path, FROZEN)
    update = train_locally(task, initial_parameters(task, 0), task.data().train, task.config).delta
    buffers = update[task.anatomy.layout.trainable.parameters :]
    assert (buffers != initial_parameters(task, 0)[-128:]).any()
    assert (buffers[64:] >= 0).all()


def test_a_task_of_before_v3_has_all_floats_in_one_section_and_goes_on(tmp_path: Path) -> None:
    task = written(tmp_path, FROZEN.replace('float("-inf")', "0.0"))
    first = first_of(task, tmp_path, form=genesis_v1.FORMAT)
    assert first.objects == ()
    names = [entry.name for entry in first.genesis.layout]
    assert names[:3] == ["mask", "base.weight", "base.bias"]
    bound = bind(task, first.genesis, nothing_stored)
    base = decode_model(first.model, first.genesis.tensor_layout)
    result = train_locally(bound, base, task.data().train, task.config)
    assert result.delta.size == base.size
    assert np.isfinite(list(evaluate_parameters(bound, base + result.delta, task.data().test).values())).all()
    model = bound.fresh_model()
    bound.kind.load(model, bound.anatomy, base)
    assert np.array_equal(bound.kind.values(model, bound.anatomy), base)


@pytest.mark.parametrize(
    ("theirs", "names"),
    [
        (PLAIN.replace("16", "8"), "0.weight"),
        (PLAIN.replace(", nn.Linear(16, 2)", ""), "2.weight"),
        (PLAIN.replace("nn.Linear(16, 2)", "nn.Linear(16, 2), nn.Linear(2, 2)"), "3.weight"),
    ],
)
def test_a_file_that_makes_another_model_is_refused_before_any_round(
    tmp_path: Path, theirs: str, names: str
) -> None:
    genesis = first_of(written(tmp_path, file_of(PLAIN)), tmp_path).genesis
    other = written(tmp_path, file_of(theirs), "other")
    with pytest.raises(UsageProblem, match=names) as caught:
        bind(other, genesis, nothing_stored)
    assert caught.value.error_id == "FLV-2213"
    assert "other.py" in caught.value.where


def test_a_device_may_hold_the_model_in_another_dtype(tmp_path: Path) -> None:
    first = first_of(written(tmp_path, file_of(PLAIN)), tmp_path)
    narrow = bind(
        written(tmp_path, file_of(MODULES["bfloat16"]) + IDLE, "narrow"), first.genesis, nothing_stored
    )
    base = decode_model(first.model, first.genesis.tensor_layout)
    assert not np.count_nonzero(train_locally(narrow, base, narrow.data().test, narrow.config).delta)


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:-1] + b"x"])
def test_a_damaged_frozen_object_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    task = written(tmp_path, FROZEN)
    first = first_of(task, tmp_path)
    with pytest.raises(IntegrityProblem) as caught:
        bind(task, first.genesis, lambda _sha256: damage(first.objects[0]))
    assert caught.value.error_id == "FLV-4110"


def test_an_audit_holds_the_frozen_object_against_the_genesis(tmp_path: Path) -> None:
    first = first_of(written(tmp_path, FROZEN), tmp_path)
    assert first.genesis.model.frozen is not None
    key = object_key("own", first.genesis.model.frozen.sha256)
    store = MemoryStore()
    objects = TaskStore(store, "own")
    for put, got in ((None, "no object"), (b"another", sha256_hex(b"another")), (first.objects[0], "")):
        if put is not None:
            store.put(key, put)
        findings = Findings()
        check_named_objects(objects, first.genesis, findings)
        assert [finding.got for finding in findings][:1] == ([got] if got else [])
