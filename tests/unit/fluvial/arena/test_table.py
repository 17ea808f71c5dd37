"""The table: what is lost is against a defence's own clean run, and every form of it says the same."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from fluvial.arena.grid import Cell, Plan, Setting
from fluvial.arena.measures import Measures, mean_of
from fluvial.arena.page import MARKS, heat_of, render
from fluvial.arena.table import document, rows, summary, tables
from fluvial.cli import cli

if TYPE_CHECKING:
    from pathlib import Path

PLAN = Plan(
    alphas=(0.5,),
    shares=(0.2,),
    attacks=("sign-flip", "backdoor-patch"),
    defences=("undefended", "krum"),
    seeds=1,
)
SETTING = Setting("digits", 0.5, 0.2)


def measures(accuracy: float, success: float | None = None, **refused: float) -> Measures:
    return Measures(accuracy, 0.01, success, refused, 0.2, 0.1, 50.0, 1000.0, 40.0)


CELLS = [
    Cell(SETTING, "none", "undefended", measures(0.9)),
    Cell(SETTING, "none", "krum", measures(0.8, weightless=0.5)),
    Cell(SETTING, "sign-flip", "undefended", measures(0.5)),
    Cell(SETTING, "sign-flip", "krum", measures(0.79)),
    Cell(SETTING, "backdoor-patch", "undefended", measures(0.9, 0.97)),
    Cell(SETTING, "backdoor-patch", "krum", measures(0.8, 0.01, anomalous=0.25, too_stale=0.25)),
]


def test_what_is_lost_is_against_the_defences_own_clean_run() -> None:
    (table,) = tables(PLAN, CELLS)
    assert table.lost("sign-flip", "undefended") == pytest.approx(40.0)
    assert table.lost("sign-flip", "krum") == pytest.approx(1.0)
    assert rows(table)[2] == ["backdoor-patch", "0.900 (97 %)", "0.800 (1 %) -50%"]
    assert summary(table)[0][:3] == ["undefended", "0.900", "40.0 sign-flip"]
    assert summary(table)[1][5:] == ["1 %", "50.0 %", "20 %"]


def test_means_of_seeds_count_a_missing_reason_as_none() -> None:
    mean = mean_of([measures(0.5, anomalous=0.4), measures(0.7, 0.5)])
    assert mean.accuracy == pytest.approx(0.6)
    assert (mean.success, mean.refused) == (0.5, {"anomalous": 0.2})


def test_a_backdoor_that_works_is_as_hot_as_points_that_are_lost() -> None:
    assert [heat_of(0.0, None), heat_of(3.0, 0.0), heat_of(0.0, 0.97)] == [0, 1, len(MARKS) - 1]


def test_the_page_and_the_document_have_every_cell() -> None:
    found = tables(PLAN, CELLS)
    page, told = render(PLAN, found, "c" * 64), document(PLAN, found, "c" * 64)
    assert len(told["tables"][0]["cells"]) == len(CELLS)
    assert page.count('<td class="heat-') == len(CELLS)
    assert "anomalous 25.0 %, too_stale 25.0 %" in page and "http" not in page.partition("<body>")[2]
    assert told["defences"]["krum"]["source"].startswith("Blanchard et al. 2017")


def test_the_command_prints_one_document_and_writes_the_page(tmp_path: Path) -> None:
    words = [
        "--home",
        str(tmp_path),
        "arena",
        "--attacks",
        "sign-flip",
        "--defences",
        "undefended",
        "--quick",
    ]
    done = CliRunner().invoke(cli, [*words, "--json", "--report", str(tmp_path / "arena.html")])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [one["attack"] for one in told["tables"][0]["cells"]] == ["none", "sign-flip"]
    assert (tmp_path / "arena.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    "words",
    [
        ["--attacks", "nonsense"],
        ["--defences", "nonsense"],
        ["--task", "mnist"],
        ["--malicious", "1.5"],
        ["--dirichlet", "x"],
    ],
)
def test_what_the_arena_does_not_know_is_said(words: list[str]) -> None:
    done = CliRunner().invoke(cli, ["arena", *words], standalone_mode=False)
    assert "FLV-6440" in f"{done.output}{done.exception}"
