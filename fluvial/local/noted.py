"""What a machine notes of a task that it creates, in ``task.json``, and keeps when the task is created again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from aggregation.errors import UsageProblem
from backends.tasks import TaskFile, read_task_file
from schemas.objects import sha256_hex

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from schemas.manifests import Genesis


class Noted(NamedTuple):
    """What the genesis document does not say. ``given`` and ``split`` (devices, alpha) are None where nobody said."""

    reference: str
    seed: int
    given: Mapping[str, Any] | None
    split: tuple[int, float] | None
    heartbeats: bool = False


def task_file_of(home: Path, genesis: Genesis, noted: Noted) -> TaskFile:
    """The task's file; what was not said is as this machine has noted it before, if it was this very task."""
    sha256 = sha256_hex(genesis.canonical())
    before = _before(home, genesis.task, sha256)
    given, split = noted.given, noted.split
    if before is not None:
        given = before.settings if given is None else given
        split = (before.devices, before.alpha) if split is None else split  # type: ignore[assignment]
    devices, alpha = split or (None, None)
    return TaskFile(
        task=genesis.task,
        genesis_sha256=sha256,
        reference=noted.reference,
        regions=tuple(sorted(genesis.regions)),
        seed=noted.seed,
        settings=dict(given or {}),
        devices=devices,
        alpha=alpha,
        guided=True if genesis.is_guided else msgspec.UNSET,
        heartbeats=True
        if noted.heartbeats or (before is not None and before.has_heartbeats)
        else msgspec.UNSET,
    )


def _before(home: Path, task: str, sha256: str) -> TaskFile | None:
    """None where the task is new here, or its file is damaged."""
    try:
        file = read_task_file(home, task)
    except UsageProblem:
        return None
    return file if file.genesis_sha256 == sha256 else None
