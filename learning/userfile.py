"""Running a user's Python file so that its mistakes are shown at the user's own line. No torch here."""

from __future__ import annotations

import hashlib
import linecache
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from aggregation.errors import FluvialError, UsageProblem

Result = TypeVar("Result")


def import_users(path: Path, source: bytes) -> ModuleType:
    """Execute `source` as a module of its own. Raises UsageProblem FLV-2202, which shows the failing line.

    The file's folder is put at the end of sys.path, so that it may import files that lie beside it.
    """
    digest = hashlib.sha256(str(path.resolve()).encode() + source).hexdigest()[:16]
    module = ModuleType(f"fluvial_task_{path.stem}_{digest}")
    module.__file__ = str(path)
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    linecache.checkcache(str(path))
    sys.modules[module.__name__] = module  # dataclasses and pickle look a class's module up by name
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102 (it is the user's own)
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise _problem(
            error, path, "FLV-2202", "the task file fails on import", _import_hint(error)
        ) from error
    return module


def call_users(path: Path, what: str, error_id: str, function: Callable[[], Result]) -> Result:
    """function(), with any exception that is not ours made a UsageProblem `error_id` at the user's line."""
    try:
        return function()
    except FluvialError as problem:
        problem.where = problem.where or _users_line(problem, path)
        raise
    except (Exception, SystemExit) as error:
        hint = f"mend {what} in the task file; python -X dev shows more"
        raise _problem(error, path, error_id, f"{what} of the task fails", hint) from error


def _problem(error: BaseException, path: Path, error_id: str, what: str, hint: str) -> UsageProblem:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    first_line = text.strip().splitlines()[0] if text.strip() else "no message"
    return UsageProblem(
        error_id, f"{what}: {type(error).__name__}: {first_line}", where=_users_line(error, path), hint=hint
    )


def _users_line(error: BaseException, path: Path) -> str:
    """'file.py:12 in train: the text of that line', from the innermost frame that lies in the user's file."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{path}:{error.lineno}: {(error.text or '').strip()}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    if not frames:
        return str(path)
    place = "" if frames[-1].name == "<module>" else f" in {frames[-1].name}()"
    return f"{path}:{frames[-1].lineno}{place}: {(frames[-1].line or '').strip()}"


def _import_hint(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"pip install {error.name.partition('.')[0]}"
    return "mend that line, then run the same command again"
