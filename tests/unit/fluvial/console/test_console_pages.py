"""Runbooks and error pages as the console serves them: all of them, as text that nobody's markup gets into."""

from __future__ import annotations

import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fluvial.console.mends import CASES
from fluvial.console.pages import SERVED, DocsPages, error_ids, page_of, runbook, slug
from tests.unit.fluvial.console.test_console_server import answer, asked, console_in
from tests.unit.house.test_runbooks import anchors

ROOT = Path(__file__).parents[4]
PAGES = DocsPages()
HOSTILE = """\
# Hi `x` <script>alert(1)</script>

<script>alert(1)</script> <img src=x onerror=alert(1)>

[script](javascript:alert(1)) [data](data:text/html,x) [else](//evil.example/x) [up](../../pyproject.toml)
[plain](http://evil.example) [mail](mailto:a@b) [lag](lag.md#what-to-do) [error](../errors/FLV-2101.md) [out](https://a.b/c)
![picture](../images/console.png) <https://a.b/d>

| a | b |
|---|---|
| 1 | <b onclick=x> |

```bash
ls </code><script>
```
"""


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str, name: str) -> list[str]:
        return [value for found, attributes in self.tags if found == tag and (value := attributes.get(name))]


def test_markup_in_a_page_is_text_and_a_link_leads_to_what_is_served() -> None:
    found = Tags(PAGES.render("runbooks/any.md", HOSTILE))
    assert [attributes.get("src") for tag, attributes in found.tags if tag == "script"] == [
        "/static/theme.js"
    ]
    assert found.all("img", "src") == ["/static/icon.svg"]
    assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]
    inside = [href for href in found.all("a", "href") if href not in {"/", "/docs/runbooks/README.md"}]
    assert inside == [
        "/docs/runbooks/lag.md#what-to-do",
        "/docs/errors/FLV-2101.md",
        "https://a.b/c",
        "https://a.b/d",
    ]
    assert not [tag for tag, attributes in found.tags if "style" in attributes]


@pytest.mark.parametrize("name", PAGES.names())
def test_every_page_is_whole_and_its_links_are_served(name: str) -> None:
    text = PAGES.render(name, (ROOT / "docs" / name).read_text())
    found = Tags(text)
    assert len([1 for tag, _ in found.tags if tag == "h1"]) == 1
    ids = found.all("h1", "id") + found.all("h2", "id") + found.all("h3", "id")
    assert set(ids) <= anchors(ROOT / "docs" / name)
    for href in found.all("a", "href"):
        page, _, anchor = href.removeprefix("/docs/").partition("#")
        assert href == "/" or href.startswith("https://") or page in PAGES.names(), href
        if anchor and href.startswith("/docs/"):
            assert anchor in anchors(ROOT / "docs" / page), href


def test_all_runbooks_and_error_pages_are_there() -> None:
    wanted = [path for folder in ("runbooks", "errors") for path in (ROOT / "docs" / folder).glob("*.md")]
    assert {path.relative_to(ROOT / "docs").as_posix() for path in wanted} <= set(PAGES.names())
    assert len(wanted) > 150


def test_a_wheel_has_what_is_served() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    packed = {
        source.removeprefix("docs/"): target
        for source, target in wheel["force-include"].items()
        if source.startswith("docs/")
    }
    assert set(packed) == {one.removesuffix("/*.md") for one in SERVED}
    assert all(target == f"fluvial/console/docs/{source}" for source, target in packed.items())


def test_a_mend_names_pages_that_are_there() -> None:
    for case in CASES.values():
        page, _, anchor = runbook(case.runbook).removeprefix("/docs/").partition("#")
        assert page in PAGES.names()
        assert anchor in anchors(ROOT / "docs" / page), case.runbook
        assert all(page_of(one).removeprefix("/docs/") in PAGES.names() for one in case.errors)


def test_the_pages_ids_and_anchors() -> None:
    assert error_ids("FLV-3100: no; FLV-3100 and FLV-12 and xFLV-4002") == ["FLV-3100", "FLV-4002"]
    assert slug("`fluvial up` ends: what now?") == "fluvial-up-ends-what-now"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/docs/runbooks/lag.md", 200),
        ("/docs/runbooks/lag", 200),
        ("/docs/errors/FLV-2101.md", 200),
        ("/docs/errors/FLV-2101", 200),
        ("/docs/runbooks/README.md", 200),
        ("/docs/adr/0001-import-chain.md", 404),
        ("/docs/runbooks/", 404),
        ("/docs/../pyproject.toml", 404),
        ("/docs/..%2fpyproject.toml", 404),
        ("/docs/runbooks/%2e%2e/%2e%2e/README.md", 404),
        ("/docs/%00", 404),
        ("/docs/errors/FLV-0000.md", 404),
    ],
)
def test_only_what_is_there_is_served_with_the_headers(tmp_path: Path, path: str, status: int) -> None:
    got, headers, body = asked(console_in(tmp_path), lambda client: answer(client, path))
    assert got == status, body
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    if status == 200:
        assert headers["Content-Type"] == "text/html; charset=utf-8"
        assert not re.search(rb"<script(?! src=\"/static/theme.js\")|\sstyle=|\son\w+=", body)


def test_a_page_that_the_browser_has_is_not_sent_again(tmp_path: Path) -> None:
    async def twice(client: object) -> tuple[int, int]:
        first = await answer(client, "/docs/runbooks/lag.md")  # type: ignore[arg-type]
        options = {"headers": {"If-None-Match": first[1]["ETag"]}}
        again = await answer(client, "/docs/runbooks/lag.md", **options)  # type: ignore[arg-type]
        return first[0], again[0]

    assert asked(console_in(tmp_path), twice) == (200, 304)
