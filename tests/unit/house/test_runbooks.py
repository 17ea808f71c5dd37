"""Every runbook can be followed as it stands: its commands and Python parse, its ids, links and anchors exist."""

from __future__ import annotations

import ast
import importlib
import re
import textwrap
from functools import cache
from pathlib import Path

import pytest

from tests.unit.house.test_hints import problem_of

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "docs" / "runbooks"
PAGES = sorted(FOLDER.glob("*.md"))
INDEX = FOLDER / "README.md"
FAULTS = [page for page in PAGES if page != INDEX]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
QUOTED = re.compile(r"(?<!`)`(fluvial [^`]+)`(?!`)")
PYTHON = re.compile(r"<<'PY'\n(.*?)^PY$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)]+)\)")
ID = re.compile(r"FLV-\d{4}")
SECTIONS_MIN = ("What you see", "What to do", "How to see that it is over")
OTHERS = {"rolling-upgrade"}
"""Pages that are about no fault, and have a form of their own."""


@cache
def blocks(page: Path) -> tuple[str, ...]:
    """A page's shell blocks, without the indentation of a list around them."""
    return tuple(
        textwrap.dedent(body) for _, language, body in FENCE.findall(page.read_text()) if language == "bash"
    )


def commands(page: Path) -> list[str]:
    """Each `fluvial ...` of a page, without what belongs to the shell around it."""
    found = QUOTED.findall(page.read_text())
    for block in blocks(page):
        for line in PYTHON.sub("", block).splitlines():
            found += re.findall(r"^(?:\.venv/bin/)?(fluvial .*)$", line.strip())
    return [re.split(r" [|>&]|  +#", command)[0] for command in found]


def programs(page: Path) -> list[str]:
    """The Python that a page gives to an interpreter."""
    return [program for block in blocks(page) for program in PYTHON.findall(block)]


def anchors(page: Path) -> set[str]:
    """The fragments that a page's headings can be linked by."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def name_of(page: Path) -> str:
    return page.stem


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_its_commands_exist_with_these_options(page: Path) -> None:
    problems = {command: problem_of(command) for command in commands(page)}
    assert {command: problem for command, problem in problems.items() if problem} == {}


@pytest.mark.parametrize("page", FAULTS, ids=name_of)
def test_it_has_commands_to_run(page: Path) -> None:
    assert any(command.startswith("fluvial ") for command in commands(page))
    assert blocks(page)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_heredoc_is_a_whole_program(page: Path) -> None:
    assert len(programs(page)) == sum("<<" in block for block in blocks(page))
    for program in programs(page):
        ast.parse(program)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_its_python_imports_is_there(page: Path) -> None:
    for program in programs(page):
        for node in ast.walk(ast.parse(program)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module or "")
                missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
                assert missing == [], node.module


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_id_that_it_names_has_a_page(page: Path) -> None:
    named = set(ID.findall(page.read_text()))
    assert sorted(one for one in named if not (ROOT / "docs" / "errors" / f"{one}.md").is_file()) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_its_relative_links_resolve(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        if "://" in link:
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not fragment or fragment in anchors(target), link


@pytest.mark.parametrize("page", [one for one in FAULTS if one.stem not in OTHERS], ids=name_of)
def test_it_says_what_one_sees_what_to_do_and_when_it_is_over(page: Path) -> None:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    assert [section for section in SECTIONS_MIN if section not in headings] == []


def test_the_index_names_every_page_and_no_other() -> None:
    linked = {link.partition("#")[0] for link in LINK.findall(INDEX.read_text())}
    assert {one for one in linked if "/" not in one} == {page.name for page in FAULTS}


def test_a_hint_names_only_runbooks_that_exist() -> None:
    named = {
        name
        for package in ("backends", "fluvial", "producers", "schemas", "stream_apps")
        for path in (ROOT / package).rglob("*.py")
        for name in re.findall(r"docs/runbooks/([\w-]+\.md)", path.read_text())
    }
    assert named
    assert sorted(name for name in named if not (FOLDER / name).is_file()) == []
