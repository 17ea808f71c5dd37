"""What the console answers to everybody: headers on every answer, strange hosts, wrong values, too many viewers."""

from __future__ import annotations

import asyncio
import socket
import stat
import time
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from aggregation.errors import EnvironmentProblem, UsageProblem
from fluvial.console import run, watch
from fluvial.console.hub import Hub
from fluvial.console.security import HEADERS, Hosts, Token, is_loopback, read_or_make_token
from fluvial.console.server import Access, Console
from fluvial.console.threads import Seen
from fluvial.console.watch import Watches
from tests.unit.fluvial.console.console_home import TASK, LongLog, fill_store, page_on

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

TOKEN = "a-token"


def console_in(home: Path, *, viewers_max: int = 64, everything: bool = False) -> Console:
    access = Access(Hosts("127.0.0.1", ["console.example"]), Token(TOKEN), "cat token", everything=everything)
    return Console(Watches(home), access, command="fluvial", hub=Hub(viewers_max))


def asked(console: Console, ask: Callable[[TestClient[Any, Any]], Awaitable[Any]]) -> Any:
    """What ``ask`` gets from a console that serves while it asks."""

    async def serve() -> Any:
        async with TestClient(TestServer(console.application())) as client:
            return await ask(client)

    return asyncio.run(serve())


async def answer(client: TestClient[Any, Any], path: str, **options: Any) -> tuple[int, Any, bytes]:
    method = options.pop("method", "GET")
    async with client.request(method, path, **options) as response:
        return response.status, response.headers, await response.read()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a task and nothing that runs."""
    store = fill_store(tmp_path / "store", 3, 1)
    page_on(store, LongLog(), tmp_path, head=3)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        ("/healthz", 200),
        ("/api/tasks", 200),
        (f"/api/tasks/{TASK}/now", 200),
        ("/api/tasks/none/now", 404),
        (f"/api/tasks/{TASK}/curve", 502),
        (f"/api/tasks/{TASK}/versions/x", 400),
        (f"/api/tasks/{TASK}/versions/-1", 400),
        (f"/api/tasks/{TASK}/versions/99999999999999999999", 400),
        (f"/api/tasks/{TASK}/audits/none", 404),
        ("/nowhere", 404),
        ("/static/../server.py", 404),
        ("/static/..%2fserver.py", 404),
        ("/static/%00", 404),
        ("/static/", 404),
    ],
)
def test_every_answer_has_the_headers(home: Path, path: str, status: int) -> None:
    got, headers, body = asked(console_in(home), lambda client: answer(client, path))
    assert got == status, body
    assert {name: headers.get(name) for name in HEADERS} == HEADERS
    assert "Server" not in headers
    if status >= 400:
        assert b'"id":"FLV-' in body
    if path.startswith("/api"):
        assert headers["Cache-Control"] == "no-store"


def test_a_method_that_an_address_does_not_know_is_an_error_like_others(home: Path) -> None:
    got, headers, body = asked(console_in(home), lambda client: answer(client, "/api/tasks", method="DELETE"))
    assert (got, b"FLV-6505" in body) == (405, True)
    assert headers["Content-Security-Policy"] == HEADERS["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8440", 200),
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("[::1]:8440", 200),
        ("console.example:443", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost:8440.evil.example", 403),
        ("evil.example:127.0.0.1", 403),
        ("[::1].evil.example", 403),
        ("", 403),
        ("::1", 403),
    ],
)
def test_only_our_own_names_are_answered(home: Path, host: str, status: int) -> None:
    got, headers, _ = asked(
        console_in(home), lambda client: answer(client, "/api/tasks", headers={"Host": host})
    )
    assert got == status
    assert "Content-Security-Policy" in headers


def test_a_file_that_the_browser_has_is_not_sent_again(home: Path) -> None:
    async def twice(client: TestClient[Any, Any]) -> tuple[int, str, int, bytes]:
        first = await answer(client, "/")
        again = await answer(client, "/", headers={"If-None-Match": first[1]["ETag"]})
        return first[0], first[1]["Cache-Control"], again[0], again[2]

    assert asked(console_in(home), twice) == (200, "no-cache", 304, b"")


@pytest.mark.parametrize(
    "path", ["now", "curve", "flow", "versions", "refused", "defence", "fleet", "versions/1"]
)
def test_without_a_stack_it_answers_and_says_so(home: Path, path: str) -> None:
    async def ask(client: TestClient[Any, Any]) -> tuple[int, bytes]:
        await answer(client, f"/api/tasks/{TASK}/now")
        await asyncio.sleep(0.3)
        status, _, body = await answer(client, f"/api/tasks/{TASK}/{path}")
        return status, body

    status, body = asked(console_in(home), ask)
    assert status == (200 if path == "now" else 502), body
    assert b"unknown" in body if path == "now" else b"FLV-4002" in body


PAGES = (
    "versions",
    "flow",
    "refused",
    "defence",
    "fleet",
    "curve",
    "versions/1",
    "versions/1/manifest",
    "fleet/devices/d",
)


def test_a_page_that_is_opened_at_once_waits_for_the_first_look(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose answer it gives then, here that nothing is there."""
    monkeypatch.setattr(watch.Watch, "start", lambda _: None)
    console = console_in(home)

    async def ask(client: TestClient[Any, Any]) -> list[tuple[int, Any, bytes]]:
        asking = [asyncio.create_task(answer(client, f"/api/tasks/{TASK}/{path}")) for path in PAGES]
        done, _ = await asyncio.wait(asking, timeout=0.3)
        assert not done
        looked = console.watches.get(TASK)
        for looker in (looked.store, looked.kafka):
            looker.seen = Seen(None, round(time.time() * 1000), "away, on purpose")
        return await asyncio.gather(*asking)

    for status, _, body in asked(console, ask):
        assert (status, b"away, on purpose" in body) == (502, True), body


