"""What was downloaded is what was pinned: every file by its SHA-256, none missing, none besides."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_LINE: Final = re.compile(r"([0-9a-f]{64}) [ *](\S+)")


def read_pins(text: str) -> dict[str, str]:
    """The hex SHA-256 by file name, of lines as ``sha256sum`` writes them. ValueError for another line."""
    pins = {}
    for line in text.splitlines():
        found = _LINE.fullmatch(line)
        if found is None:
            message = f"{line[:80]!r}: expected a SHA-256, two spaces and a file's name"
            raise ValueError(message)
        pins[found[2]] = found[1]
    return pins


def unpinned(folder: Path, pins: dict[str, str]) -> list[str]:
    """What of ``folder`` is not as pinned, each in words; nothing where all is."""
    there = {path.name: path for path in folder.iterdir()}
    problems = [f"{name} is missing" for name in sorted(pins.keys() - there.keys())]
    problems += [f"{name} is not pinned" for name in sorted(there.keys() - pins.keys())]
    for name in sorted(there.keys() & pins.keys()):
        with there[name].open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != pins[name]:
            problems.append(f"{name} is {found[:16]}, pinned is {pins[name][:16]}")
    return problems
