"""Our packages in a process that has other modules of their names.

Fluvial is seven top-level packages, and six of them have names that others use too: a user's ``schemas.py`` beside his
script, or some ``backends`` on his PYTHONPATH. Then these names are his, everywhere but in our own code: our package is
loaded as ``fluvial.schemas``, and an import statement in a module of ours that says ``schemas`` means that one. Without
such a clash nothing of this happens: the packages have their plain names, and the importing is Python's own.

What this does not do, and why the packages are not simply inside ``fluvial``: docs/adr/0015-packages-in-a-wheel.md.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from learning.import_scope import ImportScope

SIBLINGS: Final = ("aggregation", "schemas", "backends", "learning", "producers", "stream_apps")
_ROOT: Final = Path(__file__).resolve().parent.parent
_COMMANDS: Final = {"fluvial", "fluvial.cli"}
_real_names: dict[str, str] = {}


def settle() -> None:
    """Take the names of our packages that nobody else has, and keep out of the way of those that somebody has."""
    taken = [name for name in SIBLINGS if not _is_ours(name)]
    if taken:
        _step_aside(taken)
    for name in SIBLINGS:
        own_module(name)


def own_module(name: str) -> ModuleType:
    """Import a module of ours by the name that it has in the source."""
    top, dot, rest = name.partition(".")
    return importlib.import_module(_real_names.get(top, top) + dot + rest)


def _is_ours(name: str) -> bool:
    """Whether importing ``name`` gives, or has given, the package that lies beside this one."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None and _same(spec.origin, _ROOT / name / "__init__.py")


def _same(origin: str, ours: Path) -> bool:
    return origin == str(ours) or Path(origin).resolve() == ours


def _step_aside(taken: Sequence[str]) -> None:
    _real_names.update({name: f"fluvial.{name}" for name in taken})
    mechanism = _import_scope()
    scope: ImportScope = mechanism.ImportScope(
        lambda top: _real_names.get(top, top),
        places={_real_names.get(name, name): str(_ROOT) for name in SIBLINGS},
    )
    mechanism.enter(scope, ["fluvial", *(name for name in SIBLINGS if name not in taken)])
    if _runs_as_command():
        sys.modules["__main__"].__dict__["__builtins__"] = scope.builtins


def _import_scope() -> ModuleType:
    """``learning.import_scope``, found by its place: ``learning`` may be one of the names that are taken."""
    spec = importlib.util.spec_from_file_location(
        "fluvial._import_scope", _ROOT / "learning" / "import_scope.py"
    )
    assert spec is not None, "a .py file has a loader"
    assert spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _runs_as_command() -> bool:
    """Whether this is ``python -m fluvial.cli`` before its first line: Python runs that module as ``__main__``."""
    words = sys.orig_argv
    return sys.argv[:1] == ["-m"] and "-m" in words and words[words.index("-m") + 1] in _COMMANDS
