"""Private layers: what never leaves a device, what others get instead, and what a task file may say of it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

import learning
from aggregation.errors import UsageProblem
from aggregation.policy import policy_from_mapping
from fluvial.simulating.plan import Plan
from fluvial.simulating.population import Drawn
from fluvial.simulating.simulator import simulate_crowd
from fluvial.simulating.training import Failed, Job, Split, Trained, Trainers, Workshop
from learning.config import TrainConfig
from learning.datasets import Examples
from learning.kinds.torch_module import tensor_of
from learning.tensors import initial_parameters, model_with
from learning.training import evaluate_parameters, train_locally
from schemas.tensor_files import RawTensor, float32_of
from tests.audited_simulation import audited, simulated, updates_of
from tests.task_files import written

if TYPE_CHECKING:
    from learning.task import Task

FILE = """
import numpy as np
import torch
from torch import nn
import learning

CONFIG = {{"epochs": 2, "batch_size": 8, "learning_rate": 0.2}}
PRIVATE = {private}

def data():
    r = np.random.default_rng(1)
    parts = {{}}
    for number in range(6):
        x = r.normal(size=(60, 4))
        flipped = number % 2  # half of the devices call left what the others call right
        parts[f"d{{number}}"] = (x, (x[:, 0] + x[:, 1] > 0).astype(int) ^ flipped)
    x = r.normal(size=(200, 4))
    return learning.Dataset(parts=parts, test=(x, x[:, 0] + x[:, 1] > 0))

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh())
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.body(x))

def model():
    return Net()

def train(model, data, config):
    return learning.fit(model, data, config, private=PRIVATE, held_out=0.2, **config.extra)

def evaluate(model, data):
    return {evaluate}
