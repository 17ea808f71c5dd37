"""`fluvial worker`, `fluvial merger`, `fluvial evaluator`: the long-running processes. SIGTERM ends each cleanly."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import click

from adapters.keys import load_signer, signer_path
from adapters.tasks import TaskFile, keys_folder, read_task_file, task_folder
from ops.commands.tasks import check_known_region
from ops.context import Invocation, json_option, pass_invocation
from schemas.certificates import CONTROL, Role

if TYPE_CHECKING:
    import faust

task_option = click.option("--task", help="Which task. Default: the one created last on this machine.")
name_option = click.option(
    "--name", help="This process's name in logs and data folders. Default: host and pid."
)
key_option = click.option(
    "--key",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Key and certificate (PEM). Default: the one that `fluvial task create` issued.",
)


@click.command()
@task_option
@click.option("--region", required=True, help="The region whose updates this worker folds.")
@name_option
@key_option
@json_option
@pass_invocation
def worker(invocation: Invocation, task: str | None, region: str, name: str | None, key: Path | None) -> int:
    """Fold a region's updates. Any number of workers share its partitions; any may join, leave or die at any time."""
    from stream_apps import regional_worker, running

    running.configure_logging()
    file = read_task_file(invocation.home, task)
    if key is None:
        check_known_region(file, region)  # there would be no key, and that would be the wrong complaint
    settings, keys = invocation.settings(), keys_folder(invocation.home, file.task)
    name = name or _default_name(f"worker-{region}")
    app = regional_worker.build_app(
        settings,
        task=file.task,
        region=region,
        name=name,
        genesis_sha256=file.genesis_sha256,
        signer=load_signer(key or signer_path(keys, region, Role.WORKER, f"worker-{region}")),
        data_folder=_data_folder(invocation, file, name),
    )
    return _run(invocation, file, app, role="worker", name=name)


@click.command()
@task_option
@name_option
@key_option
@json_option
@pass_invocation
def merger(invocation: Invocation, task: str | None, name: str | None, key: Path | None) -> int:
    """Merge the regions' windows into versions. Two at once are harmless: they race for one conditional PUT."""
    from stream_apps import merger as merger_app
    from stream_apps import running

    running.configure_logging()
    file = read_task_file(invocation.home, task)
    settings, keys = invocation.settings(), keys_folder(invocation.home, file.task)
    name = name or _default_name("merger")
    app = merger_app.build_app(
        settings,
        task=file.task,
        name=name,
        genesis_sha256=file.genesis_sha256,
        signer=load_signer(key or signer_path(keys, CONTROL, Role.MERGER, "merger")),
        data_folder=_data_folder(invocation, file, name),
    )
    return _run(invocation, file, app, role="merger", name=name)


@click.command()
@task_option
@name_option
@json_option
@pass_invocation
def evaluator(invocation: Invocation, task: str | None, name: str | None) -> int:
    """Evaluate every version on held-out data, and publish what it finds to the metrics topic."""
    from stream_apps import evaluator as evaluator_app
    from stream_apps import running

    running.configure_logging()
    file = read_task_file(invocation.home, task)
    settings = invocation.settings()
    name = name or _default_name("evaluator")
    app = evaluator_app.build_app(
        settings,
        task=file.task,
        name=name,
        genesis_sha256=file.genesis_sha256,
        reference=file.reference,
        data_folder=_data_folder(invocation, file, name),
    )
    return _run(invocation, file, app, role="evaluator", name=name)


def _run(invocation: Invocation, file: TaskFile, app: faust.App, *, role: str, name: str) -> int:
    from stream_apps import running

    code = running.run(app)
    invocation.output.document({"task": file.task, "role": role, "name": name, "exit_code": code})
    return code


def _default_name(kind: str) -> str:
    return f"{kind}-{socket.gethostname().lower()}-{os.getpid()}"


def _data_folder(invocation: Invocation, file: TaskFile, name: str) -> Path:
    folder = task_folder(invocation.home, file.task) / "processes" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
