"""Whether a device takes part now: a task file's ``can_run(data)``, asked with the device's own examples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from learning.datasets import Examples
from learning.userfile import call_users


def can_run_in(module: ModuleType, path: Path) -> Callable[[Examples], object] | None:
    """The file's ``can_run``; None without one. What it raises is UsageProblem FLV-2513, at its line."""
    own = getattr(module, "can_run", None)
    if not callable(own):
        return None
    return lambda examples: call_users(path, "can_run()", "FLV-2513", lambda: own(examples))