"""
WITHOUT = "learning.personal_score(model, data, PRIVATE)"
PLAIN = "learning.score(model, data)"
HEAD = '["head.*"]'
NORMS = "[nn.BatchNorm1d]"
ALL_OF_NORMS = {f"body.1.{name}" for name in ("weight", "bias", "running_mean", "running_var")}


def task_of(
    folder: Path, private: str = HEAD, evaluate: str = WITHOUT, name: str = "own", more: str = ""
) -> Task:
    return written(folder, FILE.format(private=private, evaluate=evaluate) + more, name)


def part(task: Task, number: int = 0) -> Examples:
    return list(task.data().parts.values())[number]


@pytest.mark.parametrize(
    ("private", "kept"),
    [
        (HEAD, {"head.weight", "head.bias"}),
        ('"head.*"', {"head.weight", "head.bias"}),
        ('("head.bias",)', {"head.bias"}),
        (NORMS, ALL_OF_NORMS | {"body.1.num_batches_tracked"}),
        (
            "[nn.BatchNorm1d, 'head.*']",
            ALL_OF_NORMS | {"body.1.num_batches_tracked", "head.weight", "head.bias"},
        ),
    ],
)
def test_private_tensors_are_in_no_update_and_frozen_for_everybody_else(
    tmp_path: Path, private: str, kept: set[str]
) -> None:
    task = task_of(tmp_path, private)
    assert set(task.private) == kept
    assert not kept & set(task.anatomy.layout.names)
    assert kept <= set(task.anatomy.frozen)
    assert set(task.anatomy.layout.names) | set(task.anatomy.frozen) == set(task.model().state_dict())
    result = train_locally(task, initial_parameters(task, 0), part(task), task.config)
    assert result.delta.size == task.anatomy.layout.parameters
    assert set(result.private) == kept


def test_a_round_goes_on_with_the_layers_that_the_last_one_left(tmp_path: Path) -> None:
    task = task_of(tmp_path)
    base = initial_parameters(task, 0)
    first = train_locally(task, base, part(task), task.config)
    began = task.anatomy.frozen
    assert all(not first.private[name].same_as(began[name]) for name in task.private)
    idle = task_of(
        tmp_path, name="idle", more="\ndef train(model, data, config):\n    return {'loss': 0.5}\n"
    )
    second = train_locally(idle, base, part(task), task.config, private=first.private)
    assert all(second.private[name].same_as(first.private[name]) for name in task.private)
    assert not np.count_nonzero(second.delta[: task.anatomy.layout.trainable.parameters])
    again = train_locally(task, base, part(task), task.config, private=first.private)
    assert again.delta.tobytes() != first.delta.tobytes()
    assert again.metrics["base_loss"] < first.metrics["base_loss"]


def test_the_same_private_layers_give_the_same_round(tmp_path: Path) -> None:
    task = task_of(tmp_path)
    base = initial_parameters(task, 0)
    own = train_locally(task, base, part(task), task.config).private
    one, other = (train_locally(task, base, part(task, 1), task.config, private=own) for _ in range(2))
    assert one.delta.tobytes() == other.delta.tobytes()
    assert all(one.private[name].same_as(other.private[name]) for name in task.private)


def test_a_crowds_device_has_its_layers_whichever_process_trains_it(tmp_path: Path) -> None:
    task = task_of(tmp_path)
    split, base = Split(devices=6, alpha=1.0, seed=0), initial_parameters(task, 0)
    first = Workshop(task).do(Job(split, 2, base, task.config))
    assert isinstance(first, Trained)
    job = Job(split, 2, base, task.config, first.private)
    here, there = Workshop(task).do(job), Workshop(task).do(pickle.loads(pickle.dumps(job)))
    direct = train_locally(task, base, part(task, 2), task.config, private=first.private)
    assert isinstance(here, Trained)
    assert isinstance(there, Trained)
    assert here.delta.tobytes() == there.delta.tobytes() == direct.delta.tobytes() != first.delta.tobytes()
    assert all(there.private[name].same_as(direct.private[name]) for name in task.private)


def test_a_crowd_goes_on_with_what_each_device_kept(tmp_path: Path) -> None:
    task = task_of(tmp_path)
    seen: list[Job] = []

    class Spied(Workshop):
        def do(self, job: Job) -> Trained | Failed:
            seen.append(job)
            return super().do(job)

    with Trainers(task, {}, processes=1) as trainers:
        trainers._here = Spied(task)
        plan = Plan(population=Drawn(devices=6), at_once=6, versions=6)
        rules = policy_from_mapping({"buffer": {"updates": 3}, "window": {"seconds_max": 0.25}})
        simulate_crowd(plan, rules, task=task, trainers=trainers)
    later = [job for job in seen if job.config.version > 2]
    assert later
    assert any(job.private for job in later)
    firsts = {job.device: job for job in reversed(seen)}
    assert all(job.private is None for job in firsts.values())


def test_a_frozen_tensor_that_is_not_private_may_still_not_change(tmp_path: Path) -> None:
    more = (
        "\ndef model():\n    net = Net()\n    net.body[0].requires_grad_(False)\n    return net\n"
        "def train(model, data, config):\n    model.head.weight.data += 1\n    model.body[0].weight.data += 1\n"
        "    return {'loss': 0.5}\n"
    )
    task = task_of(tmp_path, more=more)
    with pytest.raises(UsageProblem, match=r"train\(\) changed body.0.weight, which is frozen") as caught:
        train_locally(task, initial_parameters(task, 0), part(task), task.config)
    assert caught.value.error_id == "FLV-2208"


def test_private_layers_that_run_away_are_refused(tmp_path: Path) -> None:
    more = (
        "\ndef train(model, data, config):\n    model.head.weight.data[0, 0] = float('nan')\n"
        "    return {'loss': 0.5}\n"
    )
    task = task_of(tmp_path, more=more)
    with pytest.raises(UsageProblem, match=r"head\.weight, which is private, NaN") as caught:
        train_locally(task, initial_parameters(task, 0), part(task), task.config)
    assert caught.value.error_id == "FLV-2208"


@pytest.mark.parametrize("change", ["shape", "missing", "more", "dtype"])
def test_private_layers_of_another_model_are_refused(tmp_path: Path, change: str) -> None:
    task = task_of(tmp_path)
    base = initial_parameters(task, 0)
    own = dict(train_locally(task, base, part(task), task.config).private)
    bias = own["head.bias"]
    if change == "shape":
        own["head.bias"] = RawTensor("float32", (1,), bias.data[:4])
    elif change == "dtype":
        own["head.bias"] = RawTensor("float16", (4,), bias.data)
    elif change == "missing":
        del own["head.bias"]
    else:
        own["body.0.bias"] = bias
    for use in (
        lambda: train_locally(task, base, part(task), task.config, private=own),
        lambda: evaluate_parameters(task, base, part(task), private=own),
    ):
        with pytest.raises(
            UsageProblem, match=r"the private layers are of another model: (head|body\.0)\.bias"
        ) as caught:
            use()
        assert caught.value.error_id == "FLV-2254"


def test_who_evaluates_for_all_is_told_where_it_cannot_go_without(tmp_path: Path) -> None:
    task = task_of(tmp_path, evaluate=PLAIN)
    base = initial_parameters(task, 0)
    with pytest.raises(
        UsageProblem, match=r"evaluate\(\) uses head\.weight, head\.bias, which no evaluator has"
    ) as caught:
        evaluate_parameters(task, base, task.data().test)
    assert caught.value.error_id == "FLV-2253"
    assert "personal_score(model, data, PRIVATE)" in caught.value.hint
    own = train_locally(task, base, part(task), task.config).private
    assert np.isfinite(evaluate_parameters(task, base, task.data().test, private=own)["loss"])


def test_a_model_that_ran_away_is_not_blamed_on_private_layers(tmp_path: Path) -> None:
    task = task_of(tmp_path, evaluate=PLAIN)
    with pytest.raises(UsageProblem, match="numbers ran away") as caught:
        evaluate_parameters(task, np.full_like(initial_parameters(task, 0), np.nan), task.data().test)
    assert caught.value.error_id == "FLV-2209"


@pytest.mark.parametrize("private", [HEAD, NORMS])
def test_what_a_new_device_makes_of_it_can_be_evaluated(tmp_path: Path, private: str) -> None:
    task = task_of(tmp_path, private)
    base = initial_parameters(task, 0)
    first = evaluate_parameters(task, base, task.data().test)
    assert first == evaluate_parameters(task, base, task.data().test)
    assert np.isfinite(first["loss"])
    assert private != HEAD or first["accuracy"] > 0.6
    with pytest.raises(UsageProblem, match="two examples or more") as caught:
        evaluate_parameters(task, base, task.data().test.subset([0]))
    assert caught.value.error_id == "FLV-2253"


def test_a_layer_that_cannot_begin_anew_is_named(tmp_path: Path) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.ones(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.gain

    model = nn.Sequential(nn.Linear(4, 2), Own())
    with pytest.raises(UsageProblem, match="1 has private tensors and no reset_parameters") as caught:
        learning.personal_score(model, Examples(np.ones((4, 4)), np.arange(4) % 2), ["1.gain"])
    assert caught.value.error_id == "FLV-2253"


@pytest.mark.parametrize(
    ("private", "message"),
    [
        ("True", "PRIVATE must be a list"),
        ("[3]", "PRIVATE must be a list"),
        ('{"head": 1}', "PRIVATE must be a list"),
        ('["haed.*"]', "PRIVATE has 'haed.\\*', and the model has no such tensor; it has body.0.weight"),
        ("[nn.Conv2d]", "PRIVATE has Conv2d"),
        ('["*"]', "nothing would be learned together"),
    ],
)
def test_what_private_cannot_be_is_refused(tmp_path: Path, private: str, message: str) -> None:
    with pytest.raises(UsageProblem, match=message) as caught:
        task_of(tmp_path, private)
    assert caught.value.error_id == "FLV-2252"
    assert caught.value.where.endswith("own.py")


def test_one_of_two_tied_tensors_cannot_be_private(tmp_path: Path) -> None:
    more = (
        "\nclass Tied(Net):\n    def __init__(self):\n        super().__init__()\n"
        "        self.twin = nn.Linear(8, 2)\n        self.twin.weight = self.head.weight\n"
        "def model():\n    return Tied()\n"
    )
    with pytest.raises(UsageProblem, match="one tensor \\(tied\\)") as caught:
        task_of(tmp_path, more=more)
    assert caught.value.error_id == "FLV-2252"
    both = task_of(tmp_path, '["head.*", "twin.*"]', name="both", more=more)
    result = train_locally(both, initial_parameters(both, 0), part(both), both.config)
    assert (
        float32_of(result.private["twin.weight"]).tobytes()
        == float32_of(result.private["head.weight"]).tobytes()
    )


def test_models_of_other_libraries_have_none(tmp_path: Path) -> None:
    more = "\ndef model():\n    return {'w': np.zeros(3)}\n"
    with pytest.raises(UsageProblem, match="PRIVATE needs a torch model") as caught:
        task_of(tmp_path, '["w"]', more=more)
    assert caught.value.error_id == "FLV-2252"


def test_a_task_whose_devices_learn_them_together_is_not_made_private_behind_their_backs(
    tmp_path: Path,
) -> None:
    plain, later = task_of(tmp_path, "()", name="plain"), task_of(tmp_path, name="later")
    assert plain.private == ()
    with pytest.raises(
        UsageProblem, match=r"PRIVATE has head\.weight, which the task's devices learn together"
    ) as caught:
        later.bound_to(plain.anatomy)
    assert caught.value.error_id == "FLV-2252"
    assert later.bound_to(later.anatomy).private == later.private


def test_local_figures_stand_beside_the_versions(tmp_path: Path) -> None:
    task = task_of(tmp_path)
    base = initial_parameters(task, 0)
    result = train_locally(task, base, part(task), TrainConfig(epochs=20))
    told = {"base_loss", "base_accuracy", "local_loss", "local_accuracy", "num_examples"}
    assert set(result.metrics) == {"loss"} | told
    assert result.metrics["local_loss"] < result.metrics["base_loss"]
    assert result.metrics["local_accuracy"] > 0.8
    assert result.num_examples == 48


@pytest.mark.parametrize("share", [0.01, 0.2, 0.9])
def test_a_devices_own_held_out_examples_are_the_same_each_round_and_never_trained_on(share: float) -> None:
    data = Examples(np.arange(40, dtype=np.float32)[:, None] / 40, np.arange(40) % 2)
    seen: list[set[float]] = []

    def spied(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs, targets)

    class Spy(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen[-1] |= set(x.flatten().tolist()) if self.training else set()
            return super().forward(x)

    for version in range(3):
        seen.append(set())
        learning.fit(Spy(1, 2), data, TrainConfig(seed=7, version=version), spied, held_out=share)
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0]) == 40 - max(1, round(share * 40))


@pytest.mark.parametrize("bad", [-0.1, 0.95, float("nan"), "0.2", True])
def test_a_share_out_of_bounds_is_refused(bad: Any) -> None:
    with pytest.raises(UsageProblem, match=r"held_out must be a number from 0 to 0\.9"):
        learning.fit(
            nn.Linear(1, 2), Examples(np.ones((4, 1)), np.arange(4) % 2), TrainConfig(), held_out=bad
        )


@pytest.mark.parametrize(
    ("private", "more"), [(HEAD, ""), (HEAD, 'CONFIG["algorithm"] = "fedrep"\n'), (NORMS, "")]
)
def test_a_run_with_private_layers_is_audited_to_the_last_bit_and_says_nothing_of_them(
    tmp_path: Path, private: str, more: str
) -> None:
    task = task_of(tmp_path, private, more=more)
    simulation = simulated(task.path, devices=6, versions=3)
    assert audited(simulation).identical
    genesis = simulation.engine.genesis
    assert not set(task.private) & set(genesis.tensor_layout.names)
    held = simulation._work._private
    states = [state for number in range(6) if (state := held.of(f"d{number}")) is not None]
    assert len(states) >= 3  # the slowest may still be in their first round
    told = updates_of(simulation)
    for state in states:
        assert set(state) == set(task.private)
        for raw in state.values():
            if raw.data.size >= 16:
                assert not any(raw.data.tobytes() in value for value in told)
    assert [facts.problem for facts in simulation._versions] == [""] * 3


def test_devices_that_differ_in_what_they_call_things_each_get_a_model_that_fits(tmp_path: Path) -> None:
    """With one model for all, half of them are wrong; with heads of their own, none is."""
    reached = {}
    for private in ("()", HEAD):
        name = "shared" if private == "()" else "headed"
        evaluate = PLAIN if private == "()" else WITHOUT
        task = task_of(tmp_path, private, evaluate, name)
        simulation = simulated(task.path, devices=6, versions=8)
        held = simulation._work._private
        reached[name] = [
            evaluate_parameters(
                task_of(tmp_path, private, PLAIN, f"{name}-{number}").bound_to(simulation.task.anatomy),
                simulation.evaluations.parameters,
                part(task, number),
                private=held.of(f"d{number}") or {},
            )["accuracy"]
            for number in range(6)
        ]
    assert min(reached["headed"]) > 0.8
    assert min(reached["shared"]) < 0.6


def test_the_model_comes_back_whole_with_a_devices_own_layers(tmp_path: Path) -> None:
    task = task_of(tmp_path)
    base = initial_parameters(task, 0)
    own = train_locally(task, base, part(task), task.config).private
    frozen = dict(task.anatomy.frozen)
    flat = {spec.name: spec for spec in task.anatomy.layout.tensors}
    state = frozen | {
        name: RawTensor("float32", spec.shape, base[start : start + spec.size].view(np.uint8))
        for (name, spec), start in zip(flat.items(), task.anatomy.layout.starts[:-1], strict=True)
    }
    mine = model_with(task, state, own)
    assert torch.equal(mine.head.weight, tensor_of(own["head.weight"]))
    assert torch.equal(model_with(task, state).head.weight, tensor_of(frozen["head.weight"]))
