"""Which files a task's program consists of: the task file, and the Python files beside it that it imports. No torch.

What is imported is read from the sources, so that the same files give the same answer on every machine and in every
process; what importing has found besides (``importlib.import_module`` within a package) is added. What a program reads
otherwise, data above all, is not part of it.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Final

from learning.programs import Program, spec_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_SOURCE: Final = ".py"


@dataclass(frozen=True, slots=True)
class ProgramFiles:
    """files: bytes by name, relative to the program's root, with ``/``. entry: the task file's name.

    left_out: files that it imports and that cannot come along (compiled ones), by name.
    """

    files: dict[str, bytes]
    entry: str
    left_out: list[str] = field(default_factory=list)


def program_files(path: Path) -> ProgramFiles:
    """Those of the task file ``path``. OSError where one cannot be read."""
    program = Program(path)
    root = program.folders[-1]
    found: dict[Path, bytes] = {}
    left_out: set[Path] = set()
    waiting = [program.file, *_packages_above(program.file, root), *_loaded(program)]
    while waiting:
        file = waiting.pop()
        if file in found or file in left_out:
            continue
        if file.suffix != _SOURCE:
            left_out.add(file)
            continue
        found[file] = file.read_bytes()
        waiting += _imported(found[file], file, program)

    def name(file: Path) -> str:
        return file.relative_to(root).as_posix()

    return ProgramFiles(
        {name(file): data for file, data in sorted(found.items())},
        name(program.file),
        sorted(map(name, left_out)),
    )


def _packages_above(file: Path, root: Path) -> Iterator[Path]:
    """The ``__init__.py`` of every package that ``file`` is in."""
    for folder in file.parents:
        if folder == root or not folder.is_relative_to(root):
            return
        if (folder / "__init__.py").is_file():
            yield folder / "__init__.py"


def _loaded(program: Program) -> Iterator[Path]:
    for name, module in list(sys.modules.items()):
        origin = getattr(module, "__file__", None) if name.startswith(f"{program.package}.") else None
        if origin and Path(origin).absolute().is_relative_to(program.folders[-1]):
            yield Path(origin).absolute()


def _imported(source: bytes, file: Path, program: Program) -> Iterator[Path]:
    """The files in the program's folders that the import statements of one file may load."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # its import would have failed, so nobody has imported it
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _absolute(alias.name.split("."), [], program)
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            parts = node.module.split(".") if node.module else []
            if node.level == 0:
                yield from _absolute(parts, names, program)
                continue
            folder = file.parent
            for _ in range(node.level - 1):
                folder = folder.parent
            if folder.is_relative_to(program.folders[-1]):
                yield from _along([str(folder)], parts, names, program)


def _absolute(parts: list[str], names: list[str], program: Program) -> Iterator[Path]:
    folders = [str(folder) for folder in program.folders]
    his = PathFinder.find_spec(parts[0], folders)
    if his is None or parts[0] in sys.builtin_module_names:
        return
    if his.origin is None and spec_of(parts[0]) is not None:  # a folder hides no package of everybody's
        return
    yield from _along(folders, parts, names, program)


def _along(folders: list[str], parts: list[str], names: list[str], program: Program) -> Iterator[Path]:
    """The files of ``parts`` from package to module, and of those ``names`` that are modules in the last."""
    root = program.folders[-1]
    for part in parts:
        spec = PathFinder.find_spec(part, folders)
        if spec is None:
            return
        if spec.origin is not None and Path(spec.origin).is_relative_to(root):
            yield Path(spec.origin)
            yield from _packages_above(Path(spec.origin), root)
        folders = list(spec.submodule_search_locations or [])
        if not folders:
            return
    for name in names:
        spec = PathFinder.find_spec(name, folders)
        if spec is not None and spec.origin is not None and Path(spec.origin).is_relative_to(root):
            yield Path(spec.origin)
