"""Environments with packages that the locked one has no place for: of their own, in the cache, made where needed."""

from __future__ import annotations

import sys
import sysconfig
from functools import cache
from pathlib import Path

from benchmarks.peer_runs import Peer


@cache
def python_with(name: str, *requirements: str) -> Path:
    """The interpreter of an environment with these packages; torch and all else it has from this one, behind them."""
    folder = Peer(name, requirements).environment()
    packages = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (packages / "shared.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return folder / "bin" / "python"
