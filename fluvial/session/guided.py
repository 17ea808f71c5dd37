"""The guardian of a simulation, where its policy is guided."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backends import keys
from fluvial.local.create import GUARDIAN
from schemas.certificates import CONTROL, Role
from stream_apps.guardian.making import Making

if TYPE_CHECKING:
    from pathlib import Path

    from fluvial.session.in_process import InProcessFederation
    from learning import Task, TrainConfig


def guide(
    federation: InProcessFederation, task: Task, folder: Path, *, seed: int, train_config: TrainConfig
) -> None:
    """Give a federation the guardian that its policy asks for, if any; ``folder`` has the task's keys.

    UsageProblem FLV-2250, FLV-2251: its root set is none to go by.
    """
    from learning.root_set import require_coverage, root_set_of

    if not federation.genesis.is_guided:
        return
    root = root_set_of(task)
    require_coverage(root)
    key_pair = keys.load_key_pair(keys.signer_path(folder, CONTROL, Role.GUARDIAN, GUARDIAN))
    federation.add_guardian(
        key_pair, lambda context: Making(context, task, root, seed=seed, train_config=train_config)
    )
