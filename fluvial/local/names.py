"""How a service is told where its files are, whatever letters the home has in its name (ADR 23).

A name goes through a reader of its own in every program: Kafka splits ``log.dirs`` at commas and trims it, Java reads
properties as Latin-1 and file names by the locale, a class path is split at colons, a JVM's error file and log4j have
patterns of their own, MinIO expands braces, and Prometheus' lists of files are globs. So each service works in the home
folder and gets names that are relative to it, which are ours and plain.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

JAVA_ENVIRONMENT: Final = {"LC_ALL": "C.UTF-8"}
"""Java reads and writes file names by the locale; without one it takes every letter but ASCII for a question mark."""

_LATIN_1_PLAIN: Final = range(0x20, 0x7F)


def seen_from(home: Path, path: Path) -> str:
    """The name of ``path`` for a service that works in ``home``: relative to it where it lies inside, or must."""
    if path.is_relative_to(home):
        return str(path.relative_to(home))
    text = str(path)
    return text if _is_plain(text) else os.path.relpath(path, home)


def java_property(value: str) -> str:
    r"""``value`` as a Java properties file has it: Latin-1 with ``\uXXXX`` for the rest (java.util.Properties.load)."""
    units = value.encode("utf-16-be", "surrogatepass")
    letters = (int.from_bytes(units[at : at + 2], "big") for at in range(0, len(units), 2))
    text = "".join(_letter(unit) for unit in letters)
    return f"\\{text}" if text.startswith(" ") else text


def java_classpath(jars: Path, home: Path) -> str:
    """All jars of a folder as a class path for a Java that works in ``home``; by a link, where its name has a colon."""
    if ":" not in str(jars):
        return str(jars / "*")
    link = home / "run" / "jars"
    link.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        link.unlink()
    link.symlink_to(jars)
    return f"{link.relative_to(home)}/*"


def _letter(unit: int) -> str:
    if unit == ord("\\"):
        return "\\\\"
    return chr(unit) if unit in _LATIN_1_PLAIN else f"\\u{unit:04x}"


def _is_plain(text: str) -> bool:
    return "," not in text and "{" not in text and text == text.strip()