def test_and_it_does_not_wait_for_ever(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch.Watch, "start", lambda _: None)
    monkeypatch.setattr(watch, "FIRST_LOOK_S", 0.2)
    status, _, body = asked(console_in(home), lambda client: answer(client, f"/api/tasks/{TASK}/versions"))
    assert (status, b"not asked yet" in body) == (502, True), body


def test_hints_of_errors_can_be_copied_as_they_stand(home: Path) -> None:
    console = Console(
        Watches(home), Access(Hosts("127.0.0.1", []), Token(TOKEN), ""), command="fluvial --home /else"
    )
    _, _, body = asked(console, lambda client: answer(client, "/api/tasks/none/now"))
    assert b"`fluvial --home /else task create digits`" in body
    _, _, body = asked(console, lambda client: answer(client, "/api/tasks"))
    assert b'"command":"fluvial --home /else"' in body


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"bearer  {TOKEN}x"])
def test_an_audit_needs_the_token(home: Path, header: str) -> None:
    path = f"/api/tasks/{TASK}/audits"
    got, headers, body = asked(
        console_in(home),
        lambda client: answer(
            client, path, method="POST", json={"version": 1}, headers={"Authorization": header}
        ),
    )
    assert (got, b"FLV-6507" in body) == (401, True)
    assert headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("body", [b"", b"[", b"[]", b'{"version": "1"}', b'{"version": true}', b"[" * 3000])
def test_an_audit_of_nonsense_is_refused(home: Path, body: bytes) -> None:
    path, headers = f"/api/tasks/{TASK}/audits", {"Authorization": f"Bearer {TOKEN}"}
    got, _, text = asked(
        console_in(home), lambda client: answer(client, path, method="POST", data=body, headers=headers)
    )
    assert (got, b"FLV-6505" in text) == (400, True)


def test_beyond_this_machine_everything_needs_the_token(home: Path) -> None:
    async def ask(client: TestClient[Any, Any]) -> list[int]:
        import aiohttp

        given = [
            {},
            *({"Authorization": aiohttp.encode_basic_auth("any", word)} for word in ("wrong", TOKEN)),
        ]
        return [(await answer(client, "/api/tasks", headers=headers))[0] for headers in given]

    assert asked(console_in(home, everything=True), ask) == [401, 401, 200]


def test_nobody_takes_all_the_places_of_viewers(home: Path) -> None:
    async def ask(client: TestClient[Any, Any]) -> tuple[list[int], bytes, bytes]:
        path = f"/api/tasks/{TASK}/events"
        streams = [await client.get(path) for _ in range(3)]
        first = await streams[0].content.read()
        last = await streams[2].content.readany()
        return [stream.status for stream in streams], first, last

    statuses, first, last = asked(console_in(home, viewers_max=2), ask)
    assert statuses == [200, 200, 200]
    assert first.endswith(b"\n\n") and b"retry: 30000\nevent: gone\ndata: " in first and b"FLV-6508" in first
    assert b"event: gone" not in last


def test_the_place_is_taken_from_the_client_who_has_most() -> None:
    async def scenario() -> list[bool]:
        hub = Hub(4)
        quiet = hub.enter("t", "10.0.0.2")
        many = [hub.enter("t", "10.0.0.3") for _ in range(3)]
        newcomers = [hub.enter("u", client) for client in ("10.0.0.4", "10.0.0.3", "10.0.0.5")]
        assert hub.viewers == 4 and set(hub.channels) == {"t", "u"}
        for viewer in (quiet, *many, *newcomers):
            hub.leave(viewer)
            hub.leave(viewer)
        assert hub.viewers == 0 and not hub.channels
        return [viewer.let_go for viewer in (quiet, *many, *newcomers)]

    assert asyncio.run(scenario()) == [False, True, True, True, False, False, False]


