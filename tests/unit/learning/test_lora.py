"""LoRA: what an adapted model computes, what of it is trained and sent, and what comes back whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import learning
from aggregation.errors import UsageProblem
from learning.adapters import LoraLinear
from learning.tensors import model_with
from schemas.states import frozen_of, whole_state
from tests.audited_simulation import audited, simulated, updates_of

LARGE = """
import torch
from torch import nn
import learning

DATA = "digits"
CONFIG = {"local_steps": 2, "batch_size": 16, "learning_rate": 0.2}
METRIC = "accuracy"

def model():
    base = nn.Sequential(
        nn.Linear(64, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(),
        nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10),
    )
    return learning.lora(base, rank=4, targets=("2", "4"), trained="6.bias")

def train(model, data, config):
    return learning.fit(model, data, config, **config.extra)

def evaluate(model, data):
    return learning.score(model, data)
"""


def net() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Sequential(nn.Linear(8, 5), nn.Linear(5, 3)))


def filled(model: nn.Module) -> nn.Module:
    """With adapters that do something."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("lora_b"):
                value.normal_()
    return model


def test_an_adapted_model_begins_as_its_base_to_the_last_bit() -> None:
    x = torch.randn(4, 6)
    assert torch.equal(learning.lora(net(), rank=2)(x), net()(x))


def test_an_adapter_adds_alpha_over_rank_times_b_a() -> None:
    layer = LoraLinear(nn.Linear(6, 5), rank=2, alpha=8)
    nn.init.normal_(layer.lora_b)
    x = torch.randn(7, 6)
    a, b = layer.lora_a.detach().numpy(), layer.lora_b.detach().numpy()
    w, bias = layer.base.weight.detach().numpy(), layer.base.bias.detach().numpy()
    naive = np.stack([w @ one + bias + 8 / 2 * (b @ (a @ one)) for one in x.numpy()])
    assert layer(x).detach().numpy() == pytest.approx(naive, abs=1e-5)
    assert nn.functional.linear(x, layer.weight, layer.bias).detach().numpy() == pytest.approx(
        naive, abs=1e-5
    )


def test_adapters_and_what_is_named_are_trained_and_nothing_else() -> None:
    model = learning.lora(net(), rank=2, targets=("0", "2.0"), trained="2.1.*")
    trained = [name for name, value in model.named_parameters() if value.requires_grad]
    assert trained == ["0.lora_a", "0.lora_b", "2.0.lora_a", "2.0.lora_b", "2.1.weight", "2.1.bias"]


def test_a_layer_that_stands_in_two_places_has_one_adapter() -> None:
    shared = nn.Linear(4, 4)
    model = learning.lora(nn.Sequential(shared, nn.ReLU(), shared), rank=1)
    assert model[0] is model[2]
    assert isinstance(model[0], LoraLinear)


@pytest.mark.parametrize("training", [True, False])
def test_an_encoder_of_torch_goes_through_the_adapters_in_its_fast_path_too(training: bool) -> None:  # noqa: FBT001
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    x = torch.randn(2, 5, 8)
    model = filled(learning.lora(nn.ModuleDict({"one": layer}), rank=2)).train(training)
    plain = learning.without_lora(model).train(training)
    with torch.set_grad_enabled(training):
        got, naive = model["one"](x), plain["one"](x)  # type: ignore[index]
    assert not any(isinstance(part, LoraLinear) for part in plain.modules())
    assert got.detach().numpy() == pytest.approx(naive.detach().numpy(), abs=1e-5)
    if training:
        got.sum().backward()
        grads = [value.grad for name, value in model.named_parameters() if value.requires_grad]
        assert len(grads) == 6
        assert all(grad is not None for grad in grads)


def test_without_adapters_it_computes_the_same_and_the_adapted_one_is_as_it_was() -> None:
    model = filled(learning.lora(net(), rank=2))
    x, before = torch.randn(4, 6), [value.clone() for value in model.state_dict().values()]
    plain = learning.without_lora(model)
    assert plain(x).detach().numpy() == pytest.approx(model(x).detach().numpy(), rel=1e-4, abs=1e-3)
    assert list(plain.state_dict()) == list(net().state_dict())
    assert all(map(torch.equal, before, model.state_dict().values()))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rank": 0}, "the rank must be an integer from 1 to 6, the smaller side of 0"),
        ({"rank": 4}, "the rank must be an integer from 1 to 3, the smaller side of 2.1"),
        ({"rank": True}, "the rank must be"),
        ({"alpha": 0}, "alpha must be above 0"),
        ({"alpha": float("nan")}, "alpha must be above 0"),
        ({"rank": 2, "targets": "query"}, "no linear layer is called 'query'; there are 0, 2.0, 2.1"),
        ({"rank": 2, "targets": ("0", "3.*")}, "no linear layer is called '3.\\*'"),
        ({"rank": 2, "trained": "head.*"}, "no parameter is called 'head.\\*'"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_the_model_as_it_was(
    wrong: dict[str, object], message: str
) -> None:
    model = net()
    wanted = {"rank": 2} | wrong if "rank" not in wrong and "alpha" in wrong else wrong
    with pytest.raises(UsageProblem, match=message) as caught:
        learning.lora(model, **wanted)  # type: ignore[arg-type]
    assert caught.value.error_id == "FLV-2204"
    assert all(value.requires_grad for value in model.parameters())
    assert not any(isinstance(part, LoraLinear) for part in model.modules())


def test_of_millions_of_parameters_one_percent_travels_and_the_audit_is_identical(tmp_path: Path) -> None:
    file = tmp_path / "large.py"
    file.write_text(LARGE, encoding="utf-8")
    simulation = simulated(file, devices=3, versions=2)
    task, genesis = simulation.task, simulation.engine.genesis
    every = sum(value.numel() for value in task.fresh_model().parameters())
    learned = genesis.tensor_layout.parameters
    assert every > 2_000_000
    assert learned == 2 * 4 * (1024 + 1024) + 10 < every / 100
    sizes = [len(value) for value in updates_of(simulation)]
    assert sizes
    assert learned < max(sizes) < 1.5 * learned
    assert audited(simulation).identical
    frozen = frozen_of(genesis, simulation.engine.store.get_object)
    state = whole_state(genesis, simulation.evaluations.parameters, frozen)
    whole = model_with(task, state)
    assert set(state) == set(whole.state_dict())
    scored = task.evaluate(whole.eval(), task.data().test)
    assert scored["accuracy"] == pytest.approx(simulation._versions[-1].metrics["accuracy"], abs=1e-6)
