"""Data sets that lie in other packages: what is in them, whose it is, and what is said where one is missing."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest

from aggregation.errors import EnvironmentProblem
from learning.cohorts import cohort_ids
from learning.shipped import SHIPPED, WITH_PARTS
from learning.tables import breast_cancer, clinic_name, clinic_of, diabetes
from learning.task import load_task
from learning.tensors import initial_parameters
from learning.texts import LENGTH, LETTERS, PAGE_EXAMPLES_MIN, examples_of, help_pages
from learning.training import evaluate_parameters, train_locally

FASHION = "fashion"
"""Its files come with a Debian package of its own, and unpacking them takes seconds: see ``test_learning_data.py``."""


def test_those_with_natural_parts_are_listed() -> None:
    assert {name for name, load in SHIPPED.items() if name != FASHION and load().parts} == WITH_PARTS


def test_tumours_are_split_into_classes_alike_and_measured_in_standard_deviations() -> None:
    data = breast_cancer()
    assert (len(data.train), len(data.test)) == (456, 113)
    assert data.train.x.shape[1:] == (30,)
    shares = [np.mean(side.labels) for side in (data.train, data.test)]
    assert shares[0] == pytest.approx(shares[1], abs=0.01)
    every = np.concatenate([data.train.x, data.test.x])
    assert every.mean(axis=0) == pytest.approx(0.0, abs=1e-5)
    assert every.std(axis=0) == pytest.approx(1.0, abs=1e-4)


def test_clinics_differ_in_the_patients_that_they_have() -> None:
    data = diabetes()
    assert len(data.parts) == 10
    assert sum(map(len, data.parts.values())) + len(data.test) == 442
    for number, (name, part) in enumerate(data.parts.items()):
        assert name == clinic_name(number)
        assert set(clinic_of(part.x).tolist()) == {number}
        assert len({round(float(sex), 3) for sex in part.x[:, 1]}) == 1
    ages = [float(part.x[:, 0].mean()) for part in data.parts.values()]
    assert max(ages) - min(ages) > 2.0


def test_every_clinic_is_in_what_is_held_out_and_is_a_cohort() -> None:
    task = load_task("diabetes")
    ids = cohort_ids(task, task.data().test)
    assert ids is not None
    assert set(ids.tolist()) == set(range(10))


def test_pages_share_no_paragraph_and_the_next_letter_is_what_is_asked_for() -> None:
    data = help_pages()
    assert len(data.parts) >= 20
    assert min(map(len, data.parts.values())) >= PAGE_EXAMPLES_MIN * 0.8
    pieces = [piece.tobytes() for part in [*data.parts.values(), data.test] for piece in part.x]
    assert len(set(pieces)) > 0.97 * len(pieces)
    for part in data.parts.values():
        assert np.array_equal(part.x[:, 1:], part.y[:, :-1])


def test_text_becomes_codes_and_what_has_none_a_space() -> None:
    x, y = examples_of("a" + "é" * LENGTH + "\n" * 100)
    assert x.shape == y.shape == (3, LENGTH)
    assert [LETTERS[code] for code in x[0][:3]] == ["a", " ", " "]
    assert LETTERS[y[0][-1]] == " "
    assert LETTERS[y[1][0]] == "\n"
    assert all(len(side) == 0 for side in examples_of("short"))


@pytest.mark.parametrize("name", ["breast_cancer", "charlm", "diabetes"])
def test_a_round_on_a_devices_part_makes_the_model_better_for_it(name: str) -> None:
    task = load_task(name)
    data = task.data()
    part = next(iter(data.parts.values())) if data.parts else data.train.subset(np.arange(40))
    base = initial_parameters(task, 0)
    result = train_locally(task, base, part, task.config)
    before = evaluate_parameters(task, base, part)
    after = evaluate_parameters(task, base + result.delta, part)
    assert after["loss"] < before["loss"]
    assert set(after) >= {"loss", task.metric.name if task.metric else ""}


def test_what_is_missing_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *more: None if name == "sklearn" else real(name, *more)
    )
    for load in (breast_cancer.__wrapped__, diabetes.__wrapped__):
        with pytest.raises(EnvironmentProblem, match="data set is not on this machine") as caught:
            load()
        assert caught.value.error_id == "FLV-2206"
        assert caught.value.hint == "pip install scikit-learn"
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(EnvironmentProblem, match="without pydoc_data") as caught:
        help_pages.__wrapped__()
    assert caught.value.error_id == "FLV-2206"
