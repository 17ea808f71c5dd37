"""The shipped data sets and how examples are spread over devices."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from aggregation.errors import EnvironmentProblem, UsageProblem
from learning.datasets import Examples, digits, fashion, read_idx
from learning.partition import dirichlet_split, split_among_devices


def test_digits_are_scaled_and_split_in_a_fixed_stratified_way() -> None:
    data = digits()
    assert (len(data.train), len(data.test)) == (1442, 355)
    assert data.train.x.dtype == np.float32
    assert (data.train.x.min(), data.train.x.max()) == (0.0, 1.0)
    shares = np.bincount(data.test.y) / (np.bincount(data.test.y) + np.bincount(data.train.y))
    assert np.all(np.abs(shares - 0.2) < 0.01)


def test_digits_are_those_of_scikit_learn() -> None:
    x, y = load_digits(return_X_y=True)
    data = digits()
    assert np.isclose(data.train.x.sum() + data.test.x.sum(), x.sum() / 16.0, rtol=1e-5)
    assert np.array_equal(np.sort(np.concatenate([data.train.y, data.test.y])), np.sort(y))


def test_absent_fashion_files_are_named_with_the_install_command(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        fashion(folder=tmp_path)
    assert (caught.value.error_id, caught.value.hint) == ("FLV-2206", "apt-get install dataset-fashion-mnist")


@pytest.mark.needs("fashion-mnist")
def test_fashion_is_thinned_evenly_and_scaled() -> None:
    data = fashion(train_examples=1_000, test_examples=200)
    assert data.train.x.shape == (1_000, 1, 28, 28)
    assert data.test.x.shape == (200, 1, 28, 28)
    assert data.train.x.max() == 1.0
    assert set(data.train.y) == set(range(10))


@pytest.mark.parametrize(
    "content",
    [b"not gzip at all", gzip.compress(b"\0\0\x08\x01\0\0\0\x05abc"), gzip.compress(b"\1\0\x08\x01\0\0\0\0")],
    ids=["not gzip", "too short", "wrong magic"],
)
def test_a_damaged_idx_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.gz"
    path.write_bytes(content)
    with pytest.raises(EnvironmentProblem, match="damaged") as caught:
        read_idx(path)
    assert caught.value.error_id == "FLV-2214"


def test_an_idx_file_has_the_shape_of_its_header(tmp_path: Path) -> None:
    path = tmp_path / "small.gz"
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3]) + bytes(range(6))))
    assert read_idx(path).tolist() == [[0, 1, 2], [3, 4, 5]]


@settings(deadline=None, max_examples=40)
@given(
    labels=st.lists(st.integers(0, 5), min_size=20, max_size=120),
    devices=st.integers(1, 10),
    alpha=st.sampled_from([1e-3, 0.3, 1.0, 1e3]),
    seed=st.integers(0, 2**32),
)
def test_every_example_goes_to_exactly_one_device(
    labels: list[int], devices: int, alpha: float, seed: int
) -> None:
    parts = dirichlet_split(np.array(labels, dtype=np.int64), devices, alpha, seed, 2)
    assert sorted(np.concatenate(parts)) == list(range(len(labels)))
    assert min(map(len, parts)) >= max(2, len(labels) // devices)
    assert all(part.dtype == np.int64 for part in parts)


def test_the_same_seed_gives_the_same_split() -> None:
    labels = digits().train.labels
    first, second = dirichlet_split(labels, 40, 1.0, 7, 8), dirichlet_split(labels, 40, 1.0, 7, 8)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    other = dirichlet_split(labels, 40, 1.0, 8, 8)
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_a_smaller_alpha_gives_devices_fewer_classes() -> None:
    labels = digits().train.labels

    def largest_share(alpha: float) -> float:
        parts = dirichlet_split(labels, 20, alpha, 0, 8)
        return float(np.mean([np.bincount(labels[part]).max() / len(part) for part in parts]))

    assert largest_share(100.0) < 0.25 < largest_share(1.0) < largest_share(0.1)


@pytest.mark.parametrize(
    ("devices", "alpha", "examples_min"),
    [(0, 1.0, 1), (3, 0.0, 1), (3, float("inf"), 1), (3, 1.0, 4), (11, 1.0, 0)],
)
def test_an_impossible_split_is_refused(devices: int, alpha: float, examples_min: int) -> None:
    with pytest.raises(UsageProblem) as caught:
        dirichlet_split(np.zeros(10, dtype=np.int64), devices, alpha, 0, examples_min)
    assert caught.value.error_id == "FLV-2212"


def test_targets_that_are_not_classes_are_split_evenly() -> None:
    examples = Examples(np.arange(10.0).reshape(10, 1), np.linspace(0.0, 1.0, 10))
    shards = split_among_devices(examples, 3, 1.0, 0)
    assert sorted(len(shard) for shard in shards) == [3, 3, 4]
    with pytest.raises(UsageProblem, match="class labels"):
        _ = examples.labels