@pytest.mark.parametrize("everything", [True, False])
@pytest.mark.parametrize("name", ["Authorization", "Host", "Accept", "If-None-Match", "Cookie", "X-Strange"])
@pytest.mark.parametrize(
    "value",
    [b"Bearer \xff\xfe", b"Basic \xff\xfe", b"Basic /////w==", b"\xc3\xa9:1", b"Bearer", b"\x80", b"\t"],
)
def test_a_header_may_be_any_bytes(home: Path, name: str, value: bytes, *, everything: bool) -> None:
    host = b"" if name == "Host" else b"Host: 127.0.0.1\r\n"
    lines = host + name.encode() + b": " + value + b"\r\nContent-Length: 13\r\nConnection: close\r\n\r\n"

    async def ask(client: TestClient[Any, Any]) -> list[bytes]:
        answers = []
        for first in (f"POST /api/tasks/{TASK}/audits", "GET /"):
            reader, writer = await asyncio.open_connection(client.host, client.port)
            writer.write(first.encode() + b" HTTP/1.1\r\n" + lines + b'{"version":1}')
            answers.append((await reader.readline()).split(b" ")[1])
            writer.close()
        return answers

    for status in asked(console_in(home, everything=everything), ask):
        assert status in {b"200", b"400", b"401", b"403"}, "a client's mistake is never a defect of ours"


def test_a_viewer_gets_now_at_once_and_then_once_a_second(home: Path) -> None:
    async def ask(client: TestClient[Any, Any]) -> tuple[str, int, float]:
        began_s = time.monotonic()
        async with client.get(f"/api/tasks/{TASK}/events") as stream:
            text = b""
            while text.count(b"event: now") < 3:
                text += await stream.content.readany()
            return stream.content_type, text.count(b"retry: 2000"), time.monotonic() - began_s

    kind, retries, seconds = asked(console_in(home), ask)
    assert (kind, retries) == ("text/event-stream", 1)
    assert seconds > 0.9


def test_a_viewer_that_reads_nothing_keeps_one_event_and_no_queue() -> None:
    async def scenario() -> list[bytes]:
        hub = Hub()
        slow, quick = hub.enter("t", "a"), hub.enter("t", "b")
        got = []
        for number in range(1000):
            hub.channel("t").publish("now", str(number).encode())
            if number % 250 == 0:
                got.append(await quick.next(0.1))
        got.append(await slow.next(0.1))
        got.append(await slow.next(0.01))
        return got

    got = asyncio.run(scenario())
    assert got[-2:] == [b"event: now\ndata: 999\n\n", b""]
    assert len(got) == 6


# -- how it begins


@pytest.mark.parametrize("host", ["0.0.0.0", "10.1.2.3", "::", "example.org"])
def test_another_address_is_refused_without_token_and_tls(tmp_path: Path, host: str) -> None:
    for token, cert in ((None, None), ("t", None), (None, tmp_path / "c.pem")):
        options = run.Options(
            home=tmp_path, command="fluvial", host=host, token=token, tls_cert=cert, tls_key=cert
        )
        with pytest.raises(UsageProblem) as raised:
            run.check(options)
        assert raised.value.error_id == "FLV-6501"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "localhost", "::1"])
def test_addresses_of_this_machine_need_nothing(tmp_path: Path, host: str) -> None:
    assert is_loopback(host)
    assert run.check(run.Options(home=tmp_path, command="fluvial", host=host)) is None


def test_a_task_that_does_not_exist_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem) as raised:
        run.check(run.Options(home=tmp_path, command="fluvial", task="none"))
    assert raised.value.error_id == "FLV-2401"


def test_the_token_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    made = read_or_make_token(tmp_path / "new")
    path = tmp_path / "new" / "console-token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(made) > 20
    path.chmod(0o644)
    assert read_or_make_token(tmp_path / "new") == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_taken_port_is_named_and_any_port_takes_a_free_one(home: Path) -> None:
    async def listen(options: run.Options) -> tuple[int, list[str]]:
        said: list[str] = []
        server = await run._listen(asyncio.Protocol, options, None, said.append)
        port = server.sockets[0].getsockname()[1]
        server.close()
        return port, said

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        options = run.Options(home=home, command="fluvial", port=port)
        with pytest.raises(EnvironmentProblem) as raised:
            asyncio.run(listen(options))
        assert (raised.value.error_id, "--port" in raised.value.hint) == ("FLV-6502", True)
        got, said = asyncio.run(listen(run.Options(home=home, command="fluvial", port=port, any_port=True)))
    assert got not in {0, port}
    assert said == [f"port {port} is taken: the console takes a free one"]
