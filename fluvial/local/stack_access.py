"""Who may do what on the local stack's Kafka, where it is secured: set when a task is made, gone when it is removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backends.environment import read_stack_file
from backends.kafka.permissions import forbid, permit
from backends.tasks import read_task_file, task_names
from fluvial.local import ports
from fluvial.local.tls_keys import principal
from schemas.access import Grant, access_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from backends.settings import Settings


def permit_task(settings: Settings, task: str, regions: Iterable[str], *, guided: bool = False) -> int:
    """Give every role of a task what it needs, and no more; how many permissions. None on a Kafka that is not ours."""
    return permit(settings, _grants(task, regions, guided), _holder) if _is_ours(settings) else 0


def forbid_task(settings: Settings, task: str, regions: Iterable[str], *, guided: bool = False) -> int:
    """Take it away again; how many permissions there were."""
    return forbid(settings, _grants(task, regions, guided), _holder) if _is_ours(settings) else 0


def permit_known_tasks(settings: Settings) -> int:
    """For a home whose tasks were made before it was secured."""
    files = [read_task_file(settings.home, name) for name in task_names(settings.home)]
    return sum(permit_task(settings, file.task, file.regions, guided=file.is_guided) for file in files)


def _grants(task: str, regions: Iterable[str], guided: bool) -> tuple[Grant, ...]:  # noqa: FBT001 (as its callers say it)
    return access_of(task, dict.fromkeys(regions, 1), guided=guided)


def _holder(grant: Grant) -> str:
    return principal(grant.role)


def _is_ours(settings: Settings) -> bool:
    stack = read_stack_file(settings.home)
    if stack is None or not stack.secured:
        return False
    return settings.bootstrap_servers == f"{ports.LOOPBACK}:{stack.kafka_port}"
