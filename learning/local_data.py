"""A device's own examples: what ``local_data(path)`` of a task file makes of a place. No torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from aggregation.errors import UsageProblem
from learning.datasets import Examples
from learning.sources import FILES, MALFORMED, pair_of
from learning.users_examples import users_examples

LOCAL_DATA: Final = "local_data"


def has_data(module: ModuleType) -> bool:
    """Whether a task file has data for all devices and the evaluator."""
    return callable(getattr(module, "data", None)) or hasattr(module, "DATA")


def local_examples(module: ModuleType, file: Path, path: str) -> Examples:
    """The examples at ``path``: see ``Task.local_data``."""
    own: Callable[[str], object] | None = getattr(module, LOCAL_DATA, None)
    if not callable(own):
        return Examples(*_arrays(file, path))
    return users_examples(file, "local_data(path)", "FLV-2234", lambda: own(path))


def no_data(task: str, file: str) -> UsageProblem:
    """Somebody needs data for all, and the task has none."""
    return UsageProblem(
        "FLV-2233",
        f"the task {task} has no data(): its devices bring their own, and so does its evaluator",
        where=file,
        hint="give yours: `fluvial device run --data PATH`, `fluvial evaluator --data PATH`; a fleet, a run and a "
        "simulation need data() in the task file",
    )


def _arrays(file: Path, path: str) -> tuple[Any, Any]:
    hint = "define local_data(path) in the task file, or write the file with: numpy.savez(path, x=x, y=y)"
    place = Path(path)
    if not place.is_dir() and place.suffix not in FILES:
        raise UsageProblem(
            "FLV-2234",
            f"nothing says how to read {path}: the task file has no local_data(path), and only {', '.join(FILES)} and "
            "folders of these need none",
            where=str(file),
            hint=hint,
        )
    try:
        return pair_of(place)
    except UsageProblem as problem:
        reason = problem.message.removeprefix(MALFORMED)
        raise UsageProblem(
            "FLV-2234", f"{path} cannot be used: {reason}", where=str(file), hint=hint
        ) from problem
