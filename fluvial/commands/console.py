"""``fluvial console``: the live page on a task."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from fluvial.processes.metrics_server import PORT_MAX
from fluvial.terminal.invocation import Invocation, pass_invocation

PORT: Final = 8440


@click.command()
@click.option("--task", "task_name", help="Only this task. Default: all of this machine, the newest first.")
@click.option(
    "--port",
    type=click.IntRange(0, PORT_MAX),
    default=PORT,
    show_default=True,
    help="Where it listens; 0: a free port, which is printed.",
)
@click.option("--any-port", is_flag=True, help="Take a free port where --port is taken.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Another address needs --token, --tls-cert and --tls-key.",
)
@click.option(
    "--allow-host", "allow_hosts", multiple=True, metavar="NAME", help="A name under which it may be opened."
)
@click.option(
    "--token", help="The operator's token. Default: a random one in the home, made at the first start."
)
@click.option("--tls-cert", type=click.Path(path_type=Path, dir_okay=False), help="Certificate chain, PEM.")
@click.option("--tls-key", type=click.Path(path_type=Path, dir_okay=False), help="Its key, PEM.")
@pass_invocation
def console(
    invocation: Invocation,
    *,
    task_name: str | None,
    port: int,
    any_port: bool,
    host: str,
    allow_hosts: tuple[str, ...],
    token: str | None,
    tls_cert: Path | None,
    tls_key: Path | None,
) -> int:
    """Serve a live page on what the topics and the store say, until Ctrl-C. It reads only, and holds no truth."""
    from fluvial.console.run import Options, serve

    options = Options(
        home=invocation.home,
        command=invocation.command,
        host=host,
        port=port,
        allow_hosts=allow_hosts,
        token=token,
        tls_cert=tls_cert,
        tls_key=tls_key,
        task=task_name,
        any_port=any_port,
    )
    return serve(options, invocation.output.say)
