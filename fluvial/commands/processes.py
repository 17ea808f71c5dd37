"""``fluvial worker``, ``merger``, ``evaluator``, ``guardian``: long-running processes. SIGTERM ends each cleanly."""

from __future__ import annotations

import math
import os
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from aggregation.errors import UsageProblem
from backends.keys import load_key_pair, signer_path
from backends.tasks import TaskFile, keys_folder, read_task_file, task_folder
from fluvial.commands.run_plan import evaluation_option
from fluvial.commands.tasks import check_known_region, data_option
from fluvial.processes.identity import ProcessIdentity
from fluvial.processes.metrics_server import MetricsOptions, metrics_options
from fluvial.processes.observing import observing
from fluvial.terminal.invocation import Invocation, json_option, pass_invocation, traceback_option
from fluvial.terminal.key_place import KeyPlace
from fluvial.terminal.numbers import ANY
from learning.root_set_limits import EXAMPLES
from schemas.certificates import CONTROL, Role

if TYPE_CHECKING:
    import faust

    from backends.observer import Observer

NAME_CHARACTERS_MAX: Final = 249
"""What Kafka allows for a member's name, as for a topic's."""
_NAME: Final = re.compile(rf"[a-zA-Z0-9._-]{{1,{NAME_CHARACTERS_MAX}}}")

task_option = click.option("--task", help="Which task. Default: the one created last on this machine.")
name_option = click.option(
    "--name",
    help="This process's name in logs, data folders and its region's group. One that comes back under its name gets "
    "its partitions back at once; no two may have the same. Default: kind, host and pid.",
)
key_option = click.option(
    "--key",
    type=KeyPlace(),
    help="Key and certificate (PEM), or a pkcs11: URI. Default: the one that `fluvial task create` issued.",
)


@click.command()
@task_option
@click.option("--region", required=True, help="The region whose updates this worker folds.")
@name_option
@key_option
@metrics_options
@json_option
@pass_invocation
def worker(
    invocation: Invocation,
    *,
    task: str | None,
    region: str,
    name: str | None,
    key: Path | str | None,
    metrics_port: int,
    no_metrics: bool,
) -> int:
    """Fold a region's updates. Any number of workers share its partitions; any may join, leave or die at any time."""
    from stream_apps import running
    from stream_apps.worker import app as regional_worker

    running.configure_logging()
    file = read_task_file(invocation.home, task)
    if key is None:
        check_known_region(file, region)  # there would be no key, and that would be the wrong complaint
    settings, keys = invocation.settings("worker"), keys_folder(invocation.home, file.task)
    name = process_name(name, f"worker-{region}")
    key = key or signer_path(keys, region, Role.WORKER, f"worker-{region}")
    key_pair = load_key_pair(key, settings.key)
    identity = ProcessIdentity(file.task, "worker", name, region, key_pair.certificate)
    with observing(settings, identity, MetricsOptions(metrics_port, not no_metrics)) as observer:
        app = regional_worker.build_app(
            settings,
            task=file.task,
            region=region,
            name=name,
            genesis_sha256=file.genesis_sha256,
            key_pair=key_pair,
            data_folder=_data_folder(invocation, file, name),
            observer=observer,
        )
        return run_app(invocation, file, app, observer, role="worker", name=name)


@click.command()
@task_option
@name_option
@key_option
@metrics_options
@json_option
@pass_invocation
def merger(
    invocation: Invocation,
    *,
    task: str | None,
    name: str | None,
    key: Path | str | None,
    metrics_port: int,
    no_metrics: bool,
) -> int:
    """Merge the regions' windows into versions. Two at once are harmless: they race for one conditional PUT."""
    from stream_apps import running
    from stream_apps.merger import app as merger_app

    running.configure_logging()
    file = read_task_file(invocation.home, task)
    settings, keys = invocation.settings("merger"), keys_folder(invocation.home, file.task)
    name = process_name(name, "merger")
    key = key or signer_path(keys, CONTROL, Role.MERGER, "merger")
    key_pair = load_key_pair(key, settings.key)
    identity = ProcessIdentity(file.task, "merger", name, certificate=key_pair.certificate)
    with observing(settings, identity, MetricsOptions(metrics_port, not no_metrics)) as observer:
        app = merger_app.build_app(
            settings,
            task=file.task,
            name=name,
            genesis_sha256=file.genesis_sha256,
            key_pair=key_pair,
            data_folder=_data_folder(invocation, file, name),
            observer=observer,
        )
        return run_app(invocation, file, app, observer, role="merger", name=name)


