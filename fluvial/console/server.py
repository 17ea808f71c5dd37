"""The console's server: addresses, who may ask, errors as JSON, event streams. One page: what answers what."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from aggregation.errors import FluvialError
from fluvial.console import defence, devices_page, flow, records, refusals, version, versions
from fluvial.console.audits import Audits
from fluvial.console.hub import Channel, Hub, encoded
from fluvial.console.limits import BODY_S_MAX, COMMENT_EVERY_S, LOOK_S, REQUEST_BYTES_MAX, SEND_S_MAX
from fluvial.console.now import now_document
from fluvial.console.pages import DocsPages
from fluvial.console.paging import Page, Pool
from fluvial.console.problems import (
    RETRY_AFTER_SECONDS,
    defect,
    document_of,
    nothing_there,
    status_of,
    strange_host,
    token_wanted,
    wrong_query,
)
from fluvial.console.queries import Query, bounded, number_in
from fluvial.console.security import HEADERS, Hosts, Token
from fluvial.console.static import StaticFiles

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from aiohttp.web_protocol import RequestHandler

    from fluvial.console.watch import Watch, Watches

log = logging.getLogger("fluvial.console")

Handler = Any
_AUDIT_TICK_S: Final = 0.5
_STREAM_HEADERS: Final = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}


@dataclass(frozen=True, slots=True)
class Access:
    """Who may ask; ``hint`` says where the token is. With ``everything`` each request needs it, not only what acts."""

    hosts: Hosts
    token: Token
    hint: str
    everything: bool = False


class Console:
    """All that the server needs, from its start to its end."""

    def __init__(self, watches: Watches, access: Access, *, command: str, hub: Hub | None = None) -> None:
        """``command`` is how ``fluvial`` is called for this home, for commands that are shown to be copied."""
        self.watches = watches
        self.access = access
        self.command = command
        self.pool = Pool(command)
        self.hub = hub or Hub()
        self.static = StaticFiles()
        self.pages = DocsPages()
        self.busy: set[RequestHandler] = set()
        self.audits = Audits(watches.home, command, self._audit_changed, watches.genesis_of)
        self._now: dict[str, tuple[float, bytes]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    def application(self) -> web.Application:
        """The whole table of addresses."""
        application = web.Application(
            middlewares=[_errors(self.command), self._guard], client_max_size=REQUEST_BYTES_MAX, logger=log
        )
        application.on_response_prepare.append(_headers)
        application.cleanup_ctx.append(self._running)
        task = "/api/tasks/{task}"
        routes: list[tuple[str, Handler]] = [
            ("/healthz", _healthz),
            ("/api/tasks", self._tasks),
            (f"{task}/now", self._now_answer),
            (f"{task}/events", self._events),
            (f"{task}/versions", self._read(versions.versions_page)),
            (f"{task}/curve", self._read(versions.curve_page)),
            (f"{task}/versions/{{version}}", self._version(version.version_page)),
            (f"{task}/versions/{{version}}/contributors", self._version(version.contributors_page)),
            (f"{task}/versions/{{version}}/manifest", self._manifest),
            (f"{task}/flow", self._read(flow.flow_page)),
            (f"{task}/refused", self._read(refusals.refused_page)),
            (f"{task}/defence", self._read(defence.defence_page)),
            (f"{task}/record", self._read(records.record_page)),
            (f"{task}/fleet", self._read(devices_page.fleet_page)),
            (f"{task}/fleet/devices/{{device}}", self._device),
            (f"{task}/audits", self._audits),
            (f"{task}/audits/{{run}}", self._audit),
            ("/", self.static.answer),
            ("/static/{name:.+}", self.static.answer),
            ("/docs/{name:.+}", self.pages.answer),
        ]
        for path, handler in routes:
            application.router.add_get(path, handler)
        application.router.add_post(f"{task}/audits", self._start_audit)
        return application

    # -- small answers

    async def _tasks(self, _request: web.Request) -> web.Response:
        names = await asyncio.to_thread(self.watches.files)
        return _json(
            {
                "tasks": [{"task": one.task, "genesis_sha256": one.genesis_sha256} for one in names],
                "default": names[-1].task if names else None,
                "version": importlib.metadata.version("fluvial"),
                "command": self.command,
            }
        )

    async def _watch(self, request: web.Request, *, looked: bool = False) -> Watch:
        """The task's; for pages that read, not before there was a first look."""
        task = bounded("task", request.match_info["task"])
        watch = await asyncio.to_thread(self.watches.get, task)
        if looked:
            await watch.looked()
        return watch

    def _read(self, function: Callable[[Page, Query], dict[str, Any]]) -> Handler:
        async def handler(request: web.Request) -> web.Response:
            watch = await self._watch(request, looked=True)
            return _json(await self.pool.run(watch, lambda page: function(page, request.query)))

        return handler

    def _version(self, function: Callable[[Page, int, Query], dict[str, Any]]) -> Handler:
        async def handler(request: web.Request) -> web.Response:
            wanted = number_in("version", request.match_info["version"])
            watch = await self._watch(request, looked=True)
            answer = await self.pool.run(watch, lambda page: function(page, wanted, request.query))
            if "audit" in answer:
                answer["audit"] = self.audits.newest(watch.task, wanted)
            return _json(answer)

        return handler

    async def _manifest(self, request: web.Request) -> web.Response:
        wanted = number_in("version", request.match_info["version"])
        watch = await self._watch(request, looked=True)
        data = await self.pool.run(watch, lambda page: versions.manifest_bytes(page, wanted))
        return web.Response(body=data, content_type="application/json")

    async def _device(self, request: web.Request) -> web.Response:
        watch = await self._watch(request, looked=True)
        device = bounded("device", request.match_info["device"])
        return _json(
            await self.pool.run(watch, lambda page: devices_page.device_page(page, device, request.query))
        )

    # -- audits

    async def _audits(self, request: web.Request) -> web.Response:
        watch = await self._watch(request)
        return _json(self.audits.document(watch.task))

    async def _audit(self, request: web.Request) -> web.Response:
        watch = await self._watch(request)
        return _json(self.audits.get(watch.task, request.match_info["run"]))

    async def _start_audit(self, request: web.Request) -> web.Response:
        if not self.access.token.opens(request.headers.get("Authorization", ""), basic=False):
            raise token_wanted(self.access.hint)
        watch = await self._watch(request)
        try:
            async with asyncio.timeout(BODY_S_MAX):
                body = await request.json()
            wanted = body["version"]
        except (TimeoutError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise wrong_query("body", type(error).__name__, 'JSON as {"version": 3}') from error
        if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 1:
            raise wrong_query("version", str(wanted), "the number of a version above 0")
        await watch.looked()
        head = await self.pool.run(watch, lambda page: page.head)
        if wanted > head:
            raise nothing_there(
                f"there is no version {wanted}, the newest is {head}", "see `fluvial versions`"
            )
        return _json(await self.audits.start(watch.task, wanted), status=202)

    def _audit_changed(self, task: str, document: dict[str, Any]) -> None:
        channel = self.hub.channels.get(task)
        if channel is not None:
            channel.publish("audit", encoded(document))

    # -- now, and its events

    async def now_bytes(self, watch: Watch) -> bytes:
        """The document of ``now``, made and encoded once a second at most, whoever asks."""
        lock = self._locks.setdefault(watch.task, asyncio.Lock())
        async with lock:
            made = self._now.get(watch.task)
            if made is None or time.monotonic() - made[0] >= LOOK_S * 0.9:
                data = await asyncio.to_thread(
                    lambda: encoded(now_document(watch.known(), watch.recent, self.command))
                )
                made = self._now[watch.task] = time.monotonic(), data
            return made[1]

    async def _now_answer(self, request: web.Request) -> web.Response:
        data = await self.now_bytes(await self._watch(request))
        return web.Response(body=data, content_type="application/json")

    async def _events(self, request: web.Request) -> web.StreamResponse:
        watch = await self._watch(request)
        viewer = self.hub.enter(watch.task, request.remote or "")
        response = web.StreamResponse(headers=_STREAM_HEADERS)
        try:
            await response.prepare(request)
            if "now" not in viewer.channel.frames:
                viewer.channel.publish("now", await self.now_bytes(watch))
            await self._send(response, b"retry: 2000\n\n")
            while not viewer.let_go:
                frames = await viewer.next(COMMENT_EVERY_S)
                await self._send(response, frames or b": still here\n\n")
            await self._send(response, self.hub.farewell())
        except (ConnectionError, TimeoutError):
            pass  # the viewer went away, or took nothing for too long
        finally:
            self.hub.leave(viewer)
        return response

    @staticmethod
    async def _send(response: web.StreamResponse, data: bytes) -> None:
        async with asyncio.timeout(SEND_S_MAX):
            await response.write(data)

    async def _running(self, _application: web.Application) -> AsyncIterator[None]:
        ticking = asyncio.create_task(self._tick())
        try:
            yield
        finally:
            ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ticking
            await self.audits.close()
            self.pool.close()
            await asyncio.to_thread(self.watches.end)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            for task, channel in list(self.hub.channels.items()):
                await self._publish(task, channel)

    async def _publish(self, task: str, channel: Channel) -> None:
        try:
            watch = await asyncio.to_thread(self.watches.get, task)
            channel.publish("now", await self.now_bytes(watch))
        except FluvialError as error:
            log.warning("no event for task %s: %s", task, error.message)
        except Exception:  # one event less, told; the next comes in a second
            log.exception("no event for task %s", task)

    # -- who may ask

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.busy.add(request.protocol)
        try:
            _require_admitted(self.access, request)
            answer: web.StreamResponse = await handler(request)
            return answer
        finally:
            self.busy.discard(request.protocol)


def _require_admitted(access: Access, request: web.Request) -> None:
    host = request.headers.get("Host", "")
    if not access.hosts.allows(host):
        raise strange_host(host)
    given = request.headers.get("Authorization", "")
    if access.everything and not access.token.opens(given, basic=True):
        raise token_wanted(access.hint)


async def _healthz(_request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


def _json(document: Any, status: int = 200) -> web.Response:
    return web.Response(body=encoded(document), status=status, content_type="application/json")


async def _headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)
    if "Cache-Control" not in response.headers or request.path.startswith("/api"):
        response.headers["Cache-Control"] = "no-store"
    response.headers.pop("Server", None)


def _errors(command: str) -> Handler:
    """Errors as JSON, with hints that call ``fluvial`` so."""

    @web.middleware
    async def errors(request: web.Request, handler: Callable[[web.Request], Awaitable[Any]]) -> Any:
        """Every error as the same JSON. What is neither Fluvial's nor HTTP's is a defect, told in the log."""
        try:
            return await handler(request)
        except FluvialError as error:
            status = status_of(error)
            answer = _json(document_of(error, command), status)
            if status in RETRY_AFTER_SECONDS:
                answer.headers["Retry-After"] = RETRY_AFTER_SECONDS[status]
            if status == 401:  # noqa: PLR2004 (HTTP's Unauthorized)
                answer.headers["WWW-Authenticate"] = _challenge(request)
            return answer
        except web.HTTPException as error:
            if error.status < 400:  # noqa: PLR2004 (HTTP's errors begin here)
                raise
            problem = (
                nothing_there(f"there is nothing at {request.path[:80]!r}", "the console begins at /")
                if error.status == 404  # noqa: PLR2004 (HTTP's Not Found)
                else wrong_query(request.method, request.path, error.reason)
            )
            return _json(document_of(problem, command), error.status)
        except ConnectionError:
            raise
        except Exception as error:
            log.exception("a request for %s failed", request.path)
            return _json(defect(type(error).__name__), 500)

    return errors


def _challenge(request: web.Request) -> str:
    """A browser asks its user for the password, except for what the page itself asks with a token."""
    scheme = "Bearer" if request.method == "POST" else "Basic"
    return f'{scheme} realm="fluvial console"'
