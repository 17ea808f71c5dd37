"""What the server imports, once, before it forks: all that the long-running processes and the commands use."""

from __future__ import annotations

import importlib
from typing import Final

from tests import warming

MODULES: Final = (
    *(
        f"fluvial.commands.{name}"
        for name in ("analysts", "canary", "console", "fleet", "operators", "processes")
    ),
    *("fluvial.commands.skip", "fluvial.commands.tasks", "fluvial.proof.audit", "learning.task", "minio"),
    *(f"stream_apps.{name}.app" for name in ("evaluator", "merger", "worker")),
)

for module in MODULES:
    importlib.import_module(module)
warming.call_kernels()
