"""Who may do what on the local stack, where it is secured: set when a task is made, gone when it is removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aggregation.errors import UsageProblem
from backends.environment import read_stack_file
from backends.kafka import permissions as kafka_permissions
from backends.store import permissions as store_permissions
from backends.tasks import read_task_file, task_names
from fluvial.local import ports
from fluvial.local.files import ensure_credentials, store_user
from fluvial.local.tls_keys import principal
from schemas.access import ROLES, Grant, access_of
from schemas.store_access import policies_of, policy_name, store_access_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from backends.settings import Settings
    from backends.tasks import TaskFile
    from fluvial.terminal.output import Reporter


def permit_task(
    settings: Settings, task: str, regions: Iterable[str], *, guided: bool = False, heartbeats: bool = False
) -> int:
    """Give every role of a task what it needs, and no more; how many permissions. None where no service is ours."""
    given = 0
    if _is_our_kafka(settings):
        given += kafka_permissions.permit(settings, _grants(task, regions, guided, heartbeats), _holder)
    if is_our_store(settings):
        given += store_permissions.permit(settings.store, store_policies(settings, task, guided=guided))
    return given


def forbid_task(
    settings: Settings, task: str, regions: Iterable[str], *, guided: bool = False, heartbeats: bool = False
) -> int:
    """Take it away again; how many permissions there were."""
    taken = 0
    if _is_our_kafka(settings):
        taken += kafka_permissions.forbid(settings, _grants(task, regions, guided, heartbeats), _holder)
    if is_our_store(settings):
        taken += store_permissions.forbid(settings.store, store_policies(settings, task, guided=guided))
    return taken


def permit_known_tasks(settings: Settings, reporter: Reporter) -> int:
    """For a home whose tasks were made before it was secured, or by a release that knew of other permissions.

    A task whose file is damaged keeps what it has, and is told: the others need their stack.
    """
    files = list(_readable(settings.home, reporter))
    given = 0
    if is_our_store(settings):
        make_store_users(settings)
        policies = [store_policies(settings, file.task, guided=file.is_guided) for file in files]
        given += store_permissions.permit(settings.store, [one for some in policies for one in some])
    if _is_our_kafka(settings):
        grants = [
            grant
            for file in files
            for grant in _grants(file.task, file.regions, file.is_guided, file.has_heartbeats)
        ]
        given += kafka_permissions.permit(settings, grants, _holder)
    return given


def _readable(home: Path, reporter: Reporter) -> Iterator[TaskFile]:
    for name in task_names(home):
        try:
            yield read_task_file(home, name)
        except UsageProblem as problem:
            reporter.say(
                f"warning[{problem.error_id}]: task {name} gets no permissions: {problem.message}\n"
                f"hint: {problem.hint}, and run `fluvial up` again"
            )


def make_store_users(settings: Settings) -> None:
    """A user of the store for each role, by the keys that the home has for it.

    All are told each time: a key that was lost, or written by an ``up`` that ended before it was told, is no dead end.
    """
    made = [ensure_credentials(settings.home, role)[0] for role in ROLES]
    store_permissions.set_users(settings.store, {one.store_access_key: one.store_secret_key for one in made})


def store_policies(
    settings: Settings, task: str, *, guided: bool = False
) -> list[store_permissions.HeldPolicy]:
    """A task's permissions in the local stack's store, by the roles' users."""
    documents = policies_of(settings.store.bucket, store_access_of(task, guided=guided))
    return [
        store_permissions.HeldPolicy(policy_name(task, role), store_user(settings.home, role), document)
        for role, document in documents.items()
    ]


def _grants(
    task: str,
    regions: Iterable[str],
    guided: bool,  # noqa: FBT001 (as its callers say it)
    heartbeats: bool,  # noqa: FBT001
) -> tuple[Grant, ...]:
    return access_of(task, dict.fromkeys(regions, 1), guided=guided, heartbeats=heartbeats)


def _holder(grant: Grant) -> str:
    return principal(grant.role)


def _is_our_kafka(settings: Settings) -> bool:
    stack = read_stack_file(settings.home)
    if stack is None or not stack.secured:
        return False
    return settings.bootstrap_servers == f"{ports.LOOPBACK}:{stack.kafka_port}"


def is_our_store(settings: Settings) -> bool:
    """Whether the store is the local stack's, and secured."""
    stack = read_stack_file(settings.home)
    if stack is None or not stack.store_secured:
        return False
    return settings.store.endpoint == f"{ports.LOOPBACK}:{stack.store_port}"
