"""``fluvial task list``, ``show``, ``stop``, ``rm`` and ``discard``: one task from its genesis to its end."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from aggregation.errors import Finding, FluvialError, UsageProblem
from fluvial.terminal.invocation import Invocation, json_option, pass_invocation

if TYPE_CHECKING:
    from backends.settings import Settings
    from backends.tasks import TaskFile
    from schemas.manifests import Genesis

name_argument = click.argument("task_name", metavar="[TASK]", required=False)


@click.command("list")
@json_option
@pass_invocation
def list_tasks(invocation: Invocation) -> None:
    """List the tasks that this machine knows."""
    from backends.tasks import read_task_file, task_names

    files = [read_task_file(invocation.home, name) for name in task_names(invocation.home)]
    invocation.output.document({"tasks": [task_document(file) for file in files]})
    if not files:
        invocation.output.print("no task was created here; begin with `fluvial task create digits`")
        return
    rows = [
        (file.task, ", ".join(file.regions), file.reference, file.seed, file.genesis_sha256[:16])
        for file in files
    ]
    invocation.output.table(["task", "regions", "code", "seed", "genesis"], rows)


def task_document(file: TaskFile) -> dict[str, object]:
    """What this machine has noted of a task, for JSON."""
    return {
        "task": file.task,
        "genesis_sha256": file.genesis_sha256,
        "reference": file.reference,
        "regions": list(file.regions),
        "seed": file.seed,
        "settings": file.settings,
    }


@click.command()
@name_argument
@json_option
@pass_invocation
def show(invocation: Invocation, task_name: str | None) -> None:
    """Show what a task is made of, where it stands, and what of it runs here. Default: the newest."""
    from backends.tasks import keys_folder, read_task_file
    from fluvial.local.removing import keys_of
    from fluvial.processes.running import running_of

    file = read_task_file(invocation.home, task_name)
    running = running_of(invocation.home, file.task)
    document: dict[str, Any] = {
        **task_document(file),
        "devices": file.devices,
        "alpha": file.alpha,
        "keys": keys_of(invocation.home, file.task),
        "keys_folder": str(keys_folder(invocation.home, file.task)),
        "running": [dataclasses.asdict(one) for one in running],
    } | _in_store(invocation, file)
    invocation.output.document(document)
    invocation.output.table(
        ["what", "value"], [(name, _words(value)) for name, value in document.items() if value is not None]
    )


def _in_store(invocation: Invocation, file: TaskFile) -> dict[str, Any]:
    """What the store has of it; why it cannot be asked, where it cannot."""
    from backends.store.factory import open_object_store
    from backends.store.task_store import TaskStore

    try:
        store = TaskStore(open_object_store(invocation.settings().store), file.task)
        genesis, head = store.genesis(file.genesis_sha256), store.head()
    except FluvialError as problem:
        return {"store": f"not asked: {problem.message}"}
    return {
        "store": store.store.describe(),
        "version": head.version if head else None,
        **genesis_document(genesis),
    }


def genesis_document(genesis: Genesis) -> dict[str, Any]:
    """What a genesis document says that people ask for."""
    layout = genesis.tensor_layout
    return {
        "format": genesis.format,
        "partitions": genesis.partitions,
        "parameters": layout.parameters,
        "tensors": len(layout.tensors),
        "model": genesis.model.kind,
        "code_sha256": genesis.code.sha256 if genesis.code else None,
        "metric": _fields(genesis.metric),
        "parent": _fields(genesis.parent),
        "policy_sha256": genesis.first_policy.sha256,
    }


def _fields(struct: Any) -> dict[str, Any] | None:
    """A struct's fields; None for None."""
    import msgspec

    return None if struct is None else msgspec.structs.asdict(struct)


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {one}" for key, one in value.items()) or "none"
    if isinstance(value, list):
        named = [f"{one['name']} (pid {one['pid']})" if isinstance(one, dict) else str(one) for one in value]
        return ", ".join(named) or "nothing"
    return str(value)


