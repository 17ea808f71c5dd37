"""Every error id has a page that says what it means, why, and how to mend it; and no page is without an
id."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = ROOT / "docs" / "errors"
PACKAGES = ("aggregation", "schemas", "backends", "learning", "producers", "stream_apps", "fluvial")
ID = re.compile(r"FLV-\d{4}")
PAGE_CHARACTERS_MIN = 200


@cache
def ids_in_source() -> dict[str, list[str]]:
    """Every id in the packages' source, and where it stands."""
    found: dict[str, list[str]] = defaultdict(list)
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for error_id in ID.findall(path.read_text()):
                found[error_id].append(path.relative_to(ROOT).as_posix())
    return found


def pages() -> list[str]:
    return sorted(path.stem for path in PAGES.glob("FLV-*.md"))


@pytest.mark.parametrize("error_id", sorted(ids_in_source()))
def test_every_id_has_a_page(error_id: str) -> None:
    assert (PAGES / f"{error_id}.md").is_file(), f"{error_id} of {ids_in_source()[error_id]} has no page"


@pytest.mark.parametrize("page", pages())
def test_every_page_has_an_id_in_the_source(page: str) -> None:
    assert page in ids_in_source()


@pytest.mark.parametrize("page", pages())
def test_a_page_has_its_title_and_says_something(page: str) -> None:
    text = (PAGES / f"{page}.md").read_text()
    assert re.match(rf"# {page}: \S.*\n", text)
    assert len(text) > PAGE_CHARACTERS_MIN
