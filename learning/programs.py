"""Users' programs as packages of their own: ``learning.programs.mine_3f2a…`` is the folder of one ``mine.py``.

A file beside the task file may have any name, ``schemas.py`` and ``learning.py`` included. The task file and the files
that it imports form a package, in which a top-level name means first what lies in the user's folder, and then what it
means to everybody else, as it would be if he ran the file himself. ``from .nets import small`` works, and where his
folder is a package itself (it has an ``__init__.py``), so does ``from ..nets``. Nothing else in the process sees his
folder: sys.path stays as it is.

The package's name follows from the file's place alone, and processes that this one starts find it by that name: a
worker that torch's DataLoader spawns, a pool of processes, whoever unpickles an object of a class of his. They learn
which file it is from an environment variable. What he edits is read anew, and nothing is written into his folder.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import keyword
import linecache
import os
import re
import sys
import threading
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from learning.import_scope import ImportScope, enter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType

__path__: list[str] = []
"""Python asks for modules below this one as below a package, and the finder answers."""

PROGRAMS_KNOWN_MAX: Final = 64
_ONE_AT_A_TIME: Final = threading.RLock()
_VARIABLE: Final = "_FLUVIAL_TASK_FILES"
_OUR_LEARNING: Final = __name__.rpartition(".")[0]
"""What a task file means by ``learning``, unless he has one: also in a process where that name is somebody else's."""


def load_program(path: Path, source: bytes) -> ModuleType:
    """Execute ``source``, the bytes of the task file ``path``, anew, and what it imports. Raises what they raise.

    Threads take turns: each takes out of ``sys.modules`` what the one before has loaded.
    """
    program = Program(path)
    with _ONE_AT_A_TIME:
        for name in [name for name in sys.modules if f"{name}.".startswith(f"{program.package}.")]:
            del sys.modules[name]
        importlib.invalidate_caches()  # a file may have been written since the folder was last listed
        linecache.checkcache()
        _tell_children(program)
        enter(_ProgramScope(program, source), [program.package])
        return importlib.import_module(program.entry)


def folder_of_program(path: Path) -> Path:
    """Where the files of a task file's program lie: its folder, or the one that holds the package that it is in."""
    return Program(path).folders[-1]


class Program:
    """Which file, in which folders, under which name."""

    def __init__(self, path: Path) -> None:
        self.shown = str(path)
        self.file = path.resolve()
        digest = hashlib.sha256(str(self.file).encode("utf-8", "surrogateescape")).hexdigest()[:12]
        self.id = f"{_word(path.stem)}_{digest}"
        self.package = f"{__name__}.{self.id}"
        folder = self.file.parent
        within: list[str] = []
        root = folder
        while (root / "__init__.py").is_file() and root.name.isidentifier() and root != root.parent:
            within.insert(0, root.name)
            root = root.parent
        self.folders = [folder] if root == folder else [folder, root]
        self.entry = ".".join([self.package, *within, _word(path.stem)])


def _word(stem: str) -> str:
    """A file's name as a module's: another one where Python could not import it."""
    if stem.isidentifier() and not keyword.iskeyword(stem):
        return stem
    return "task_" + re.sub(r"\W", "_", stem)


class _ProgramScope(ImportScope):
    """One program's modules. ``source``: the bytes of its task file, if they were read already."""

    def __init__(self, program: Program, source: bytes | None = None) -> None:
        super().__init__(_UsersNames(program).real_name)
        self._program = program
        self._source = source

    def find(self, fullname: str, path: Sequence[str] | None) -> ModuleSpec | None:
        program = self._program
        if fullname == program.package:
            spec = ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [str(folder) for folder in program.folders]
            return spec
        if fullname == program.entry:
            loader = _UsersLoader(fullname, program.shown, self.builtins, self._source)
            return importlib.util.spec_from_file_location(fullname, program.shown, loader=loader)
        found = PathFinder.find_spec(fullname, path)
        if found is not None and found.origin is not None and isinstance(found.loader, SourceFileLoader):
            found.loader = _UsersLoader(fullname, found.origin, self.builtins)
        return found


class _UsersLoader(SourceFileLoader):
    """Runs a module with its scope's builtins, from its source: an edit within a second counts, no cache is written."""

    def __init__(
        self, fullname: str, path: str, builtins: dict[str, Any], source: bytes | None = None
    ) -> None:
        super().__init__(fullname, path)
        self._builtins = builtins
        self._source = source

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__builtins__"] = self._builtins
        super().exec_module(module)

    def get_code(self, fullname: str) -> CodeType | None:  # noqa: ARG002 (Python's signature)
        source = self.get_data(self.path) if self._source is None else self._source
        return self.source_to_code(source, self.path)


class _UsersNames:
    """What top-level names mean in a user's folder: what lies there comes first."""

    def __init__(self, program: Program) -> None:
        self._package = program.package
        self._folders = [str(folder) for folder in program.folders]
        self._known: dict[str, str] = {}

    def real_name(self, top: str) -> str:
        """His own module of this name, else our ``learning``, else what it is to everybody."""
        if top not in self._known:
            self._known[top] = self._find(top)
        return self._known[top]

    def _find(self, top: str) -> str:
        his = PathFinder.find_spec(top, self._folders)
        common = _OUR_LEARNING if top == "learning" else top
        if his is None or top in sys.builtin_module_names:
            return common
        others = spec_of(common)
        # A folder without __init__.py counts only where there is nothing else, as everywhere in Python. And a file that
        # everybody imports under this name (his folder is on sys.path) is loaded once, not twice.
        if others is not None and his.origin in {None, others.origin}:
            return common
        return f"{self._package}.{top}"


def spec_of(name: str) -> ModuleSpec | None:
    """Where the process finds a module, loaded or not; None when it does not."""
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):  # ValueError: it is loaded and does not say from where
        return None


class _ToldPrograms(ImportScope):
    """Programs that a process above this one has loaded."""

    def __init__(self) -> None:
        super().__init__(lambda top: top)

    def find(self, fullname: str, path: Sequence[str] | None) -> ModuleSpec | None:
        name = fullname.removeprefix(f"{__name__}.").partition(".")[0]
        file = _told().get(name)
        if file is None:
            return None
        program = Program(Path(file))
        scope = _ProgramScope(program)
        enter(scope, [program.package])
        return scope.find(fullname, path)


def _told() -> dict[str, str]:
    try:
        told = json.loads(os.environ.get(_VARIABLE, "{}"))
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _tell_children(program: Program) -> None:
    told = _told()
    told.pop(program.id, None)
    kept = list(told.items())[-(PROGRAMS_KNOWN_MAX - 1) :]
    os.environ[_VARIABLE] = json.dumps({**dict(kept), program.id: str(program.file)})


enter(_ToldPrograms(), [__name__])
