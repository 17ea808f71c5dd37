"""Runbooks, error pages and what they link to, as HTML: so that a problem can be read about where it is shown.

Sources are the Markdown files of ``docs/``, packed into the wheel. Markup in them is text (``html`` is off), and a link
leads to another page that is served, into a page, or to https; any other is left out and its words stay.
"""

from __future__ import annotations

import hashlib
import html
import posixpath
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from fluvial.console.problems import nothing_there

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

SERVED: Final = (
    "runbooks/*.md",
    "errors/*.md",
    "concepts.md",
    "console.md",
    "guarantees.md",
    "metrics.md",
    "operators.md",
    "policy.md",
    "start.md",
)
"""What of ``docs/`` is served, and what ``pyproject.toml`` packs into the wheel."""
RUNBOOKS: Final = "/docs/runbooks/README.md"
_PACKAGED: Final = Path(__file__).with_name("docs")
_SOURCE_TREE: Final = Path(__file__).parents[2] / "docs"
_INDEXES: Final = {"runbooks": "Runbooks", "errors": "Errors"}
_ERROR_ID: Final = re.compile(r"FLV-[0-9]{4}")
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title} · Fluvial console</title>
<link rel="icon" href="/static/icon.svg" type="image/svg+xml">
<script src="/static/theme.js"></script>
<link rel="stylesheet" href="/static/css/base.css">
<link rel="stylesheet" href="/static/css/parts.css">
<link rel="stylesheet" href="/static/css/docs.css">
</head>
<body class="docs">
<header id="top">
<a class="brand" href="/" id="brand"><img src="/static/icon.svg" alt="" width="22" height="22"><span>Fluvial</span></a>
<nav class="crumbs" aria-label="Where this is">{crumbs}</nav>
</header>
<main id="page">
{body}</main>
</body>
</html>
"""


def page_of(error_id: str) -> str:
    """The address of an error's page."""
    return f"/docs/errors/{error_id}.md"


def runbook(name: str, section: str = "what-to-do") -> str:
    """The address of a runbook's section."""
    return f"/docs/runbooks/{name}.md#{section}"


def error_ids(text: str) -> list[str]:
    """The ids of errors that a text names, each once."""
    return list(dict.fromkeys(_ERROR_ID.findall(text)))


def slug(heading: str) -> str:
    """The fragment by which a heading can be linked, as on GitHub."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@dataclass(frozen=True, slots=True)
class Rendered:
    """One page as it was at ``stamp`` (modification time in ns, size in bytes)."""

    stamp: tuple[int, int]
    data: bytes
    etag: str


class DocsPages:
    """Serves what is there. A name is looked up among those that are: no path is ever built from one."""

    def __init__(self, folder: Path | None = None) -> None:
        found = folder or (_PACKAGED if _PACKAGED.is_dir() else _SOURCE_TREE)
        self._files = {
            path.relative_to(found).as_posix(): path
            for pattern in SERVED
            for path in sorted(found.glob(pattern))
        }
        self._rendered: dict[str, Rendered] = {}

    def names(self) -> list[str]:
        """Every page's name, such as ``runbooks/lag.md``."""
        return sorted(self._files)

    async def answer(self, request: web.Request) -> web.Response:
        """The page, or 304 where the browser has it."""
        name = request.match_info["name"]
        path = self._files.get(name) or self._files.get(f"{name}.md")
        if path is None:
            raise nothing_there(f"there is no page {name[:80]!r} here", f"the runbooks begin at {RUNBOOKS}")
        page = self._page(path)
        headers = {"ETag": page.etag, "Cache-Control": "no-cache"}
        if request.headers.get("If-None-Match") == page.etag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=page.data, content_type="text/html", charset="utf-8", headers=headers)

    def _page(self, path: Path) -> Rendered:
        facts = path.stat()
        stamp = facts.st_mtime_ns, facts.st_size
        name = next(name for name, one in self._files.items() if one == path)
        known = self._rendered.get(name)
        if known is None or known.stamp != stamp:
            data = self.render(name, path.read_text(encoding="utf-8")).encode()
            known = Rendered(stamp, data, f'"{hashlib.sha256(data).hexdigest()[:32]}"')
            self._rendered[name] = known
        return known

    def render(self, name: str, text: str) -> str:
        """A whole page of the Markdown ``text``, which stands at ``name``."""
        parser = _parser()
        environment: dict[str, Any] = {}
        tokens = parser.parse(text, environment)
        title = name
        for index, token in enumerate(tokens):
            if token.type == "heading_open":
                heading = tokens[index + 1].content
                title = heading.replace("`", "") if token.tag == "h1" and title == name else title
                token.attrSet("id", slug(heading))
            elif token.type == "inline" and token.children:
                self._mend_links(name, token.children)
        body = parser.renderer.render(tokens, parser.options, environment)
        return _PAGE.format(title=html.escape(title), crumbs=_crumbs(name, title), body=body)

    def _mend_links(self, name: str, children: list[Token]) -> None:
        """Links lead to what is served; of others only the words are left."""
        leaving = False
        for child in children:
            if child.type == "link_open":
                target = self._target(name, str(child.attrGet("href") or ""))
                leaving = target is None
                child.hidden = leaving
                child.attrSet("href", target or "")
                child.tag = "" if leaving else child.tag
            elif child.type == "link_close" and leaving:
                leaving, child.hidden, child.tag = False, True, ""
            elif child.type == "image":  # none is served
                child.type, child.tag, child.children = "text", "", None

    def _target(self, name: str, href: str) -> str | None:
        path, mark, fragment = href.partition("#")
        if path.startswith("https://"):
            return href
        place = name if not path else posixpath.normpath(posixpath.join(posixpath.dirname(name), path))
        return f"/docs/{place}{mark}{fragment}" if place in self._files and ":" not in path else None


def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt  # only where somebody reads a page

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    # A block that scrolls can be reached by the keyboard.
    parser.add_render_rule("table_open", _table_open)
    parser.add_render_rule("table_close", _table_close)
    parser.add_render_rule("fence", _fence)
    return parser


def _table_open(*_: Any) -> str:
    return '<div class="scroll" tabindex="0" role="group" aria-label="Table"><table>\n'


def _table_close(*_: Any) -> str:
    return "</table></div>\n"


def _fence(_renderer: Any, tokens: list[Token], index: int, *_: Any) -> str:
    return f'<pre tabindex="0"><code>{html.escape(tokens[index].content)}</code></pre>\n'


def _crumbs(name: str, title: str) -> str:
    folder, _, file = name.rpartition("/")
    links = ['<a href="/">Console</a>']
    if folder in _INDEXES and file != "README.md":
        links.append(f'<a href="/docs/{folder}/README.md">{_INDEXES[folder]}</a>')
    return ' <span aria-hidden="true">/</span> '.join([*links, f"<span>{html.escape(title)}</span>"])
