"""The ``::`` before an example in a docstring: Markdown sees the example by its indentation, and would show it."""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import Element

from markdown import Markdown
from markdown.blockprocessors import BlockProcessor
from markdown.extensions import Extension

_COLONS = "::"


class _Colons(BlockProcessor):
    def test(self, parent: Element, block: str) -> bool:  # noqa: ARG002 (the base class's signature)
        return block.endswith(_COLONS)

    def run(self, parent: Element, blocks: list[str]) -> bool:  # noqa: ARG002 (the base class's signature)
        if len(blocks) < 2 or not blocks[1].startswith(" " * self.tab_length):  # noqa: PLR2004 (the block and its example)
            return False
        sentence = blocks[0].removesuffix(_COLONS).rstrip()
        blocks[:1] = [f"{sentence}:"] if sentence else []
        return True


class LiteralBlocks(Extension):
    """Takes the colons away where an indented block follows."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802 (Python-Markdown's name)
        """Register the processor."""
        md.parser.blockprocessors.register(_Colons(md.parser), "literal_blocks", 95)


def makeExtension(**options: Any) -> LiteralBlocks:  # noqa: N802 (Python-Markdown's name)
    """What Python-Markdown calls."""
    return LiteralBlocks(**options)
