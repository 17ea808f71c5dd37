"""From options to a console that serves, and back to nothing."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import signal
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiohttp import web

from backends.tasks import read_task_file
from fluvial.console.connections import Connections
from fluvial.console.limits import HOST, IDLE_S, PORT
from fluvial.console.problems import open_to_others, port_taken, tls_files
from fluvial.console.security import Hosts, Token, is_loopback, read_or_make_token, token_path
from fluvial.console.server import Access, Console
from fluvial.console.watch import Watches

if TYPE_CHECKING:
    from collections.abc import Callable

INTERRUPTED: Final = 130
_SHUTDOWN_S: Final = 1.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command was told. ``token`` None: the home's own; ``any_port``: a free one where ``port`` is taken."""

    home: Path
    command: str
    host: str = HOST
    port: int = PORT
    allow_hosts: tuple[str, ...] = field(default_factory=tuple)
    token: str | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    task: str | None = None
    any_port: bool = False


def check(options: Options) -> ssl.SSLContext | None:
    """Refuse what cannot be, before anything is opened: UsageProblem FLV-6501, FLV-2401."""
    if (options.tls_cert is None) != (options.tls_key is None):
        raise tls_files("one of the two files was not given")
    if not is_loopback(options.host) and (not options.token or options.tls_cert is None):
        raise open_to_others(options.host)
    if options.task is not None:
        read_task_file(options.home, options.task)
    if options.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # without a password of its own a key that has a passphrase would ask on the terminal
        context.load_cert_chain(options.tls_cert, options.tls_key, password=lambda: "")
    except (OSError, ssl.SSLError) as error:
        raise tls_files(str(error)) from error
    return context


def serve(options: Options, say: Callable[[str], None]) -> int:
    """Serve until a signal; 0 after SIGTERM, 130 after Ctrl-C. ``say`` gets each line for people."""
    context = check(options)
    token = options.token or read_or_make_token(options.home)
    return asyncio.run(_serve(options, context, token, say))


async def _serve(
    options: Options, context: ssl.SSLContext | None, token: str, say: Callable[[str], None]
) -> int:
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def end(number: signal.Signals) -> None:
        if not ended.done():
            ended.set_result(INTERRUPTED if number is signal.SIGINT else 0)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, end, number)
    reading = f"cat {shlex.quote(str(token_path(options.home)))}"
    access = Access(
        Hosts(options.host, options.allow_hosts),
        Token(token),
        f"read it with `{reading}`" if options.token is None else "it is what `--token` was given",
        everything=not is_loopback(options.host),
    )
    console = Console(Watches(options.home, options.task), access, command=options.command)
    runner = web.AppRunner(
        console.application(),
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=_SHUTDOWN_S,
        keepalive_timeout=IDLE_S,
    )
    await runner.setup()
    assert runner.server is not None, "it was set up"
    connections = Connections(runner.server, console.busy)
    server = None
    try:
        server = await _listen(connections, options, context, say)
        port = server.sockets[0].getsockname()[1]
        scheme = "https" if context is not None else "http"
        host = f"[{options.host}]" if ":" in options.host else options.host
        say(f"console: {scheme}://{host}:{port}/")
        if options.token is None:
            say(f"its audit button asks for the operator's token: {reading}")
        return await ended
    finally:
        if server is not None:
            server.close()
        await runner.cleanup()


async def _listen(
    protocol: Callable[[], asyncio.Protocol],
    options: Options,
    context: ssl.SSLContext | None,
    say: Callable[[str], None],
) -> asyncio.Server:
    """Open the port, or with ``any_port`` a free one where it is taken; EnvironmentProblem FLV-6502."""
    try:
        return await _open(protocol, options.host, options.port, context)
    except OSError as error:
        problem = port_taken(options.host, options.port, error.strerror or str(error))
        if not options.any_port:
            raise problem from error
    say(f"port {options.port} is taken: the console takes a free one")
    with contextlib.suppress(OSError):
        return await _open(protocol, options.host, 0, context)
    raise problem


async def _open(
    protocol: Callable[[], asyncio.Protocol], host: str, port: int, context: ssl.SSLContext | None
) -> asyncio.Server:
    return await asyncio.get_running_loop().create_server(
        protocol,
        host.strip("[]"),
        port,
        ssl=context,
        ssl_handshake_timeout=IDLE_S if context is not None else None,
        reuse_address=True,
    )
