"""When a run has trained enough: by a number that is reached, whichever way is better, or that no longer improves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from aggregation.errors import UsageProblem
from fluvial.cli import main
from fluvial.reading.quality import Quality
from fluvial.session.aim import Aim, aim_of, parse_until
from fluvial.session.summary import aim_lines
from schemas.manifests import Metric

if TYPE_CHECKING:
    from pathlib import Path

ACCURACY = Metric("accuracy", higher_is_better=True)
R2 = Metric("r2", higher_is_better=True)


def quality(metric: Metric, *values: dict[str, float]) -> Quality:
    """Of versions 0, 1, 2, ..."""
    return Quality(metric, dict(enumerate(values)))


def accuracies(*values: float) -> Quality:
    return quality(ACCURACY, *({"accuracy": value, "loss": 1.0} for value in values))


@pytest.mark.parametrize(
    ("text", "until"),
    [("accuracy=0.95", ("accuracy", 0.95)), (" mae = 1e-2", ("mae", 0.01)), ("f1@0=1=2", ("f1@0=1", 2.0))],
)
def test_an_aim_is_a_name_and_a_number(text: str, until: tuple[str, float]) -> None:
    assert parse_until(text) == until
    assert parse_until(None) is None


@pytest.mark.parametrize(
    "text", ["accuracy", "accuracy=", "=0.9", "accuracy=high", "accuracy=nan", "accuracy=inf", ""]
)
def test_an_aim_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        parse_until(text)
    assert caught.value.error_id == "FLV-2247"


def test_the_first_version_that_is_as_good_ends_the_run() -> None:
    aim = aim_of("accuracy=0.9", 0, ACCURACY, "mine.py")
    assert aim.ends(accuracies(0.1, 0.5, 0.89)) == ""
    assert "version 2 reaches accuracy 0.9000" in aim.ends(accuracies(0.1, 0.5, 0.9, 0.95))
    assert aim.reached(accuracies(0.1, 0.5, 0.9, 0.95)) == (2, 0.9)


def test_where_lower_is_better_the_run_ends_below() -> None:
    aim = aim_of("mae=0.1", 0, R2, "mine.py")
    falling = quality(R2, {"mae": 5.0, "r2": 0.0}, {"mae": 0.3, "r2": 0.2}, {"mae": 0.1, "r2": 0.3})
    assert aim.reached(falling) == (2, 0.1)
    assert aim.reached(quality(R2, {"mae": 5.0}, {"mae": 0.3})) is None


def test_the_tasks_own_word_on_its_metric_goes_before_what_its_name_suggests() -> None:
    odd = Metric("accuracy", higher_is_better=False)
    aim = aim_of("accuracy=0.5", 0, odd, "mine.py")
    assert aim.reached(quality(odd, {"accuracy": 0.9}, {"accuracy": 0.6}, {"accuracy": 0.4})) == (2, 0.4)
    with pytest.raises(UsageProblem) as caught:
        aim_of("glorp=0.5", 0, None, "mine.py")
    assert caught.value.error_id == "FLV-2249" and 'METRIC = ("glorp", "lower")' in caught.value.hint


def test_the_first_model_reaches_nothing_and_what_is_not_evaluated_yet_ends_nothing() -> None:
    aim = aim_of("accuracy=0.5", 2, ACCURACY, "mine.py")
    assert aim.reached(accuracies(0.9)) is None
    for nothing in (Quality(None, {}), accuracies(0.9), quality(ACCURACY, {"loss": 1.0}, {})):
        assert aim.ends(nothing) == ""


def test_a_number_that_nothing_reports_is_named_with_the_nearest() -> None:
    aim = Aim(("acuracy", 0.5), higher_is_better=True)
    with pytest.raises(UsageProblem) as caught:
        aim.ends(accuracies(0.1, 0.2))
    assert caught.value.error_id == "FLV-2248" and "`--until accuracy=VALUE`" in caught.value.hint


@pytest.mark.parametrize(
    ("values", "first", "ends"),
    [
        ((0.1, 0.5, 0.4), 0, False),
        ((0.1, 0.5, 0.4, 0.5), 0, True),
        ((0.1, 0.5, 0.4, 0.6), 0, False),
        ((0.9, 0.5, 0.4), 0, False),
        ((0.1, 0.9, 0.4, 0.5, 0.6), 3, False),
        ((0.1, 0.9, 0.4, 0.5, 0.6, 0.7), 3, True),
    ],
)
def test_patience_ends_a_run_that_no_longer_improves(
    values: tuple[float, ...], first: int, *, ends: bool
) -> None:
    assert bool(Aim(patience=2).ends(accuracies(*values), first_version=first)) is ends


def test_the_summary_says_whether_it_was_reached() -> None:
    aim = aim_of("accuracy=0.9", 0, ACCURACY, "mine.py")
    assert aim_lines(aim, accuracies(0.1, 0.95)) == [
        "until      accuracy=0.9 is reached, by version 1 with 0.9500"
    ]
    assert "is not reached" in aim_lines(aim, accuracies(0.1, 0.5))[0]
    assert aim_lines(Aim(), accuracies(0.1)) == [] and Aim().document(accuracies(0.1)) is None


def simulated(tmp_path: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any, str]:
    path = tmp_path / "mine.py"
    if not path.exists():
        assert main(["new", "mine"]) == 0
        capsys.readouterr()
    code = main(["run", "mine.py", "--simulate", "--versions", "6", "--devices", "6", "--json", *arguments])
    out, err = capsys.readouterr()
    return code, json.loads(out), err


def test_a_simulation_ends_when_it_is_good_enough(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, found, err = simulated(tmp_path, capsys, "--until", "accuracy=0.6")
    reached = found["until"]["reached"]
    assert code == 0 and found["versions"] == reached["version"] < 6 and reached["value"] >= 0.6
    assert "trained enough: version" in err
    code, found, _ = simulated(tmp_path, capsys, "--until", "loss=0.0000001", "--no-check", "--versions", "2")
    assert (code, found["versions"], found["until"]["better"], found["until"]["reached"]) == (
        0,
        2,
        "lower",
        None,
    )
    for missing in ("f1=0.6", "acuracy=0.6", "glorp=1"):
        code, found, _ = simulated(tmp_path, capsys, "--until", missing)
        assert code == 4 and found["error"]["id"] == "FLV-2248"
