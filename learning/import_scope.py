"""Import statements that mean something else, depending on who runs them. Standard library only.

One process has one table of modules (``sys.modules``) with one entry a name, so a user's ``schemas.py`` and our
``schemas`` cannot both stand there. A scope gives some modules an ``__import__`` of their own, through the
``__builtins__`` of their globals, which is where Python looks it up for every import statement. Within the scope a
top-level name may stand for a module of another, unambiguous name. Everybody else's imports stay as they are.

What goes around import statements does not see a scope: ``importlib.import_module``, and names in a pickle. Pickles of
a scope's own classes work, because a class carries its unambiguous name.
"""

from __future__ import annotations

import builtins
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import ModuleType


class ImportScope:
    """Modules that share a meaning of top-level names.

    ``real_name`` gives the module that a top-level name stands for, the same name where there is no other. ``places``
    are the folders of modules that are not found where Python would look: by full name.
    """

    def __init__(self, real_name: Callable[[str], str], places: Mapping[str, str] | None = None) -> None:
        self._real_name = real_name
        self._places = places or {}
        self.builtins: dict[str, Any] = {**vars(builtins), "__import__": self._import}
        """What a module of this scope has as ``__builtins__``."""

    def find(self, fullname: str, path: Sequence[str] | None) -> ModuleSpec | None:
        """A module of this scope; ``path`` is where Python would look."""
        place = self._places.get(fullname)
        spec = PathFinder.find_spec(fullname, path if place is None else [place])
        if spec is not None and spec.origin is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(fullname, spec.origin, self)
        return spec

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,  # noqa: A002 (the names are Python's)
        locals: Mapping[str, object] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """As ``builtins.__import__``, with names as this scope means them. Relative imports need no meaning."""
        top, dot, rest = name.partition(".")
        real = top if level else self._real_name(top)
        if real == top:
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        try:
            module = builtins.__import__(real + dot + rest, globals, locals, fromlist or (), 0)
        except ModuleNotFoundError as error:
            if error.name is None or not error.name.startswith(real + "."):
                raise
            shown = top + error.name.removeprefix(real)  # the name that stands in the importing file
            raise ModuleNotFoundError(f"No module named {shown!r}", name=shown) from None
        return module if fromlist else sys.modules[real]


def enter(scope: ImportScope, packages: Iterable[str]) -> None:
    """From now on, these packages and what lies below them are loaded into ``scope``; the longest name counts."""
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    _FINDER.scopes.update(dict.fromkeys(packages, scope))


class _Loader(SourceFileLoader):
    """Runs a module with its scope's builtins."""

    def __init__(self, fullname: str, path: str, scope: ImportScope) -> None:
        super().__init__(fullname, path)
        self._scope = scope

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__builtins__"] = self._scope.builtins
        super().exec_module(module)


class _Finder(MetaPathFinder):
    """Finds what belongs to a scope, and nothing else."""

    def __init__(self) -> None:
        self.scopes: dict[str, ImportScope] = {}

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,  # noqa: ARG002 (Python's signature)
    ) -> ModuleSpec | None:
        name = fullname
        while name and name not in self.scopes:
            name = name.rpartition(".")[0]
        return self.scopes[name].find(fullname, path) if name else None


_FINDER: Final = _Finder()