@click.command()
@name_argument
@json_option
@pass_invocation
def stop(invocation: Invocation, task_name: str | None) -> None:
    """Stop what of a task runs on this machine, a `fluvial run` of it included. Data stays, Kafka and the store too."""
    from backends.tasks import read_task_file
    from fluvial.processes.running import running_of, stop_running

    file = read_task_file(invocation.home, task_name)
    running = running_of(invocation.home, file.task)
    left = stop_running(running, invocation.output) if running else []
    names = [one.name for one in running if one not in left]
    invocation.output.document({"task": file.task, "stopped": names, "left": [one.name for one in left]})
    invocation.output.print(
        f"stopped {', '.join(names)}" if names else f"nothing of {file.task} runs on this machine"
    )
    if left:
        raise Finding(
            "FLV-6325",
            f"{', '.join(one.name for one in left)} did not end",
            where=", ".join(f"pid {one.pid}" for one in left),
            hint="repeat `fluvial task stop`, or end them with `kill -9`: no version is lost by it",
        )


@click.command()
@click.argument("task_name", metavar="TASK")
@click.option("--keep-keys", is_flag=True, help="Leave its CAs and issued keys where they are.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_invocation
def rm(invocation: Invocation, task_name: str, *, keep_keys: bool, yes: bool) -> None:
    """Remove TASK for good: its topics, its objects, and what this machine has of it. Other tasks are left alone."""
    from backends.kafka.admin import require_broker
    from backends.tasks import read_task_file
    from fluvial.local.removing import keys_of, remove_task
    from fluvial.processes.running import running_of

    output, settings = invocation.output, invocation.settings("admin")
    file = read_task_file(invocation.home, task_name)
    running = running_of(invocation.home, file.task)
    if running:
        raise UsageProblem(
            "FLV-6324",
            f"the task {file.task} is at work: {', '.join(one.name for one in running)}",
            hint=f"stop it first with `fluvial task stop {file.task}`",
        )
    require_broker(settings)
    output.confirm(
        _question(settings, file, keys_of(invocation.home, file.task), keep_keys=keep_keys), yes=yes
    )
    removed = remove_task(settings, file, output, keep_keys=keep_keys)
    output.document(
        {
            "task": file.task,
            "topics": removed.topics,
            "objects": removed.objects,
            "keys_deleted": removed.keys,
            "kept": [str(path) for path in removed.kept],
        }
    )
    output.print(
        f"removed {file.task}: {removed.topics} topics, {removed.objects} objects, {removed.keys} keys"
    )
    for path in removed.kept:
        output.print(f"kept    {path}")


def _question(settings: Settings, file: TaskFile, keys: int, *, keep_keys: bool) -> str:
    fate = (
        f"its {keys} keys stay"
        if keep_keys
        else f"its {keys} keys go, and nobody can issue certificates for it or sign its records any more"
    )
    return (
        f"Remove the task {file.task} for good? Its logs at {settings.bootstrap_servers} and all of its versions go, "
        f"for every machine that uses them; {fate}."
    )


@click.command()
@click.argument("task_name", metavar="TASK")
@click.option(
    "--version",
    type=click.IntRange(1),
    required=True,
    help="The one that a merger refuses: FLV-3305 names it.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_invocation
def discard(invocation: Invocation, task_name: str, *, version: int, yes: bool) -> None:
    """Remove a version that mergers refuse (FLV-3305): one that was planted, or whose certificate has ended."""
    from fluvial.proof.discarding import discard as discard_version
    from fluvial.proof.discarding import flaws_of
    from fluvial.reading.task_view import open_task

    output = invocation.output
    with open_task(invocation, task_name, "admin") as view:  # nobody else may delete
        why = flaws_of(view, version, output)
        for one in why:
            output.print(one)
        output.confirm(
            f"Remove version {version} of {view.task} from {view.objects.store.describe()}? No merger made it, and "
            "nobody was told of it.",
            yes=yes,
        )
        gone = discard_version(view, version, why)
    output.document(
        {
            "task": view.task,
            "version": version,
            "manifest_sha256": gone.manifest_sha256,
            "objects": gone.objects,
            "why": list(gone.why),
        }
    )
    output.print(
        f"removed version {version}, {gone.objects} objects; its manifest is kept as the object {gone.manifest_sha256}"
    )
