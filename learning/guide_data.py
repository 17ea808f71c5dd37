"""A guardian's own examples: what ``guide_data()`` of a task file returns. No torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Final

from aggregation.errors import UsageProblem
from learning.datasets import Examples
from learning.userfile import call_users

GUIDE_DATA: Final = "guide_data"
_PAIR: Final = 2


def guide_data_in(module: ModuleType, file: Path) -> Examples | None:
    """What ``guide_data()`` of a task file returns; None where it has none. Raises UsageProblem FLV-2250."""
    own: Callable[[], object] | None = getattr(module, GUIDE_DATA, None)
    if not callable(own):
        return None
    got = call_users(file, "guide_data()", "FLV-2250", own)
    if isinstance(got, Examples):
        return got
    if not isinstance(got, tuple | list) or len(got) != _PAIR:
        raise UsageProblem(
            "FLV-2250",
            f"guide_data() must return a pair (x, y) of arrays, got {type(got).__name__}",
            where=str(file),
            hint="end guide_data() with: return x, y",
        )
    return Examples(got[0], got[1])
