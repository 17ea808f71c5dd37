"""The program of a task, for processes that run users' code: they wait while the store is away."""

from __future__ import annotations

import logging

from backends.object_store import StoreUnavailable
from backends.outages import retry_through_outage
from backends.programs import find_program
from backends.settings import Settings
from backends.store.task_store import TaskStore
from schemas.manifests import Genesis


def task_program(
    settings: Settings, store: TaskStore, genesis: Genesis, reference_here: str, log: logging.Logger
) -> str:
    """What ``load_task`` takes; ``reference_here`` is where this machine's task.json says that its code is.

    That the file here is another one than the task's is a warning in ``log``. Raises as ``find_program`` does, but
    while the store is away.
    """
    return retry_through_outage(
        "read the task's program",
        lambda: find_program(settings.home, genesis, store.get_object, reference_here, say=log.warning),
        (StoreUnavailable,),
    )
