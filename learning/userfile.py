"""Running a user's Python file so that its names are his, and its mistakes are shown at his own line. No torch here.

A file beside the task file may have any name, ``schemas.py`` and ``learning.py`` included. The task file and the files
that it imports are loaded into a package of their own, in which a top-level name means what lies in the user's folder
first, and what it means to everybody else second, as it would be if he ran the file himself. Nothing else in the
process sees his folder: sys.path stays as it is.
"""

from __future__ import annotations

import hashlib
import importlib.util
import linecache
import re
import sys
import traceback
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Final, TypeVar

from aggregation.errors import FluvialError, UsageProblem
from learning.import_scope import ImportScope, enter

Result = TypeVar("Result")

_OUR_LEARNING: Final = __name__.rpartition(".")[0]
"""What a task file means by ``learning``, unless he has one: also in a process where that name is somebody else's."""


def import_users(path: Path, source: bytes) -> ModuleType:
    """Execute ``source`` as a module of its own. Raises UsageProblem FLV-2202, which shows the failing line.

    It may import files that lie beside it, under any name, and these each other. They are read anew each time.
    """
    digest = hashlib.sha256(str(path.resolve()).encode() + source).hexdigest()[:16]
    stem = re.sub(r"\W", "_", path.stem)
    package = ModuleType(f"fluvial_task_{stem}_{digest}")
    folder = str(path.resolve().parent)
    package.__path__ = [folder]
    for name in [name for name in sys.modules if name.startswith(f"{package.__name__}.")]:
        del sys.modules[name]
    importlib.invalidate_caches()  # a file may have been written since the folder was last listed
    scope = ImportScope(_UsersNames(package.__name__, folder).real_name)
    enter(scope, [package.__name__])
    module = ModuleType(f"{package.__name__}.{stem}")
    module.__file__ = str(path)
    module.__package__ = package.__name__
    module.__dict__["__builtins__"] = scope.builtins
    linecache.checkcache(str(path))
    # dataclasses and pickle look a class's module up by name
    sys.modules.update({package.__name__: package, module.__name__: module})
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102 (it is the user's own)
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise _problem(
            error, path, "FLV-2202", "the task file fails on import", _import_hint(error)
        ) from error
    return module


class _UsersNames:
    """What top-level names mean in a user's folder: what lies there comes first."""

    def __init__(self, package: str, folder: str) -> None:
        self._package = package
        self._folder = folder
        self._known: dict[str, str] = {}

    def real_name(self, top: str) -> str:
        """His own module of this name, else our ``learning``, else what it is to everybody."""
        if top not in self._known:
            self._known[top] = self._find(top)
        return self._known[top]

    def _find(self, top: str) -> str:
        his = PathFinder.find_spec(top, [self._folder])
        common = _OUR_LEARNING if top == "learning" else top
        if his is None or top in sys.builtin_module_names:
            return common
        others = _spec_of(common)
        # A folder without __init__.py counts only where there is nothing else, as everywhere in Python. And a file that
        # everybody imports under this name (his folder is on sys.path) is loaded once, not twice.
        if others is not None and his.origin in {None, others.origin}:
            return common
        return f"{self._package}.{top}"


def _spec_of(name: str) -> ModuleSpec | None:
    """Where the process finds a module, loaded or not; None when it does not."""
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):  # ValueError: it is loaded and does not say from where
        return None


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
    folder = str(path.resolve().parent)
    rest: list[traceback.TracebackException | None] = [whole]
    while rest:
        part = rest.pop()
        if part is None:
            continue
        part.stack = traceback.StackSummary.from_list([f for f in part.stack if _is_his(f.filename, folder)])
        rest += [part.__cause__, part.__context__, *(part.exceptions or [])]
    return "".join(whole.format()).rstrip()


def _is_his(file: str, folder: str) -> bool:
    inside = Path(file).resolve()
    return inside.is_relative_to(folder) and "site-packages" not in inside.parts


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
