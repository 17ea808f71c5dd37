"""What the server imports, once, before it forks: every module of ours with all that it imports, and the kernels."""

from __future__ import annotations

import importlib
import pkgutil

from tests import warming

for _package in ("backends", "fluvial", "learning", "producers", "stream_apps"):
    for _found in pkgutil.walk_packages(importlib.import_module(_package).__path__, f"{_package}."):
        if not _found.name.endswith("__main__"):  # a program, which would begin
            importlib.import_module(_found.name)
warming.call_kernels()
