"""The three standard streams as a command needs them: there, and able to take any letter."""

from __future__ import annotations

import codecs
import os
import sys
from typing import Final

_PLAIN: Final = {"✓": "+", "✗": "x", "•": "*", "…": "...", "→": "->", "×": "x", "–": "-"}
_ERRORS: Final = "fluvial.plain"
_FLAGS: Final = {0: os.O_RDONLY, 1: os.O_WRONLY, 2: os.O_WRONLY}


def stand_up() -> None:
    """Put the null device where a stream was closed (``>&-``), and let none fail at a letter that its encoding lacks.

    A file that is opened later would else get the number of the closed one, and what is said would land in it.
    """
    for number, flags in _FLAGS.items():
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, flags)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # for the life of the process  # noqa: SIM115, PTH123
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_ERRORS)


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """What stands for letters that an encoding lacks: a sign that every one has, or their numbers."""
    assert isinstance(error, UnicodeEncodeError), "a stream for writing only encodes"
    lacking = error.object[error.start : error.end]
    plain = "".join(
        _PLAIN.get(letter) or letter.encode("ascii", "backslashreplace").decode() for letter in lacking
    )
    return plain, error.end


codecs.register_error(_ERRORS, _plain)