@click.command()
@task_option
@name_option
@click.option(
    "--target",
    type=ANY,
    metavar="VALUE",
    help="The value of the task's metric to reach, such as 0.9: the metrics then say which version did first.",
)
@data_option
@evaluation_option
@metrics_options
@traceback_option
@json_option
@pass_invocation
def evaluator(
    invocation: Invocation,
    *,
    task: str | None,
    name: str | None,
    target: float | None,
    data: str,
    evaluation_s: float,
    metrics_port: int,
    no_metrics: bool,
) -> int:
    """Evaluate every version on held-out data, and publish what it finds to the metrics topic."""
    from stream_apps import running
    from stream_apps.evaluator import app as evaluator_app

    running.configure_logging()
    if target is not None and not math.isfinite(target):
        raise UsageProblem(
            "FLV-7042",
            f"--target {target}: expected a finite number",
            hint="`fluvial evaluator --target 0.9`",
        )
    file = read_task_file(invocation.home, task)
    settings = invocation.settings("evaluator")
    name = process_name(name, "evaluator")
    identity = ProcessIdentity(file.task, "evaluator", name)
    with observing(settings, identity, MetricsOptions(metrics_port, not no_metrics, target)) as observer:
        app = evaluator_app.build_app(
            settings,
            task=file.task,
            name=name,
            genesis_sha256=file.genesis_sha256,
            reference_here=file.reference,
            data=data,
            data_folder=_data_folder(invocation, file, name),
            seconds_max=evaluation_s,
            observer=observer,
        )
        return run_app(invocation, file, app, observer, role="evaluator", name=name)


@click.command()
@task_option
@name_option
@key_option
@click.option(
    "--examples",
    type=click.IntRange(1),
    default=EXAMPLES,
    show_default=True,
    help="So many held-out examples are the root set of a task whose file has no guide_data().",
)
@data_option
@click.option(
    "--accept-coverage",
    is_flag=True,
    help="Guide by this root set even if it is small, or lacks classes: honest devices may be refused for it.",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of the training on it."
)
@metrics_options
@traceback_option
@json_option
@pass_invocation
def guardian(
    invocation: Invocation,
    *,
    task: str | None,
    name: str | None,
    key: Path | str | None,
    examples: int,
    data: str,
    accept_coverage: bool,
    seed: int,
    metrics_port: int,
    no_metrics: bool,
) -> int:
    """Guide a task: train on a trusted root set from every version, and publish the signed direction.

    For tasks whose policy has defence.kind = "guide". The root set is what guide_data() of the task file returns, or
    --data, else some of the held-out examples. It never leaves this process.
    """
    from stream_apps import running
    from stream_apps.guardian import app as guardian_app

    running.configure_logging()
    file = read_task_file(invocation.home, task)
    settings, keys = invocation.settings("guardian"), keys_folder(invocation.home, file.task)
    name = process_name(name, "guardian")
    key = key or signer_path(keys, CONTROL, Role.GUARDIAN, "guardian")
    key_pair = load_key_pair(key, settings.key)
    identity = ProcessIdentity(file.task, "guardian", name, certificate=key_pair.certificate)
    with observing(settings, identity, MetricsOptions(metrics_port, not no_metrics)) as observer:
        app = guardian_app.build_app(
            settings,
            task=file.task,
            name=name,
            genesis_sha256=file.genesis_sha256,
            reference_here=file.reference,
            key_pair=key_pair,
            asked=guardian_app.RootSetAsked(
                examples=examples,
                path=data,
                accept_coverage=accept_coverage,
                seed=seed,
                settings=file.settings,
            ),
            data_folder=_data_folder(invocation, file, name),
            observer=observer,
        )
        return run_app(invocation, file, app, observer, role="guardian", name=name)


def run_app(
    invocation: Invocation, file: TaskFile, app: faust.App, observer: Observer, *, role: str, name: str
) -> int:
    """Run an app until it is told to stop; its exit code."""
    from stream_apps import running

    code = running.run(app, observer)
    invocation.output.document({"task": file.task, "role": role, "name": name, "exit_code": code})
    return code


def process_name(chosen: str | None, kind: str) -> str:
    """The name that was chosen, or one that no other process of this machine has; FLV-3211 when it cannot be one."""
    name = f"{kind}-{socket.gethostname().lower()}-{os.getpid()}" if chosen is None else chosen
    if not _NAME.fullmatch(name) or name in {".", ".."}:
        raise UsageProblem(
            "FLV-3211",
            f"a process cannot be called {name!r}: expected 1 to {NAME_CHARACTERS_MAX} of a-z A-Z 0-9 . _ -",
            hint="choose another one with `fluvial worker --name NAME`",
        )
    return name


def _data_folder(invocation: Invocation, file: TaskFile, name: str) -> Path:
    folder = task_folder(invocation.home, file.task) / "processes" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
