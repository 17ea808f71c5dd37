"""The documentation site: pages are reached, no link is dead, nothing comes from elsewhere; what it shows exists."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from tests import error_index
from tests.unit.house.test_hints import problem_of

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
INDEXES = [DOCS / folder / "README.md" for folder in ("adr", "errors", "runbooks")]
ROOT_PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
CONTRACT = [
    ROOT / "schemas" / name for name in ("README.md", "documents.md", "meaning.md", "vectors/README.md")
]
TO_COME: set[str] = set()
"""Pages that are linked before they are there."""

BUILD_LIMIT_S = 240.0
LINK = re.compile(r"\[[^\]]*\]\(([^)#]+)[^)]*\)")
SHELL = re.compile(r"^ *```(?:ba)?sh\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
QUOTED = re.compile(r"(?<!`)`(fluvial [^`]+)`(?!`)")
PICTURES_AND_CODE = {"script": "src", "img": "src", "iframe": "src", "link": "href"}


class Tolerant(yaml.SafeLoader):
    """Reads mkdocs.yml without running what its tags name."""


Tolerant.add_multi_constructor("", lambda _loader, _suffix, _node: None)


@cache
def settings() -> dict[str, object]:
    return yaml.load((ROOT / "mkdocs.yml").read_text(), Tolerant)  # type: ignore[no-any-return]


def in_navigation(entry: object) -> set[Path]:
    if isinstance(entry, str):
        return {DOCS / entry}
    inner = entry.values() if isinstance(entry, dict) else entry
    return set().union(*map(in_navigation, inner))  # type: ignore[call-overload]


def linked_from(page: Path) -> set[Path]:
    return {(page.parent / link).resolve() for link in LINK.findall(page.read_text()) if "://" not in link}


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def test_every_page_is_in_the_navigation_or_in_an_index_that_is() -> None:
    navigation = in_navigation(settings()["nav"])
    assert set(INDEXES) <= navigation
    reached = navigation.union(*map(linked_from, INDEXES))
    assert [name_of(page) for page in PAGES if page not in reached] == []


def test_the_index_of_errors_is_that_of_the_pages() -> None:
    new = {error_index.group_of(error_id) for error_id in error_index.titles()} - set(error_index.GROUPS)
    assert not new, "name these groups in tests/error_index.py"
    assert error_index.INDEX.read_text() == error_index.text(), "python -m tests.error_index writes it"


def test_the_index_of_decisions_has_their_titles() -> None:
    pages = sorted((DOCS / "adr").glob("0*.md"))
    rows = [
        f"| [{int(page.name[:4])}]({page.name}) | {page.read_text().partition(chr(10))[0].partition(': ')[2]} |"
        for page in pages
    ]
    assert re.findall(r"^\| \[.*$", (DOCS / "adr" / "README.md").read_text(), re.MULTILINE) == rows


@pytest.mark.parametrize("page", [*ROOT_PAGES, *CONTRACT], ids=name_of)
def test_pages_beside_the_site_link_to_what_is_there(page: Path) -> None:
    dead = {name_of(target) for target in linked_from(page) if not target.exists()}
    assert dead <= TO_COME


@cache
def commands() -> list[tuple[str, str]]:
    found = set()
    for page in [*PAGES, *ROOT_PAGES]:
        text = page.read_text()
        lines = [line.strip() for block in SHELL.findall(text) for line in block.splitlines()]
        found |= {(name_of(page), line) for line in lines if line.startswith("fluvial ")}
        found |= {(name_of(page), " ".join(command.split())) for command in QUOTED.findall(text)}
    return sorted((where, re.split(r" [|>&]|  +#| # ", command)[0]) for where, command in found)


def test_every_command_that_a_page_shows_exists_with_its_options() -> None:
    problems = {where_command: problem_of(where_command[1]) for where_command in commands()}
    assert {key: problem for key, problem in problems.items() if problem} == {}
    assert len(commands()) > 100


def test_the_task_that_a_page_shows_is_one() -> None:
    program = next(text for text in PYTHON.findall((DOCS / "own-task.md").read_text()) if "def model" in text)
    functions = {node.name for node in ast.parse(program).body if isinstance(node, ast.FunctionDef)}
    assert functions == {"data", "model", "train", "evaluate"}


def test_what_a_page_shows_of_the_example_device_stands_in_it() -> None:
    program = [line.strip() for line in (DOCS / "examples" / "device.py").read_text().splitlines()]
    for shown in PYTHON.findall((DOCS / "devices.md").read_text()):
        assert [line for line in shown.splitlines() if line.strip() not in program] == []


def test_vendored_code_is_what_its_note_says() -> None:
    (said,) = re.findall(r"`([0-9a-f]{64})`", (ROOT / "infra" / "site" / "VENDORED.md").read_text())
    script = DOCS / "vendor" / "iframe-worker" / "iframe-worker.js"
    assert hashlib.sha256(script.read_bytes()).hexdigest() == said


class Fetched(HTMLParser):
    """What a browser fetches by itself for a page, and text that should have been marked up."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.unmarked: list[str] = []
        self._code = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._code += tag in {"code", "pre", "script", "style"}
        address = dict(attrs).get(PICTURES_AND_CODE.get(tag, ""))
        self.addresses += [address] if address else []

    def handle_endtag(self, tag: str) -> None:
        self._code -= tag in {"code", "pre", "script", "style"}

    def handle_data(self, data: str) -> None:
        if not self._code:
            self.unmarked += re.findall(r"```.*|^\| .*|\n(?:[*-]|\d+\.) .*|^::$", data)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},  # noqa: TID251
        capture_output=True,
        text=True,
        timeout=BUILD_LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_it_is_built_strictly(site: Path) -> None:
    assert settings()["strict"] is True
    for page in PAGES:
        built = page.relative_to(DOCS).with_suffix(".html")
        assert (site / (built.with_name("index.html") if page.name == "README.md" else built)).is_file()


def test_it_fetches_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        fetched = Fetched(page.read_text()).addresses
        assert [address for address in fetched if "//" in address.removeprefix("./")] == [], page


def test_its_lists_and_blocks_are_marked_up(site: Path) -> None:
    found = {page.name: Fetched(page.read_text()).unmarked for page in site.rglob("*.html")}
    assert {name: texts for name, texts in found.items() if texts} == {}
