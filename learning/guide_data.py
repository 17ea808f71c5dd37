"""A guardian's own examples: what ``guide_data()`` of a task file returns. No torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Final

from learning.datasets import Examples
from learning.users_examples import users_examples

GUIDE_DATA: Final = "guide_data"


def guide_data_in(module: ModuleType, file: Path) -> Examples | None:
    """What ``guide_data()`` of a task file returns; None where it has none. Raises UsageProblem FLV-2250."""
    own: Callable[[], object] | None = getattr(module, GUIDE_DATA, None)
    if not callable(own):
        return None
    return users_examples(file, "guide_data()", "FLV-2250", own)
