"""``fluvial edge``: aggregators below a region, each with a Kafka of its own or the region's."""

from __future__ import annotations

from pathlib import Path

import click

from backends.keys import issue, load_key_pair, signer_path
from backends.tasks import keys_folder, read_task_file, task_folder
from fluvial.commands.processes import key_option, name_option, process_name, run_app, task_option
from fluvial.processes.identity import ProcessIdentity
from fluvial.processes.metrics_server import MetricsOptions, metrics_options
from fluvial.processes.observing import observing
from fluvial.terminal.invocation import Invocation, json_option, pass_invocation
from fluvial.terminal.key_place import KeyPlace
from schemas.certificates import Role

KEYS_NAME = "edge"
"""What the two keys of an edge are called that ``fluvial edge create`` issues."""


@click.group()
def edge() -> None:
    """Aggregate devices' updates near them, and publish one window upward in the place of all."""


@edge.command("create")
@task_option
@click.argument("edge_name", metavar="NAME")
@json_option
@pass_invocation
def create(invocation: Invocation, *, task: str | None, edge_name: str) -> None:
    """Make the topics and the two keys of edge NAME, such as eu.e1 below the region eu. What is there stays.

    The topics are made on the Kafka that the settings name: the edge's own. The keys need the region's CA here.
    """
    from backends.environment import load_key_settings
    from backends.kafka.admin import declare_topics
    from backends.keys import Keeping
    from schemas.topics import topics_of_edge
    from stream_apps.edge.app import require_edge
    from stream_apps.process_context import open_task

    file = read_task_file(invocation.home, task)
    settings = invocation.settings("admin")
    _, genesis = open_task(settings, file.task, file.genesis_sha256)
    require_edge(genesis, edge_name)
    made = declare_topics(settings, topics_of_edge(file.task, edge_name))
    folder, keeping = keys_folder(invocation.home, file.task), Keeping(load_key_settings())
    paths = {
        role.value: str(issue(folder, edge_name, role, KEYS_NAME, keeping))
        for role in (Role.WORKER, Role.EDGE)
    }
    document = {"task": file.task, "edge": edge_name, "topics": sorted(made), "keys": paths}
    invocation.output.document(document)
    invocation.output.print(f"edge {edge_name}: {len(made)} topics made; keys {' and '.join(paths.values())}")
    invocation.output.print(f"next: {invocation.command} edge start {edge_name} --task {file.task}")


@edge.command("start")
@task_option
@click.argument("edge_name", metavar="NAME")
@click.option(
    "--parent",
    metavar="HOST:PORT",
    default="",
    help="The Kafka of the log above. Default: FLUVIAL_PARENT_BOOTSTRAP_SERVERS, else the edge's own Kafka.",
)
@name_option
@key_option
@click.option(
    "--edge-key",
    type=KeyPlace(),
    help="The key (role edge) that signs what goes up. Default: the one that `fluvial edge create` issued.",
)
@metrics_options
@json_option
@pass_invocation
def start(
    invocation: Invocation,
    *,
    task: str | None,
    edge_name: str,
    parent: str,
    name: str | None,
    key: Path | str | None,
    edge_key: Path | str | None,
    metrics_port: int,
    no_metrics: bool,
) -> int:
    """Run edge NAME until SIGTERM or Ctrl-C. What was under way is in its log, and is done again by the next one.

    The edge folds its devices' updates by the task's policy, gives each a verdict, and publishes every closed window to
    the log above. Barriers and announcements come down to its own Kafka, where its devices read them.
    """
    from backends.parent_settings import load_parent_settings
    from stream_apps import running
    from stream_apps.edge import app as edge_app

    running.configure_logging()
    file = read_task_file(invocation.home, task)
    settings, keys = invocation.settings("worker"), keys_folder(invocation.home, file.task)
    above = load_parent_settings(invocation.home_option, address=parent)
    name = process_name(name, f"edge-{edge_name}")
    pairs = edge_app.EdgeKeys(
        worker=load_key_pair(key or signer_path(keys, edge_name, Role.WORKER, KEYS_NAME), settings.key),
        edge=load_key_pair(edge_key or signer_path(keys, edge_name, Role.EDGE, KEYS_NAME), settings.key),
    )
    identity = ProcessIdentity(file.task, "worker", name, edge_name, pairs.worker.certificate)
    folder = task_folder(invocation.home, file.task) / "edges" / edge_name
    folder.mkdir(parents=True, exist_ok=True)
    with observing(settings, identity, MetricsOptions(metrics_port, not no_metrics)) as observer:
        app = edge_app.build_app(
            settings,
            above,
            task=file.task,
            edge=edge_name,
            name=name,
            genesis_sha256=file.genesis_sha256,
            keys=pairs,
            data_folder=folder,
            observer=observer,
        )
        return run_app(invocation, file, app, observer, role="edge", name=name)
