"""A family's names stand in its table only: documents and the command line agree with it, and no code asks by name."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aggregation.codecs import CODECS, DEFAULT_CODEC
from aggregation.defences import DEFENCES
from aggregation.errors import UsageProblem
from aggregation.merges import MERGES
from aggregation.optimizers import OPTIMIZERS
from aggregation.policy import NEWEST, policy_from_mapping
from aggregation.schedules import SCHEDULES
from aggregation.selection import SELECTIONS
from aggregation.weights.divisors import DIVISORS
from aggregation.weights.staleness import STALENESS_KINDS
from fluvial.commands.devices import device
from fluvial.commands.fleet import fleet
from fluvial.proof.checker import codecs as checker_codecs
from fluvial.proof.checker import merges as checker_merges
from fluvial.proof.checker import optimizers as checker_optimizers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import click

ROOT = Path(__file__).parents[3]
FOLDERS = (
    "aggregation", "schemas", "backends", "learning", "producers", "stream_apps", "fluvial", "benchmarks", "tests/fuzz",
)  # fmt: skip
FAMILIES: dict[str, Mapping[str, object]] = {
    "codecs": CODECS,
    "staleness.kind": STALENESS_KINDS,
    "optimizer": OPTIMIZERS,
    "divide_by": DIVISORS,
    "defence.kind": DEFENCES,
    "merge.kind": MERGES,
    "selection.kind": SELECTIONS,
    "schedule.kind": SCHEDULES,
}
"""Every family by the policy key that names its members."""
INDEPENDENT = "fluvial/proof/checker/"
"""The checker shares nothing with the fold by contract, so it has names of its own."""


FIRST = {
    "codecs": ("int8", "float32"),
    "staleness.kind": ("constant", "polynomial", "hinge"),
    "optimizer": ("sgd", "adam"),
    "divide_by": ("updates", "weights"),
    "defence.kind": (),
    "merge.kind": (),
    "selection.kind": (),
    "schedule.kind": (),
}
"""The names of policies of the format v1, for ever."""


SECTIONS = {
    "codecs": "updates",
    "staleness.kind": "staleness",
    "optimizer": "server",
    "divide_by": "server",
    "defence.kind": "defence",
    "merge.kind": "merge",
    "selection.kind": "selection",
    "schedule.kind": "schedule",
}


def sections(key: str, name: str) -> dict[str, Any]:
    """A policy's sections in which ``key`` names one member."""
    section = SECTIONS[key]
    beside = {"buckets": MERGES[name].buckets_min} if key == "merge.kind" and name in MERGES else {}
    return {section: {key.rpartition(".")[2]: [name] if key == "codecs" else name} | beside}


@pytest.mark.parametrize(
    ("key", "name"), [(key, name) for key, family in FAMILIES.items() for name in family]
)
def test_every_member_may_stand_in_a_policy_of_the_newest_format_and_the_first_ones_in_v1(
    key: str, name: str
) -> None:
    assert policy_from_mapping(sections(key, name)).format == NEWEST
    first = sections(key, name) | {"format": "fluvial/policy/v1"}
    if name in FIRST[key]:
        assert policy_from_mapping(first).format == "fluvial/policy/v1"
    else:
        later = not FIRST[key]
        refused = SECTIONS[key] if later else f"'{name}'"
        with pytest.raises(UsageProblem, match=refused) as caught:
            policy_from_mapping(first)
        assert caught.value.error_id == "FLV-2001"


@pytest.mark.parametrize("key", FAMILIES)
def test_a_name_that_no_member_has_is_refused_with_the_names_that_there_are(key: str) -> None:
    with pytest.raises(UsageProblem, match=f"'nothing'.*{', '.join(FAMILIES[key])}") as caught:
        policy_from_mapping(sections(key, "nothing"))
    assert caught.value.error_id == "FLV-2001"


@pytest.mark.parametrize("key", FAMILIES)
def test_the_policys_page_lists_exactly_the_members_that_there_are(key: str) -> None:
    page = (ROOT / "docs" / "policy.md").read_text()
    begin = page.index(f"## `[{SECTIONS[key]}]`")
    section = page[begin : page.find("\n## ", begin)]
    (row,) = re.findall(rf"^\| `{key.rpartition('.')[2]}` \|[^|]*\|[^|]*\|([^|]*)\|", section, re.MULTILINE)
    assert re.findall(r"`(\w+)`", row) == list(FAMILIES[key])


@pytest.mark.parametrize("command", [fleet, device.commands["publish"], device.commands["run"]])
def test_the_command_line_offers_exactly_the_codecs_that_there_are(command: click.Command) -> None:
    (option,) = [one for one in command.params if one.name == "codec"]
    assert option.type.to_info_dict()["choices"] == tuple(CODECS)
    assert option.default == DEFAULT_CODEC


def test_the_independent_checker_knows_every_member() -> None:
    assert set(checker_codecs.FORMS) == set(CODECS)
    assert set(checker_optimizers.OPTIMIZERS) == set(OPTIMIZERS)
    assert set(checker_merges.MERGES) == set(MERGES)


def test_no_code_compares_with_a_members_name() -> None:
    """``if codec == "int8"`` and ``case "adam"`` work for the members of their day, and for a new one by halves."""
    names = {*CODECS, *OPTIMIZERS, *STALENESS_KINDS, *DIVISORS, *DEFENCES, *MERGES, *SELECTIONS, *SCHEDULES}
    found = [
        f"{path.relative_to(ROOT)}:{line} compares with {name!r}"
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        if not path.relative_to(ROOT).as_posix().startswith(INDEPENDENT)
        for line, name in compared_with(ast.parse(path.read_text()))
        if name in names
    ]
    assert found == []


def compared_with(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The texts that a module compares anything with, and where."""
    for node in ast.walk(tree):
        sides: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            sides = [node.value]
        for side in sides:
            texts = side.elts if isinstance(side, ast.Tuple | ast.List | ast.Set) else [side]
            for text in texts:
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    yield text.lineno, text.value
