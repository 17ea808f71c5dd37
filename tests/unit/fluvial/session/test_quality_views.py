"""Every view of a run shows the task's own metric, whatever it is called and whichever way is better."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from fluvial.export.tap import line_of
from fluvial.reading.progress import RunFacts
from fluvial.reading.quality import Quality, in_digits, quality_of
from fluvial.session.progress_view import live_panel, plain_line, version_line
from fluvial.session.report.render import render
from fluvial.session.summary import document, quality_lines, summarize
from fluvial.terminal.output import Output
from schemas.manifests import Metric
from tests.unit.fluvial.session.test_report import COMMAND, result

if TYPE_CHECKING:
    from pathlib import Path


class Case(NamedTuple):
    name: str
    better: str
    values: tuple[float, ...]
    last: str
    best: str


CASES = [
    Case("r2", "higher", (-3.2, 0.93, 0.5), "0.5000", "0.9300 at version 1"),
    Case("mae", "lower", (250_000.0, 1.25, 3.5), "3.5000", "1.2500 at version 1"),
    Case("rmse", "lower", (1.0, 2e-5, 4e-5), "4e-05", "2e-05 at version 1"),
    Case("R2 score", "higher", (-3.2, 0.93, 0.5), "0.5000", "0.9300 at version 1"),
    Case("accuracy", "higher", (0.1, 0.93, 0.9), "0.9000", "0.9300 at version 1"),
    Case("loss", "lower", (9.0, 0.2, 0.4), "0.4000", "0.2000 at version 1"),
]
pytestmark = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


def record(case: Case, version: int) -> dict[str, Any]:
    return {
        "kind": "evaluation",
        "version": version,
        "loss": 2.0,
        "other": 7.0,
        case.name: case.values[version],
        "metric": case.name,
        "better": case.better,
        "seconds": 1.0,
        "accepted": 3,
    }


def facts(case: Case) -> RunFacts:
    made = RunFacts()
    for version in range(3):
        made.add_evaluation(record(case, version))
    return made


def test_lines_and_panel(case: Case) -> None:
    made = facts(case)
    line = version_line(made.curve()[-1], 9, made.quality().name)
    assert line.startswith(f"version 2/9  {case.name} {case.last}")
    assert ("  loss 2.0000" in line) == (case.name != "loss")
    assert f"  {case.name} {in_digits(case.values[-1], 3)} " in plain_line("training", 9, made, [])
    panel: Any = live_panel("t", "training", 9, made, [], seconds=1.0)
    assert f"{case.name} {case.last}" in str(panel.renderable.renderables[1])


def test_summary_and_json(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = result(tmp_path, facts=facts(case))
    summarize(made, Output(), report=None)
    shown = capsys.readouterr().out
    assert f"{case.name.ljust(10)} {case.last} after 2 versions" in shown
    assert f"best {case.best} ({case.better} is better)" in shown
    told = document(made)
    assert told["metric"] == {
        "name": case.name,
        "better": case.better,
        "last": {"version": 2, "value": case.values[2]},
        "best": {"version": 1, "value": case.values[1]},
    }
    assert told["metrics"][case.name] == list(case.values[1:])
    assert set(told["metrics"]) == {case.name, "loss", "other"}
    assert told["accuracy"] == (list(case.values[1:]) if case.name == "accuracy" else [])


def test_report(case: Case, tmp_path: Path) -> None:
    page = render(result(tmp_path, facts=facts(case)), command=COMMAND)
    text = html.unescape(re.sub(r"<[^>]+>", " ", page))
    assert re.search(rf"final {re.escape(case.name)}\s+{re.escape(case.last)}", text)
    assert re.search(rf"best {re.escape(case.name)}\s+{re.escape(case.best)}", text)
    titles = re.findall(r"<h3>(.*?)</h3>", page)
    own = f"{case.name[0].upper()}{case.name[1:]}"
    assert titles[:2] == ([own, "Loss"] if case.name != "loss" else ["Loss", "Other"])
    assert f"{case.better} is better" in text
    assert ("accuracy" in text.lower()) == (case.name == "accuracy")
    assert f'<th scope="col">{case.name}</th>' in page


def test_tap(case: Case) -> None:
    shown = line_of({"at_ms": 1000, f"{case.name}_worst_decile": 0.25, **record(case, 1)})
    assert f"{case.name} " in shown and f"{case.name}_worst_decile 0.25" in shown
    assert ("accuracy" in shown) == (case.name == "accuracy")


def test_a_genesis_goes_before_what_records_say(case: Case) -> None:
    other = Metric("other", higher_is_better=False)
    found = quality_of(other, {version: record(case, version) for version in range(3)})
    assert (found.name, found.best()) == ("other", (0, 7.0))
    named = quality_of(None, {version: record(case, version) for version in range(3)})
    assert named.name == case.name and named.best() == (1, case.values[1])
    assert named.names[0] == case.name


def test_what_is_not_known_is_said(case: Case) -> None:
    assert quality_lines(Quality(None, {}), 3) == [("versions   3", "bold")]
    made = RunFacts()
    assert made.quality().name == "metric" and made.quality().best() is None
    made.add_evaluation(record(case, 1) | {case.name: None})
    assert made.quality().value(1) is None and made.quality().name == case.name
    assert f" {case.name} " not in version_line(made.curve()[0], 9, case.name)
