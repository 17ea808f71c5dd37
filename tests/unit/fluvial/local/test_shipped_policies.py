"""Policies that ship: each has a row and a paper, and trains; a name that nobody knows is told the known ones."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from fluvial.cli import main
from fluvial.commands.policy_option import SHIPPED, PolicyFile, named, shipped_policy
from fluvial.local.policies import layered_policy, quick_policy, read_policy_file
from fluvial.simulating.plan import Plan
from fluvial.simulating.population import Drawn
from fluvial.simulating.simulator import simulate_crowd

ROOT = Path(__file__).parents[4]


def test_every_file_ships_and_the_page_lists_them_all() -> None:
    assert {path.stem for path in (ROOT / "infra" / "policies").glob("*.toml")} == set(SHIPPED)
    page = (ROOT / "docs" / "learning.md").read_text(encoding="utf-8")
    begin = page.index("Seven policies ship")
    listed = re.findall(r"^\| `(\w+)` \|", page[begin : page.index("\n## ", begin)], re.MULTILINE)
    assert tuple(listed) == SHIPPED
    assert len(SHIPPED) == 7


@pytest.mark.parametrize("name", SHIPPED)
def test_it_names_its_paper_and_makes_versions(name: str) -> None:
    text = read_policy_file(shipped_policy(name))
    assert re.match(r"# \w+ \([^)]*(19|20)\d\d", text)
    policy = layered_policy(explicit=text, task={}, defaults=quick_policy(10))
    plan = Plan(population=Drawn(devices=40), synthetic=60, signed=False, versions=5, regions={"eu": 1})
    outcome = simulate_crowd(plan, policy)
    assert len(outcome.points) == 5
    assert outcome.ledger.outcomes["accepted"] > 0


def test_a_file_goes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert PolicyFile().convert("fedavg", None, None) == shipped_policy("fedavg")
    own = tmp_path / "fedavg"
    own.write_text("[buffer]\nupdates = 3\n", encoding="utf-8")
    assert PolicyFile().convert("fedavg", None, None) == Path("fedavg")
    assert (named(Path("fedavg")), named(shipped_policy("fedavg")), named(None)) == ("fedavg", "fedavg", "")
    assert named(Path("mine.toml")) == "mine.toml"


def test_a_name_that_nobody_knows_is_told_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(click.BadParameter):
        PolicyFile().convert("fedprox", None, None)
    assert main(["run", "digits", "--simulate", "--policy", "fedprox"]) != 0
    assert "fedbuff, fedavg, fedasync" in capsys.readouterr().err.replace("\n", " ")
