"""Lists as CommonMark has them, and so as editors and hosts of repositories show the pages.

What is indented as far as an item's text belongs to the item: two spaces under ``* ``, three under ``1. ``.
Python-Markdown wants four. And the next item may follow an item's last paragraph without an empty line between them.
"""

from __future__ import annotations

import re
from typing import Any
from xml.etree.ElementTree import Element

from markdown import Markdown
from markdown.blockprocessors import ListIndentProcessor
from markdown.extensions import Extension

INDENT = 2
_ITEM = re.compile(r"([*+-]|\d+\.) ")


class _InItem(ListIndentProcessor):
    def run(self, parent: Element, blocks: list[str]) -> None:
        lines = blocks[0].split("\n")
        for at, line in enumerate(lines[1:], 1):
            if _ITEM.match(line):
                blocks[:1] = ["\n".join(lines[:at]), "\n".join(lines[at:])]
                break
        super().run(parent, blocks)


class Lists(Extension):
    """Replaces what Python-Markdown takes for the inside of a list item; all else keeps its four spaces."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802 (Python-Markdown's name)
        """Register the processors."""
        parser = md.parser
        for name in ("olist", "ulist"):
            parser.blockprocessors[name].tab_length = INDENT
        kept, md.tab_length = md.tab_length, INDENT
        parser.blockprocessors.register(_InItem(parser), "indent", 90)
        md.tab_length = kept


def makeExtension(**options: Any) -> Lists:  # noqa: N802 (Python-Markdown's name)
    """What Python-Markdown calls."""
    return Lists(**options)
