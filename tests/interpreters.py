"""Interpreters beside the one that runs this: the same code has to come to the same bytes on them.

    python -m tests.interpreters

prints their paths, a line each.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

VERSIONS: Final = ("3.11", "3.12", "3.13")


def others() -> dict[str, str]:
    """Paths by version, of those that are here and start: from PATH, and from where pyenv keeps what it installed."""
    roots = Path.home() / ".pyenv" / "versions"
    own = "{}.{}".format(*sys.version_info[:2])
    found = {}
    for version in VERSIONS:
        if version == own:
            continue
        candidates = [
            shutil.which(f"python{version}"),
            *map(str, sorted(roots.glob(f"{version}.*/bin/python{version}"))),
        ]
        working = next((one for one in candidates if one is not None and _answers(one)), None)
        if working is not None:
            found[version] = working
    return found


def _answers(path: str) -> bool:
    """Whether it starts: pyenv's shims are there for interpreters that are not chosen, too."""
    return subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    sys.stdout.writelines(f"{path}\n" for path in others().values())
