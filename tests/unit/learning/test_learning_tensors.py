"""A model as one flat vector: what is in it, in which order, and that it comes back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from aggregation.errors import UsageProblem
from learning.task import load_task
from learning.tensors import initial_parameters, layout_of, load_parameters, parameters_of


def test_the_layout_is_state_dict_order_without_integer_buffers() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    assert layout_of(model) == [
        ("0.weight", (2, 3)),
        ("0.bias", (2,)),
        ("1.weight", (2,)),
        ("1.bias", (2,)),
        ("1.running_mean", (2,), "buffers"),
        ("1.running_var", (2,), "buffers"),
    ]


def test_the_flat_vector_is_c_order_in_layout_order() -> None:
    model = nn.Linear(3, 2)
    flat = parameters_of(model)
    assert flat.dtype == np.float32
    assert flat.tobytes() == model.weight.detach().numpy().tobytes() + model.bias.detach().numpy().tobytes()


def test_the_flat_vector_is_a_copy() -> None:
    model = nn.Linear(3, 2)
    flat = parameters_of(model)
    flat[:] = 7.0
    assert not np.array_equal(parameters_of(model), flat)


def test_loading_what_was_read_gives_the_same_model() -> None:
    source, target = (
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)),
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)),
    )
    load_parameters(target, parameters_of(source))
    assert parameters_of(target).tobytes() == parameters_of(source).tobytes()


def test_a_read_only_vector_can_be_loaded() -> None:
    flat = np.frombuffer(np.arange(8, dtype=np.float32).tobytes(), dtype=np.float32)
    model = nn.Linear(3, 2)
    load_parameters(model, flat)
    assert np.array_equal(parameters_of(model), flat)


def test_double_and_half_parameters_travel_as_float32() -> None:
    model = nn.Sequential(nn.Linear(2, 2, dtype=torch.float64), nn.Linear(2, 2, dtype=torch.bfloat16))
    flat = np.arange(12, dtype=np.float32)
    load_parameters(model, flat)
    assert np.array_equal(parameters_of(model), flat)
    assert model[1].weight.dtype == torch.bfloat16


def test_tied_weights_count_once() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    assert layout_of(model) == [("0.weight", (2, 2))]


def test_a_vector_stored_transposed_is_written_in_c_order() -> None:
    model = nn.Linear(2, 2, bias=False)
    model.weight = nn.Parameter(torch.arange(4.0).reshape(2, 2).T)
    assert list(parameters_of(model)) == [0.0, 2.0, 1.0, 3.0]
    load_parameters(model, np.array([5, 6, 7, 8], dtype=np.float32))
    assert model.weight.tolist() == [[5.0, 6.0], [7.0, 8.0]]


@pytest.mark.parametrize(
    "flat", [np.zeros(7, np.float32), np.zeros(8, np.float64), np.zeros((2, 4), np.float32)]
)
def test_a_vector_that_does_not_fit_is_refused_and_changes_nothing(flat: np.ndarray) -> None:
    model = nn.Linear(3, 2)
    before = parameters_of(model)
    with pytest.raises(UsageProblem, match="float32\\[8\\]") as caught:
        load_parameters(model, flat)
    assert caught.value.error_id == "FLV-2213"
    assert np.array_equal(parameters_of(model), before)


def test_initial_parameters_follow_from_the_seed_alone() -> None:
    task = load_task("digits")
    first = initial_parameters(task, 3)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert initial_parameters(task, 3).tobytes() == first.tobytes()
    assert torch.equal(before, torch.get_rng_state())
    assert initial_parameters(task, 4).tobytes() != first.tobytes()
