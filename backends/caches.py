"""Places for what libraries keep between two starts, on a machine where their own choice cannot be written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, MutableMapping
from pathlib import Path

from aggregation.errors import FluvialError
from backends.folders import can_be_written

Places = Iterable[Callable[[], Path]]
"""Where a folder may be made, the best first; each may raise that there is no such place."""


def keep_compiled_code(environ: MutableMapping[str, str], beside_source: Path, places: Places) -> Path | None:
    """Where numba keeps compiled code: ``beside_source`` where that can be written, else the first of ``places``.

    None: nowhere, so every process compiles anew. Sets NUMBA_CACHE_DIR, unless somebody has, for this process and those
    that it starts; it has to be called before numba is imported.
    """
    chosen = environ.get("NUMBA_CACHE_DIR")
    if chosen and can_be_written(Path(chosen)):
        return Path(chosen)
    if can_be_written(beside_source):
        return beside_source
    folder = _first(places, "compiled")
    if folder is not None:
        environ["NUMBA_CACHE_DIR"] = str(folder)
    return folder


def keep_matplotlib(environ: MutableMapping[str, str], places: Places) -> None:
    """Name a folder for matplotlib where its own would be in a home that is not there: else it warns at every start."""
    if "MPLCONFIGDIR" in environ or has_home():
        return
    folder = _first(places, "matplotlib")
    if folder is not None:
        environ["MPLCONFIGDIR"] = str(folder)


def has_home() -> bool:
    """Whether this user has a home directory that can be written."""
    try:
        return os.access(Path.home(), os.W_OK | os.X_OK, effective_ids=True)
    except RuntimeError:
        return False


def _first(places: Places, name: str) -> Path | None:
    for place in places:
        with contextlib.suppress(FluvialError):
            folder = place() / name
            if can_be_written(folder):
                return folder
    return None
