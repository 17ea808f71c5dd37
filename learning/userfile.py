"""Calling a user's code so that its mistakes are shown at his own line. No torch here."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Final, TypeVar

from aggregation.errors import FluvialError, UsageProblem
from learning.programs import folder_of_program, load_program

Result = TypeVar("Result")

_OURS: Final = Path(__file__).resolve().parent
_UNPACKED: Final = ("cache", "programs")
"""Below a home: where programs lie that a task carries, each in a folder of its own."""
_STANDARD_LIBRARY: Final = Path(sysconfig.get_path("stdlib")).resolve()


def import_users(path: Path, source: bytes) -> ModuleType:
    """Execute ``source`` as a module of its own (``programs``). UsageProblem FLV-2202 shows the user's failing line."""
    try:
        return load_program(path, source)
    except (Exception, SystemExit) as error:
        raise _problem(
            error, path, "FLV-2202", "the task file fails on import", _import_hint(error)
        ) from error


def call_users(path: Path, what: str, error_id: str, function: Callable[[], Result]) -> Result:
    """function(), with any exception that is not ours made a UsageProblem ``error_id`` at the user's line."""
    try:
        return function()
    except FluvialError as problem:
        problem.where = problem.where or _users_line(problem, path)
        problem.users_traceback = problem.users_traceback or _users_traceback(problem, path)
        raise
    except (Exception, SystemExit) as error:
        hint = f"mend {what} in the task file; `--traceback` shows the way to that line"
        if isinstance(error, FileNotFoundError) and path.parts[-4:-2] == _UNPACKED:
            hint = (
                "the task's program is here and that file is not: data does not travel with it. Bring the file, and "
                "name it by a path that is the same on every machine"
            )
        raise _problem(error, path, error_id, f"{what} of the task fails", hint) from error


def _problem(error: BaseException, path: Path, error_id: str, what: str, hint: str) -> UsageProblem:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    first_line = text.strip().splitlines()[0] if text.strip() else "no message"
    problem = UsageProblem(
        error_id, f"{what}: {type(error).__name__}: {first_line}", where=_users_line(error, path), hint=hint
    )
    problem.users_traceback = _users_traceback(error, path)
    return problem


def _users_traceback(error: BaseException, path: Path) -> str:
    """The traceback of an error and of what led to it, without the frames of installed packages and of ours."""
    whole = traceback.TracebackException.from_exception(error)
    folder = folder_of_program(path)
    rest: list[traceback.TracebackException | None] = [whole]
    while rest:
        part = rest.pop()
        if part is None:
            continue
        part.stack = traceback.StackSummary.from_list([f for f in part.stack if _is_his(f.filename, folder)])
        rest += [part.__cause__, part.__context__, *(part.exceptions or [])]
    return "".join(whole.format()).rstrip()


def _is_his(file: str, folder: Path) -> bool:
    """His folder may hold a virtual environment, a whole Python, or Fluvial's sources."""
    inside = Path(file).resolve()
    if not inside.is_relative_to(folder) or {"site-packages", "dist-packages"} & set(inside.parts):
        return False
    if inside.is_relative_to(_OURS):
        return inside.is_relative_to(_OURS / "tasks")
    return not inside.is_relative_to(_STANDARD_LIBRARY)


def _users_line(error: BaseException, path: Path) -> str:
    """'file.py:12 in train(): the text of that line', from the innermost frame that lies in a file of the user's."""
    folder = folder_of_program(path)
    if isinstance(error, SyntaxError) and error.filename and _is_his(error.filename, folder):
        return f"{error.filename}:{error.lineno}: {(error.text or '').strip()}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_his(f.filename, folder)]
    if not frames:
        return str(path)
    last = frames[-1]
    place = "" if last.name == "<module>" else f" in {last.name}()"
    return f"{last.filename}:{last.lineno}{place}: {(last.line or '').strip()}"


def _import_hint(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"pip install {error.name.partition('.')[0]}"
    return "mend that line, then run the same command again"
