"""A merge in one sweep has the bits of the formulas, whatever the pieces; so have adding windows and averaging."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

from aggregation.errors import IntegrityProblem
from aggregation.layout import Layout
from aggregation.optimizers import initial_state
from aggregation.server import kernels
from aggregation.server import merge as merging
from aggregation.server.averaging import exact_mean
from aggregation.server.merge import Checkpoint, merge
from aggregation.server.totals import add_sums
from fluvial.proof.checker import arithmetic
from tests import naive
from tests.factories import policy

LAYOUT = Layout.of([("a", (7,)), ("b", (3, 5)), ("c", ()), ("d", (31, 3)), ("e", (1,))])
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SERVERS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "learning_rate": 0.3},
    "momentum": {"optimizer": "sgd", "momentum": 0.9},
    "adam": {"optimizer": "adam", "beta_2": 0.999},
    "yogi": {"optimizer": "yogi", "learning_rate": 0.013},
    "by weights": {"optimizer": "adam", "divide_by": "weights"},
    "nesterov": {"momentum": 0.9, "nesterov": True, "learning_rate": 0.1},
    "adagrad": {"optimizer": "adagrad", "learning_rate": 0.05},
    "amsgrad": {"optimizer": "amsgrad", "beta_2": 0.9},
}
EXTREME = (-(1 << 62), (1 << 62) - 1, 0, 1, -1, 1 << 53, (1 << 53) + 1)


def totals(seed: int) -> npt.NDArray[np.int64]:
    rng = np.random.default_rng(seed)
    total = rng.integers(-(1 << 40), 1 << 40, LAYOUT.parameters) >> rng.integers(0, 40, LAYOUT.parameters)
    total[rng.choice(total.size, len(EXTREME), replace=False)] = EXTREME
    return total


def bytes_of(arrays: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in arrays.items()}


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("piece", [1, 8, 32, 1 << 15])
def test_versions_have_the_checkers_bits_whatever_the_pieces(
    monkeypatch: pytest.MonkeyPatch, server: str, piece: int
) -> None:
    monkeypatch.setattr(merging, "PIECE_ELEMENTS", piece)
    rules = policy(format="fluvial/policy/v5", server=SERVERS[server])
    server_keys = {key: getattr(rules.server, key) for key in rules.server.__struct_fields__}
    document = {"server": server_keys, "fixed_point": {"exponent": rules.fixed_point.exponent}}
    spans = zip(LAYOUT.tensors, pairwise(LAYOUT.starts.tolist()), strict=True)
    layout = [arithmetic.Tensor(spec.name, spec.shape, *span) for spec, span in spans]
    model = np.random.default_rng(7).standard_normal(LAYOUT.parameters).astype(np.float32)
    ours: Checkpoint = Checkpoint(model, {})
    theirs: tuple[Any, Any] = (model, {})
    for seed in range(4):
        total, weight = totals(seed), 9 << 16
        step = merge(
            ours, total, updates=11, weight_total=weight, policy=rules, server=rules.server, layout=LAYOUT
        )
        delta = arithmetic.mean_delta(total, arithmetic.divisor_of(11, weight, document), document)
        after, state = arithmetic.server_step(server_keys, *theirs, delta, server_keys["learning_rate"])
        reference = arithmetic.direction_from(arithmetic.direction_bytes(theirs[0], after, layout), layout)
        assert step.checkpoint.model.tobytes() == after.tobytes()
        assert bytes_of(step.checkpoint.optimizer) == bytes_of(state)
        assert step.reference.q.tolist() == np.concatenate(reference.q).tolist()
        assert (list(step.reference.scales), step.reference.norm) == (list(reference.scales), reference.norm)
        ours, theirs = step.checkpoint, (after, state)


@pytest.mark.filterwarnings("ignore:overflow")  # without the compiler numpy's scalars say so
@pytest.mark.parametrize("seed", range(3))
def test_adding_a_window_equals_its_twin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for size in (1, 7, 64, 1001):
        total, one = (rng.integers(-(1 << 63), (1 << 63) - 1, size) for _ in range(2))
        expected, reach = naive.add_windows(total, one)
        assert kernels.add_into(total, one) == reach
        assert total.tolist() == expected


@pytest.mark.parametrize("bound", [-(1 << 63), (1 << 63) - 1])
def test_the_reach_of_a_window_is_known_at_int64s_very_ends(bound: int) -> None:
    one = np.array([3, bound, -2], dtype=np.int64)
    assert kernels.add_into(np.zeros(3, dtype=np.int64), one) == (min(bound, -2), max(bound, 3))
    if bound < 0:
        with pytest.raises(IntegrityProblem, match="the bound"):
            add_sums([one], 3)


@pytest.mark.parametrize("exponent", [0, 20, 32, 40])
@pytest.mark.parametrize("divisor", [1.0, 3.0, 1000.0, 7 / 65536])
def test_the_mean_equals_its_twin(exponent: int, divisor: float) -> None:
    for seed in range(3):
        total = totals(seed)
        mean = np.full(total.size, np.nan, dtype=np.float32)
        kernels.mean_into(mean, total, 1.0 / float(1 << exponent), divisor)
        expected = [float(np.float32(one)) for one in naive.mean_delta(total, exponent, divisor)]
        assert mean.tolist() == expected


@pytest.mark.parametrize("count", [1, 2, 5, 9, 10])
@pytest.mark.parametrize("piece", [1, 5, 1 << 15])
def test_averaging_models_equals_its_twin_in_any_order(
    monkeypatch: pytest.MonkeyPatch, count: int, piece: int
) -> None:
    monkeypatch.setattr("aggregation.server.averaging.PIECE_ELEMENTS", piece)
    rng = np.random.default_rng(count)
    models = [
        (rng.standard_normal(37) * 10.0 ** rng.integers(-9, 7, 37)).astype(np.float32) for _ in range(count)
    ]
    expected = naive.exact_mean(models, 32)
    assert exact_mean(models, 32).tolist() == expected
    assert exact_mean(models[::-1], 32).tolist() == expected


@pytest.mark.filterwarnings("ignore:invalid value")  # without the compiler numpy's scalars say so
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3.4e38])
def test_models_whose_sums_would_not_fit_are_refused(bad: float) -> None:
    models = [np.zeros(5, dtype=np.float32) for _ in range(3)]
    models[1][3] = bad
    with pytest.raises(IntegrityProblem) as caught:
        exact_mean(models, 32)
    assert caught.value.error_id == "FLV-3004"


def test_averaging_leaves_the_models_as_they_are() -> None:
    models = [np.full(3, 2.0, dtype=np.float32), np.full(3, 5.0, dtype=np.float32)]
    assert exact_mean(models, 32).tolist() == [3.5] * 3
    assert [model.tolist() for model in models] == [[2.0] * 3, [5.0] * 3]


def peak_bytes(action: Callable[[], object]) -> int:
    tracemalloc.start()
    kept = action()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert kept is not None
    return peak


compiled = pytest.mark.skipif(
    not hasattr(kernels.add_into, "py_func"),
    reason="the interpreter's numbers would count, and take a minute",
)


@compiled
@pytest.mark.parametrize(("server", "arrays"), [("sgd", 0), ("momentum", 1), ("adam", 2), ("yogi", 2)])
def test_a_merge_allocates_what_it_returns_and_hardly_more(server: str, arrays: int) -> None:
    size, rules = 1 << 18, policy(format="fluvial/policy/v2", server=SERVERS[server])
    layout = Layout.of([("w", (size - 1,)), ("b", ())])
    state = {name: np.zeros(size) for name in initial_state(rules.server, 1)}
    parent, total = Checkpoint(np.zeros(size, dtype=np.float32), state), np.ones(size, dtype=np.int64)

    def step() -> object:
        return merge(
            parent, total, updates=1, weight_total=1 << 16, policy=rules, server=rules.server, layout=layout
        )

    step()  # loads the loops
    returned = size * (4 + 8 * arrays + 1)
    assert returned <= peak_bytes(step) < returned + size


@compiled
def test_adding_windows_holds_the_sums_and_one_window() -> None:
    size = 1 << 17
    windows = (np.full(size, n, dtype=np.int64) for n in range(5))
    add_sums([np.zeros(1, dtype=np.int64)], 1)
    assert (
        peak_bytes(lambda: add_sums(windows, size)) < 3.1 * 8 * size
    )  # as the next one comes, the last one goes
