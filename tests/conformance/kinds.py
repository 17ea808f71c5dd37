"""The laws of the kinds of models. Every kind inherits them: ``KindLaws`` with task files of its library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest

from aggregation.errors import UsageProblem
from learning.config import TrainConfig
from learning.kinds import kind_named, kind_of
from learning.tensors import initial_parameters
from learning.training import evaluate_parameters, train_locally
from schemas.tensor_files import raw_tensor
from tests.task_files import IDLE, written

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy.typing as npt

    from learning import Examples, Task


def between(flat: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A global model beside ``flat``, with digits that no narrow dtype has."""
    return flat + np.float32(0.003) * np.random.default_rng(0).random(flat.shape).astype(np.float32)


class KindLaws:
    """What holds for every kind, whatever its models are."""

    name: ClassVar[str]
    tasks: ClassVar[Mapping[str, str]]
    """Task files by a name, with ``data``, ``model``, ``train`` and ``evaluate``."""

    @pytest.fixture
    def texts(self) -> list[str]:
        return list(self.tasks.values())

    def examples(self, task: Task) -> Examples:
        return task.data().train.subset(np.arange(24))

    def test_its_models_are_known_to_be_its_own(self, texts: list[str], tmp_path: Path) -> None:
        for text in texts:
            task = written(tmp_path, text)
            assert task.kind is kind_named(self.name)
            assert kind_of(task.model(), "") is task.kind
            assert task.anatomy.kind == self.name == task.kind.name

    def test_a_layout_that_the_core_takes_and_that_is_the_same_each_time(
        self, texts: list[str], tmp_path: Path
    ) -> None:
        for text in texts:
            task = written(tmp_path, text)
            assert task.anatomy.layout.parameters == initial_parameters(task, 0).size
            assert task.kind.anatomy(task.fresh_model()).tensors == task.anatomy.tensors

    def test_the_first_model_follows_from_the_seed(self, texts: list[str], tmp_path: Path) -> None:
        for text in texts:
            task = written(tmp_path, text)
            assert initial_parameters(task, 3).tobytes() == initial_parameters(task, 3).tobytes()

    def test_what_is_loaded_is_held_to_the_nearest_value_of_the_dtype(
        self, texts: list[str], tmp_path: Path
    ) -> None:
        for text in texts:
            task = written(tmp_path, text)
            model, flat = task.fresh_model(), between(initial_parameters(task, 0))
            task.kind.load(model, task.anatomy, flat)
            once = task.kind.values(model, task.anatomy)
            assert np.abs(once - flat).max() <= 2.0**-8 * np.abs(flat).max()
            task.kind.load(model, task.anatomy, once.astype(np.float32))
            assert np.array_equal(task.kind.values(model, task.anatomy), once)

    def test_a_whole_state_comes_back_and_another_models_does_not(
        self, texts: list[str], tmp_path: Path
    ) -> None:
        for text in texts:
            task = written(tmp_path, text)
            held, flat = task.fresh_model(), between(initial_parameters(task, 0))
            task.kind.load(held, task.anatomy, flat)
            layout = task.anatomy.layout
            parts = np.split(task.kind.values(held, task.anatomy).astype(np.float32), layout.starts[1:-1])
            state = {
                spec.name: raw_tensor(part.reshape(spec.shape))
                for spec, part in zip(layout.tensors, parts, strict=True)
            } | dict(task.anatomy.frozen)
            other = task.fresh_model()
            task.kind.load_state(other, state)
            assert np.array_equal(task.kind.values(other, task.anatomy), task.kind.values(held, task.anatomy))
            first = layout.tensors[0]
            for wrong in (
                {name: raw for name, raw in state.items() if name != first.name},
                state | {"of another model": state[first.name]},
                state | {first.name: raw_tensor(np.zeros((*first.shape, 2), np.float32))},
            ):
                with pytest.raises(UsageProblem) as caught:
                    task.kind.load_state(other, wrong)
                assert caught.value.error_id == "FLV-2213"

    def test_values_are_a_copy(self, texts: list[str], tmp_path: Path) -> None:
        for text in texts:
            task = written(tmp_path, text)
            model = task.fresh_model()
            values = task.kind.values(model, task.anatomy)
            before = values.copy()
            task.kind.load(model, task.anatomy, np.full(values.size, 0.75, np.float32))
            assert np.array_equal(values, before)

    def test_an_idle_round_sends_exactly_nothing(self, texts: list[str], tmp_path: Path) -> None:
        for text in texts:
            task = written(tmp_path, text + IDLE)
            base = between(initial_parameters(task, 0))
            update = train_locally(task, base, self.examples(task), task.config).delta
            weights = task.anatomy.layout.trainable.parameters
            assert update.dtype == np.float32
            assert np.count_nonzero(update[:weights]) == 0
            assert np.array_equal(update[weights:], base[weights:])  # buffers travel as values

    def test_a_round_that_learns_sends_something_finite(self, texts: list[str], tmp_path: Path) -> None:
        for text in texts:
            task = written(tmp_path, text)
            delta = train_locally(task, initial_parameters(task, 0), self.examples(task), task.config).delta
            assert np.isfinite(delta).all()
            assert np.count_nonzero(delta) > 0

    def test_a_round_is_the_same_bits_whatever_came_before(self, texts: list[str], tmp_path: Path) -> None:
        for text in texts:
            task = written(tmp_path, text)
            base, config = initial_parameters(task, 0), TrainConfig(seed=1, version=2)
            first = train_locally(task, base, self.examples(task), config)
            evaluated = evaluate_parameters(task, base, self.examples(task))
            train_locally(task, between(base), self.examples(task), TrainConfig(seed=7))
            assert evaluate_parameters(task, base, self.examples(task)) == evaluated
            again = train_locally(task, base, self.examples(task), config)
            assert again.delta.tobytes() == first.delta.tobytes()
            assert again.metrics == first.metrics

    def test_a_fresh_model_shares_nothing_with_an_earlier_one(self, texts: list[str], tmp_path: Path) -> None:
        for text in texts:
            task = written(tmp_path, text)
            kept = task.fresh_model()
            before = task.kind.values(kept, task.anatomy)
            task.kind.load(task.fresh_model(), task.anatomy, np.full(before.size, 0.75, np.float32))
            assert np.array_equal(task.kind.values(kept, task.anatomy), before)
            assert np.array_equal(task.kind.values(task.fresh_model(), task.anatomy), before)

    def test_parameters_of_another_model_are_refused_and_change_nothing(
        self, texts: list[str], tmp_path: Path
    ) -> None:
        for text in texts:
            task = written(tmp_path, text)
            model, right = task.fresh_model(), initial_parameters(task, 0)
            before = task.kind.values(model, task.anatomy)
            wrongs: list[Any] = [right[:-1], right.astype(np.float64), right.reshape(1, -1)]
            for wrong in wrongs:
                with pytest.raises(UsageProblem) as caught:
                    task.kind.load(model, task.anatomy, wrong)
                assert caught.value.error_id == "FLV-2213"
            assert np.array_equal(task.kind.values(model, task.anatomy), before)
