"""``fluvial up``, ``down``, ``doctor`` and ``config``: the local stack and what this machine has for it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click
import msgspec

from backends.environment import load_settings_with_sources
from backends.store.factory import open_object_store
from fluvial.local.stack import LocalStack
from fluvial.processes.metrics_server import remove_targets
from fluvial.terminal.invocation import Invocation, json_option, pass_invocation
from fluvial.terminal.run_options import secured_option

if TYPE_CHECKING:
    from pathlib import Path

    from backends.settings import Settings


@click.command()
@click.option(
    "--store",
    type=click.Choice(["auto", "minio", "file"]),
    default="auto",
    show_default=True,
    help="Where objects go. auto: what this home has, else MinIO if Go can build it, else files.",
)
@click.option(
    "--update-bytes-max",
    type=click.IntRange(min=1024),
    help="The largest update, in bytes; limits of broker, producers and consumers follow. Default: 8 MiB.",
)
@click.option(
    "--with-prometheus",
    is_flag=True,
    help="Also start Prometheus with the rules of Fluvial, where it is installed.",
)
@secured_option
@json_option
@pass_invocation
def up(
    invocation: Invocation,
    store: str,
    update_bytes_max: int | None,
    *,
    with_prometheus: bool,
    secured: bool | None,
) -> None:
    """Start Kafka and the object store on this machine; what runs already is left alone.

    Everything listens on 127.0.0.1 only. The first run fetches Kafka and builds MinIO into a per-user cache.
    """
    output = invocation.output
    choice: Any = store
    stack = LocalStack(
        invocation.home,
        choice,
        output,
        update_bytes_max,
        with_prometheus=with_prometheus,
        secured=secured,
    )
    settings = stack.up()
    services = stack.status()
    output.document({**_describe(settings), "services": [dataclasses.asdict(status) for status in services]})
    how = " (mutual TLS and ACLs)" if settings.kafka.has_tls else ""
    output.print(
        f"up: Kafka {settings.bootstrap_servers}{how}, {open_object_store(settings.store).describe()}"
    )
    for service in services:
        if service.name == "prometheus" and service.state == "running":
            output.print(f"Prometheus: http://{service.address}/alerts")
    output.print(
        f"next: `{invocation.command} demo`, or `{invocation.command} run FILE` with a task of your own; "
        f"`{invocation.command} down` stops it"
    )


@click.command()
@click.option(
    "--delete-data",
    is_flag=True,
    help="Also delete the logs and objects of all tasks, and the stack's credentials. Asks, or needs --yes.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_invocation
def down(invocation: Invocation, *, delete_data: bool, yes: bool) -> None:
    """Stop what `fluvial up` started, and nothing else. Data stays, and the next `up` finds it."""
    output = invocation.output
    if delete_data:
        output.confirm(
            f"Delete all logs and checkpoints in {invocation.home}? {_of_keys(invocation.home)}", yes=yes
        )
    stopped = LocalStack(invocation.home, reporter=output).down(delete_data=delete_data)
    remove_targets(invocation.home)
    output.document({"stopped": stopped, "data_deleted": delete_data})
    output.print(f"down: stopped {' and '.join(stopped)}" if stopped else "down: nothing was running")
    output.print("data deleted" if delete_data else f"data stays in {invocation.home}")
    if delete_data:
        output.print(_of_keys(invocation.home))


def _of_keys(home: Path) -> str:
    """What becomes of the keys where the data goes."""
    from fluvial.local.removing import keys_of

    kept = {
        path.name: keys_of(home, path.name) for path in sorted((home / "tasks").glob("*")) if path.is_dir()
    }
    kept = {task: count for task, count in kept.items() if count}
    if not kept:
        return "No task's keys are here."
    named = ", ".join(f"{count} of {task}" for task, count in kept.items())
    return (
        f"Private keys stay ({named}), with their CAs: a task created again under its name takes them. "
        f"To be rid of them, delete {home / 'tasks'}"
    )


@click.command()
@json_option
@click.pass_context
def doctor(context: click.Context) -> None:
    """Check this machine and the stack: what is wrong, and how to mend it. Exit code 1 on a problem."""
    from fluvial.local.doctor import examine

    invocation = context.ensure_object(Invocation)
    output = invocation.output
    with output.waiting("the checks"):
        checks = examine(invocation)
    problems = sum(check.status == "problem" for check in checks)
    output.document({"checks": [dataclasses.asdict(check) for check in checks], "problems": problems})
    output.table(["check", "status", "found", "how to mend"], [check.row() for check in checks])
    output.print()
    output.print(f"{problems} problem{'s' if problems != 1 else ''}" if problems else "no problem found")
    if problems:
        context.exit(1)


@click.group()
def config() -> None:
    """Show settings and where each comes from."""


@config.command("show")
@click.option("--sources", is_flag=True, help="Also say where each value comes from.")
@json_option
@pass_invocation
def show(invocation: Invocation, *, sources: bool) -> None:
    """Print every setting; secrets are masked."""
    settings, origin = load_settings_with_sources(invocation.home_option)
    values = _flat(settings)
    output = invocation.output
    document: dict[str, Any] = {"settings": values}
    if sources:
        document["sources"] = {name: origin.get(name, "derived") for name in values}
    output.document(document)
    rows = [[name, str(value), origin.get(name, "derived")] for name, value in values.items()]
    columns = ["setting", "value", "source"]
    output.table(columns if sources else columns[:2], rows if sources else [row[:2] for row in rows])


def _describe(settings: Settings) -> dict[str, Any]:
    return {
        "home": str(settings.home),
        "bootstrap_servers": settings.bootstrap_servers,
        "security_protocol": settings.kafka.security_protocol,
        "store": {
            "kind": settings.store.kind,
            "address": settings.store.url,
            "bucket": settings.store.bucket,
        },
        "update_bytes_max": settings.update_bytes_max,
        "message_bytes_max": settings.message_bytes_max,
    }


def _flat(settings: Settings) -> dict[str, Any]:
    shown = msgspec.structs.replace(
        settings, store=settings.store.shown(), kafka=settings.kafka.shown(), key=settings.key.shown()
    )
    document: dict[str, Any] = msgspec.to_builtins(shown, enc_hook=str)
    groups = {group: document.pop(group) for group in ("kafka", "key", "store")}
    document["message_bytes_max"] = settings.message_bytes_max
    return document | {
        f"{group}.{name}": value for group, values in groups.items() for name, value in values.items()
    }
