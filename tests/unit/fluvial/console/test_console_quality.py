"""What the console says of a task's own metric: its value, the change, the best version, what a point cost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import click
import msgspec
import pytest

from fluvial.cli import cli
from fluvial.console.quality import (
    change_of,
    curve_points,
    in_words,
    metric_document,
    names_shown,
    quality_seen,
)
from fluvial.console.recent import Recent, SlotFacts
from fluvial.console.version import model_command
from fluvial.reading.quality import Quality
from fluvial.reading.spending import cost_per_point
from schemas.manifests import Metric
from tests.unit.fluvial.console.console_home import SLOT, genesis

MAE = Metric("mae", higher_is_better=False)
ACCURACY = Metric("accuracy", higher_is_better=True)


def evaluation(version: int, **fields: Any) -> dict[str, Any]:
    return {"kind": "evaluation", "version": version, "loss": 2.0, "seconds": 9.0, "accepted": 3, **fields}


def followed(*values: float | None, **named: str) -> Recent:
    recent = Recent({SLOT: SlotFacts()})
    for version, value in enumerate(values):
        recent.add_metric(evaluation(version, mae=value, rmse=5.0, **named))
    return recent


NAMED = {"metric": "mae", "better": "lower"}


def test_a_regression_is_shown_in_its_own_metric_and_direction() -> None:
    quality = quality_seen(None, followed(9.0, 3.0, 1.0, 2.0, **NAMED))
    assert metric_document(quality) == {
        "name": "mae",
        "better": "lower",
        "best": {"version": 2, "value": 1.0},
    }
    assert names_shown(quality) == ["mae", "loss"]
    assert quality.names == ["mae", "loss", "rmse"]
    assert [change_of(quality, version) for version in range(5)] == [None, -6.0, -2.0, 1.0, None]
    shown, of, every = curve_points(quality, ["mae", "loss"], 100)
    assert shown[0] == {"version": 1, "mae": 3.0, "loss": 2.0}
    assert (len(shown), of, every) == (3, 3, 1)


def test_a_genesis_says_it_before_any_evaluation_does() -> None:
    new = msgspec.structs.replace(
        genesis(), format="fluvial/genesis/v3", metric=Metric("rmse", higher_is_better=False)
    )
    assert quality_seen(new, followed(1.0, **NAMED)).name == "rmse"
    assert metric_document(quality_seen(new, followed())) == {"name": "rmse", "better": "lower", "best": None}
    assert metric_document(quality_seen(None, followed())) is None


def test_records_of_before_have_their_accuracy() -> None:
    recent = Recent({SLOT: SlotFacts()})
    recent.add_metric(evaluation(1, accuracy=0.5, auc=0.7))
    assert quality_seen(genesis(), recent).name == "accuracy"


def test_a_version_without_a_finite_value_has_none_and_no_change() -> None:
    quality = quality_seen(None, followed(9.0, None, 1.0, **NAMED))
    assert (quality.value(1), change_of(quality, 1), change_of(quality, 2)) == (None, None, None)
    assert curve_points(quality, ["mae"], 10)[0][0] == {"version": 1, "mae": None}


def test_a_thinned_curve_keeps_the_best_version() -> None:
    values = [10.0] * 1001
    values[778] = 1.0
    shown, of, every = curve_points(quality_seen(None, followed(*values, **NAMED)), ["mae"], 100)
    versions = [one["version"] for one in shown]
    assert 778 in versions and versions[-1] == 1000 and versions == sorted(versions)
    assert (len(versions), of, every) == (101, 1000, 10)


def test_of_a_hundred_numbers_the_metric_and_the_loss_are_kept() -> None:
    recent = Recent({SLOT: SlotFacts()})
    recent.add_metric(
        evaluation(1, zz=1.0, **{f"a{n}": 1.0 for n in range(100)}, metric="zz", better="lower")
    )
    own = recent.own.get(1) or {}
    assert len(own) == 32 and own["zz"] == 1.0 and own["loss"] == 2.0


@pytest.mark.parametrize(
    ("metric", "value", "words"),
    [(ACCURACY, 0.931, "accuracy 93.1 %"), (ACCURACY, 93.1, "accuracy 93.1000"), (MAE, -2.5, "mae -2.5000")],
)
def test_what_was_reached_in_words(metric: Metric, value: float, words: str) -> None:
    assert in_words(metric, value) == words


def qualities(metric: Metric, *values: float) -> Quality:
    return Quality(metric, {version: {metric.name: value} for version, value in enumerate(values)})


def test_a_point_costs_what_was_spent_until_the_best_version_by_what_was_gained() -> None:
    costs = {1: 1.0, 2: 2.0, 3: 4.0}
    assert cost_per_point(qualities(MAE, 9.0, 5.0, 3.0, 4.0), costs) == {
        "cost": 0.5,
        "point": 1.0,
        "gained": 6.0,
        "first": 1,
        "last": 2,
    }
    of_shares = cost_per_point(qualities(ACCURACY, 0.5, 0.6, 0.7, 0.9), costs)
    assert of_shares is not None and of_shares["point"] == 0.01
    assert of_shares["cost"] == pytest.approx(7.0 / 40)


@pytest.mark.parametrize(
    ("values", "costs"),
    [
        ((9.0, 9.5, 9.9), {1: 1.0, 2: 1.0}),
        ((9.0, 5.0, 3.0), {}),
        ((9.0, 5.0, 3.0, 1.0), {1: 1.0, 3: 1.0}),
    ],
    ids=["nothing gained", "no cost known", "a cost between is missing"],
)
def test_where_nothing_was_gained_or_not_all_is_known_no_price_is_made_up(
    values: tuple[float, ...], costs: dict[int, float]
) -> None:
    assert cost_per_point(qualities(MAE, *values), costs) is None


def minute(sequence: int, currency: object) -> dict[str, Any]:
    fields = {"kind": "region_minute", "region": "eu", "partition": 0, "minute_ms": 60_000, "bytes_up": 1}
    return {**fields, "sequence": sequence, "accepted": 1, "cost_total": 0.5, "currency": currency}


def test_costs_have_the_unit_of_the_price_list() -> None:
    recent, seen = followed(), []
    for number, currency in enumerate(("EUR", None, "USD")):
        seen.append(recent.currency)
        recent.add_metric(minute(number, currency))
    assert [*seen, recent.currency] == [None, "EUR", "EUR", "mixed units"]
    for number in range(3, 20):
        recent.add_metric(minute(number, "x" * 1000 + str(number)))
    assert len(recent.currencies) <= 4 and max(map(len, recent.currencies)) <= 8


def test_the_command_for_a_versions_model_can_be_typed_as_it_stands() -> None:
    page: Any = SimpleNamespace(say=lambda words: f"fluvial {words} --task many")
    words = model_command(page, 3).split()[1:]
    command: Any = cli.get_command(click.Context(cli), words[0])
    context = command.get_command(click.Context(command), words[1]).make_context(words[1], words[2:])
    assert (context.params["version"], context.params["task_name"]) == (3, "many")
