"""Which task to audit, and which genesis to trust."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import msgspec

from aggregation.errors import UsageProblem
from backends.tasks import TaskFile, read_task_file, task_names

_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def task_to_audit(home: Path, task: str | None, genesis_sha256: str | None) -> TaskFile:
    """The task's file, with ``genesis_sha256`` in the place of the pinned hash if it is given.

    An auditor's machine need not know the task: ``--task`` and ``--genesis`` together say everything. Raises FLV-5012
    (not a SHA-256) and what ``read_task_file`` raises.
    """
    if genesis_sha256 is None:
        return read_task_file(home, task)
    genesis_sha256 = genesis_sha256.lower()
    if not _SHA256.fullmatch(genesis_sha256):
        raise UsageProblem(
            "FLV-5012",
            f"--genesis {genesis_sha256!r} is not a SHA-256, which has 64 hexadecimal digits",
            hint="whoever created the task can tell it: `fluvial task list --json`",
        )
    if task is not None and task not in task_names(home):
        return TaskFile(task=task, genesis_sha256=genesis_sha256, reference="", regions=())
    return msgspec.structs.replace(read_task_file(home, task), genesis_sha256=genesis_sha256)
