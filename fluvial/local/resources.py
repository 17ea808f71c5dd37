"""Files of ``infra/`` that the local stack needs, in a source tree and in an installed package alike."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_PACKAGED: Final = Path(__file__).parent / "infra"
_SOURCE_TREE: Final = Path(__file__).parents[2] / "infra"


def infra_file(name: str) -> Path:
    """The path of ``infra/<name>``.

    Raises FileNotFoundError: the installation is incomplete.
    """
    for folder in (_PACKAGED, _SOURCE_TREE):
        if (folder / name).is_file():
            return folder / name
    message = f"infra/{name} is not in this installation"
    raise FileNotFoundError(message)
