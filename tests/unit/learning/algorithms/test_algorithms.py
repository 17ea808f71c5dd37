"""Local algorithms: each by its paper's formula, and what a task may say of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import learning
from aggregation.errors import UsageProblem
from learning.algorithms import ALGORITHMS, LocalSteps
from learning.algorithms.fednova import accumulation
from learning.config import TrainConfig, config_from_overrides
from learning.control import ControlVariates
from learning.datasets import Examples
from tests.conformance.algorithms import (
    FEATURES,
    ROUNDS,
    AlgorithmLaws,
    Round,
    Weights,
    change,
    examples,
    squares,
)


class TestFedAvg(AlgorithmLaws):
    name = "fedavg"

    def naive_gradient(self, gradient: Weights, weights: Weights, base: Weights) -> Weights:
        return gradient

    def naive_change(self, changed: Weights, done: Round) -> Weights:
        return changed


class TestFedProx(AlgorithmLaws):
    name = "fedprox"
    settings: ClassVar[dict[str, Any]] = {"mu": 0.7}

    def naive_gradient(self, gradient: Weights, weights: Weights, base: Weights) -> Weights:
        return gradient + 0.7 * (weights - base)

    def naive_change(self, changed: Weights, done: Round) -> Weights:
        return changed

    def test_without_a_proximal_term_it_is_fedavg_to_the_last_bit(self) -> None:
        config = TrainConfig(seed=1)
        assert change(config, algorithm="fedprox", mu=0.0).tobytes() == change(config).tobytes()

    def test_the_larger_mu_the_nearer_the_local_model_stays(self) -> None:
        config = TrainConfig(epochs=20, learning_rate=0.05)
        moved = [np.linalg.norm(change(config, algorithm="fedprox", mu=mu)) for mu in (0.0, 0.1, 1.0, 10.0)]
        assert moved == sorted(moved, reverse=True)
        assert moved[-1] < moved[0] / 2

    def test_at_the_end_of_long_training_it_stands_where_the_paper_says(self) -> None:
        data, mu = examples(), 2.0
        x, y = data.x.astype(np.float64), data.y.astype(np.float64)
        base = np.array([0.5, -1.0, 2.0])
        curvature = 2 * x.T @ x / len(x) + mu * np.eye(FEATURES)
        minimum = np.linalg.solve(curvature, 2 * x.T @ y / len(x) + mu * base)
        config = TrainConfig(epochs=400, batch_size=64, learning_rate=0.1)
        assert change(config, algorithm="fedprox", mu=mu) == pytest.approx(minimum - base, abs=1e-9)


SERVER = np.array([0.3, -0.2, 0.1], dtype=np.float32)
OWN = np.array([-0.1, 0.4, 0.25], dtype=np.float32)


def variates() -> ControlVariates:
    return ControlVariates({"w": SERVER}, {"w": OWN})


class TestScaffold(AlgorithmLaws):
    name = "scaffold"

    def change(self, config: TrainConfig, **settings: Any) -> Weights:
        return super().change(replace(config, control_variates=variates()), **settings)

    def naive_gradient(self, gradient: Weights, weights: Weights, base: Weights) -> Weights:
        return gradient - OWN + SERVER

    def naive_change(self, changed: Weights, done: Round) -> Weights:
        return changed

    @pytest.mark.parametrize("momentum", [0.0])
    @pytest.mark.parametrize("which", ROUNDS)
    def test_a_round_is_the_papers_formula(self, which: str, momentum: float) -> None:
        config = TrainConfig(seed=4, version=2, learning_rate=0.05, **ROUNDS[which])  # type: ignore[arg-type]
        got = self.change(config)
        # The correction c - c_i is a float32.
        assert got == pytest.approx(self.naive_round(config, momentum), rel=1e-6, abs=1e-7)

    def test_its_own_variate_becomes_what_option_ii_says(self) -> None:
        """Algorithm 1, line 12: c_i' = c_i - c + (x - y) / (K eta)."""
        one, steps = variates(), -(-17 // 5) * 3
        config = TrainConfig(seed=4, epochs=3, batch_size=5, learning_rate=0.05, control_variates=one)
        moved = change(config, algorithm="scaffold")
        expected = OWN - SERVER - moved / (steps * 0.05)
        assert one.after("")["w"] == pytest.approx(expected, rel=1e-6)
        assert one.own["w"].tolist() == OWN.tolist()

    def test_where_all_have_the_same_data_the_variates_change_no_step(self) -> None:
        same = ControlVariates({"w": SERVER}, {"w": SERVER})
        config = TrainConfig(seed=4)
        got = change(replace(config, control_variates=same), algorithm="scaffold")
        assert got.tobytes() == change(config).tobytes()

    @pytest.mark.parametrize(
        "beside",
        [
            {"momentum": 0.5},
            {"weight_decay": 0.1},
            {"optimizer": "adam"},
            {"optimizer": torch.optim.Adagrad},
            {"clip_norm": 1.0},
            {"algorithm": ("scaffold", "fedprox")},
            {"algorithm": ("fedrep", "scaffold")},
        ],
        ids=str,
    )
    def test_it_takes_plain_sgd_alone(self, beside: dict[str, Any]) -> None:
        config = TrainConfig(control_variates=variates())
        with pytest.raises(UsageProblem) as caught:
            change(config, **{"algorithm": "scaffold"} | beside)
        assert caught.value.error_id == "FLV-2207"

    def test_a_task_without_control_variates_is_named(self) -> None:
        with pytest.raises(UsageProblem, match="made without them") as caught:
            change(TrainConfig(), algorithm="scaffold")
        assert caught.value.error_id == "FLV-2265"

    def test_a_loop_of_ones_own_may_say_what_it_did_in_parts(self) -> None:
        whole, parts = variates(), variates()
        moved = np.array([0.2, 0.1, -0.4])
        whole.trained({"w": moved}, steps=8, learning_rate=0.1)
        parts.trained({"w": moved / 2}, steps=3, learning_rate=0.1)
        parts.trained({"w": moved / 2}, steps=5, learning_rate=0.1)
        assert parts.after("")["w"] == pytest.approx(whole.after("")["w"], rel=1e-6)
        with pytest.raises(ValueError, match="no tensor"):
            whole.trained({"v": moved}, steps=1, learning_rate=0.1)


class TestFedNova(AlgorithmLaws):
    name = "fednova"
    settings: ClassVar[dict[str, Any]] = {"tau_eff": 8.0}

    def naive_gradient(self, gradient: Weights, weights: Weights, base: Weights) -> Weights:
        return gradient

    def naive_change(self, changed: Weights, done: Round) -> Weights:
        t, m = done.steps, done.momentum
        return changed * 8.0 / ((t - m * (1 - m**t) / (1 - m)) / (1 - m))

    def test_devices_that_take_more_steps_do_not_pull_further(self) -> None:
        flat = Examples(
            np.full((40, FEATURES), 1e-6), np.full(40, 1e6)
        )  # a gradient that training does not change
        few, many = TrainConfig(epochs=1, batch_size=10), TrainConfig(epochs=9, batch_size=2)
        apart = [np.linalg.norm(change(config, flat)) for config in (few, many)]
        assert apart[1] > 40 * apart[0]
        together = [change(config, flat, algorithm="fednova", tau_eff=8) for config in (few, many)]
        assert together[0] == pytest.approx(together[1], rel=1e-6)

    @pytest.mark.parametrize("steps", [1, 2, 7, 100])
    @pytest.mark.parametrize(("rate", "mu"), [(0.1, 0.01), (0.05, 5.0), (1.0, 0.5)])
    def test_a_proximal_term_has_the_weight_that_the_paper_gives(
        self, steps: int, rate: float, mu: float
    ) -> None:
        c = rate * mu
        assert accumulation(LocalSteps(steps, rate, pull=mu)) == pytest.approx((1 - (1 - c) ** steps) / c)

    def test_it_works_together_with_fedprox(self) -> None:
        config = TrainConfig(epochs=3, batch_size=5, learning_rate=0.05)
        alone = change(config, algorithm="fedprox", mu=0.7)
        both = change(config, algorithm=("fedprox", "fednova"), mu=0.7, tau_eff=4)
        c, steps = 0.05 * 0.7, 3 * 4
        assert both == pytest.approx(alone * 4 / ((1 - (1 - c) ** steps) / c), rel=1e-9)

    def test_with_nesterovs_momentum_a_constant_gradient_gives_the_stated_steps(self) -> None:
        flat = Examples(np.full((40, FEATURES), 1e-6), np.full(40, 1e6))
        config = TrainConfig(epochs=3, batch_size=8)
        one = change(TrainConfig(epochs=1, batch_size=40), flat)
        got = change(config, flat, algorithm="fednova", tau_eff=5, momentum=0.9, nesterov=True)
        assert got == pytest.approx(5 * one, rel=1e-6)

    @pytest.mark.parametrize("settings", [{"optimizer": "adam"}, {"momentum": 0.5, "dampening": 0.5}])
    def test_steps_that_are_no_sum_of_gradients_are_refused(self, settings: dict[str, Any]) -> None:
        with pytest.raises(UsageProblem, match="normalizes the steps of SGD") as caught:
            change(TrainConfig(), algorithm="fednova", tau_eff=8, **settings)
        assert caught.value.error_id == "FLV-2207"

    def test_the_number_of_steps_has_to_be_stated(self) -> None:
        with pytest.raises(UsageProblem, match="fednova needs tau_eff, the local steps"):
            change(TrainConfig(), algorithm="fednova")


class Headed(nn.Module):
    """(x w) s + t in float64: a representation w, and a head (s, t) that stays on the device."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64))
        self.head = nn.Linear(1, 1, dtype=torch.float64)
        with torch.no_grad():
            self.head.weight.fill_(0.5)
            self.head.bias.fill_(0.25)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.head((x.double() @ self.w)[:, None])
        return outputs[:, 0]


class TestFedRep(AlgorithmLaws):
    name = "fedrep"
    settings: ClassVar[dict[str, Any]] = {"head_epochs": 4}

    def change(self, config: TrainConfig, **settings: Any) -> Weights:
        model = Headed()
        before = model.w.detach().clone()
        given = self.settings | settings
        learning.fit(model, examples(), config, squares, algorithm=self.name, private="head.*", **given)
        changed: Weights = (model.w.detach() - before).numpy()
        return changed

    def naive_round(self, config: TrainConfig, momentum: float) -> Weights:
        data = examples()
        w, head = np.array([0.5, -1.0, 2.0]), np.array([0.5, 0.25])

        def passes(count: int, of_head: bool) -> None:  # noqa: FBT001
            nonlocal w, head
            order_of = np.random.default_rng([config.seed, config.version])
            velocity = np.zeros(2 if of_head else FEATURES)
            for _ in range(count):
                order = order_of.permutation(len(data))
                for start in range(0, len(data), config.batch_size):
                    batch = order[start : start + config.batch_size]
                    x, y = data.x[batch].astype(np.float64), data.y[batch].astype(np.float64)
                    error = 2 * ((x @ w) * head[0] + head[1] - y) / len(batch)
                    gradient = (
                        np.array([error @ (x @ w), error.sum()]) if of_head else head[0] * (x.T @ error)
                    )
                    velocity = momentum * velocity + gradient
                    if of_head:
                        head = head - config.learning_rate * velocity
                    else:
                        w = w - config.learning_rate * velocity

        passes(4, of_head=True)
        passes(config.epochs, of_head=False)
        changed: Weights = w - np.array([0.5, -1.0, 2.0])
        return changed

    def naive_gradient(self, gradient: Weights, weights: Weights, base: Weights) -> Weights:
        return gradient

    def naive_change(self, changed: Weights, done: Round) -> Weights:
        return changed

    def test_the_head_is_trained_while_the_body_stands_still_and_the_other_way_round(self) -> None:
        only_head, both = Headed(), Headed()
        config = TrainConfig(epochs=1, learning_rate=1e-9)
        learning.fit(
            only_head, examples(), config, squares, algorithm="fedrep", private="head.*", head_epochs=9
        )
        assert only_head.w.detach().numpy() == pytest.approx(both.w.detach().numpy(), abs=1e-6)
        assert all(one.requires_grad for one in only_head.parameters())

    def test_without_private_layers_there_is_no_head(self) -> None:
        with pytest.raises(UsageProblem, match="fedrep trains private layers first") as caught:
            change(TrainConfig(), algorithm="fedrep")
        assert "private=PRIVATE" in caught.value.hint

    def test_layers_that_stay_are_near_no_base_and_are_not_scaled(self) -> None:
        config = TrainConfig(epochs=3, batch_size=5, learning_rate=0.02)
        heads = []
        for settings in ({}, {"algorithm": "fednova", "tau_eff": 100.0}):
            model = Headed()
            learning.fit(model, examples(), config, squares, private="head.*", **settings)  # type: ignore[arg-type]
            heads.append(model.head.weight.item())
        assert heads[0] == heads[1]


def test_every_algorithm_is_held_to_the_laws() -> None:
    assert {one.name for one in AlgorithmLaws.__subclasses__()} == set(ALGORITHMS)


def test_an_unknown_algorithm_is_refused_with_what_was_meant() -> None:
    with pytest.raises(UsageProblem, match="there are fedavg, fedprox, fednova, fedrep") as caught:
        change(TrainConfig(), algorithm="fedproxx")
    assert "did you mean algorithm='fedprox'?" in caught.value.hint


def test_a_setting_of_another_algorithm_is_refused() -> None:
    with pytest.raises(UsageProblem, match="no setting 'mu'") as caught:
        change(TrainConfig(), mu=0.1)
    assert caught.value.error_id == "FLV-2207"


def test_a_files_config_says_it_all() -> None:
    said = {"epochs": 2, "algorithm": "fedprox", "mu": 0.7, "momentum": 0.5}
    config = config_from_overrides(said, where="")
    plain = TrainConfig(epochs=2)
    assert (
        change(config, **config.extra).tobytes()
        == change(plain, algorithm="fedprox", mu=0.7, momentum=0.5).tobytes()
    )
