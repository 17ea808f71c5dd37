"""``python -m fluvial.documents.asyncapi`` writes docs/asyncapi.yaml; ``--check`` says whether it is up to date."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from fluvial.documents.asyncapi.document import build
from fluvial.documents.asyncapi.yaml_text import yaml_text

TARGET: Final = Path(__file__).parents[3] / "docs" / "asyncapi.yaml"
COMMENT: Final = "# Made by `python -m fluvial.documents.asyncapi` from schemas/. Do not edit.\n"


def text() -> str:
    """The whole file."""
    return COMMENT + yaml_text(build())


def main(arguments: list[str]) -> int:
    """Write the file, or check it: 1 when it is not what the code says."""
    if arguments not in ([], ["--check"]):
        sys.stderr.write("usage: python -m fluvial.documents.asyncapi [--check]\n")
        return 4
    if arguments:
        same = TARGET.is_file() and TARGET.read_text() == text()
        if not same:
            sys.stderr.write(
                f"{TARGET.name} is not what the code says: run `python -m fluvial.documents.asyncapi`\n"
            )
        return 0 if same else 1
    TARGET.write_text(text())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
