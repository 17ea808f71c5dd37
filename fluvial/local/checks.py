"""One row of ``fluvial doctor``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from rich.text import Text

_STYLES: Final = {"ok": "green", "note": "yellow", "problem": "bold red"}
_SIGNS: Final = {"ok": "✓ ok", "note": "• note", "problem": "✗ problem"}

Status = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Check:
    """What was looked at, how it is, what was found, and how to mend it.

    A ``problem`` must be mended before work can go on; a ``note`` is worth knowing and needs nothing.
    """

    name: str
    status: Status
    found: str
    mend: str = ""

    def row(self) -> Sequence[object]:
        """The cells of the table; the status is a word and a shape, not only a colour."""
        return [self.name, Text(_SIGNS[self.status], style=_STYLES[self.status]), self.found, self.mend]
