"""Which proxy the object store is asked through, and that it is."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from aggregation.errors import UsageProblem
from backends.environment import load_settings, load_settings_with_sources
from backends.object_store import StoreUnavailable
from backends.proxies import proxy_of, without_password
from backends.store.factory import open_object_store

P = "http://proxy.corp.example:3128"
REMOTE = {
    "FLUVIAL_BOOTSTRAP_SERVERS": "kafka:9092",
    "FLUVIAL_STORE_ENDPOINT": "http://store.corp.example:9000",
    "FLUVIAL_STORE_ACCESS_KEY": "key",
    "FLUVIAL_STORE_SECRET_KEY": "secret",
}


@pytest.mark.parametrize(
    ("environ", "endpoint", "secure", "expected"),
    [
        ({}, "store:9000", False, ("", "")),
        ({"HTTP_PROXY": P}, "store:9000", False, (P, "HTTP_PROXY")),
        ({"http_proxy": P, "HTTP_PROXY": "http://other:1"}, "store:9000", False, (P, "http_proxy")),
        ({"http_proxy": "", "HTTP_PROXY": P}, "store:9000", False, ("", "")),
        ({"HTTP_PROXY": P}, "store:443", True, ("", "")),
        ({"HTTPS_PROXY": P, "HTTP_PROXY": "http://other:1"}, "store:443", True, (P, "HTTPS_PROXY")),
        ({"ALL_PROXY": P}, "store:443", True, (P, "ALL_PROXY")),
        ({"HTTP_PROXY": "proxy.corp.example:3128"}, "store:9000", False, (P, "HTTP_PROXY")),
        ({"HTTP_PROXY": P}, "127.0.0.1:9000", False, ("", "")),
        ({"HTTP_PROXY": P}, "[::1]:9000", False, ("", "")),
        ({"HTTP_PROXY": P}, "localhost:9000", False, ("", "")),
        ({"HTTP_PROXY": P}, "minio.localhost.:9000", False, ("", "")),
    ],
)
def test_the_variable_that_names_it(
    environ: dict[str, str], endpoint: str, *, secure: bool, expected: tuple[str, str]
) -> None:
    assert proxy_of(environ, endpoint, secure=secure) == expected


@pytest.mark.parametrize(
    ("no_proxy", "endpoint", "direct"),
    [
        ("*", "store.corp.example:9000", True),
        ("corp.example", "store.corp.example:9000", True),
        (".corp.example", "store.corp.example:9000", True),
        ("*.corp.example", "STORE.Corp.Example:9000", True),
        ("store.corp.example", "store.corp.example:9000", True),
        ("store.corp.example:9000", "store.corp.example:9000", True),
        ("store.corp.example:9001", "store.corp.example:9000", False),
        ("other.example, corp.example", "store.corp.example:9000", True),
        ("other.example corp.example", "store.corp.example:9000", True),
        ("orp.example", "store.corp.example:9000", False),
        ("store.corp.example.org", "store.corp.example:9000", False),
        ("10.0.0.0/8", "10.1.2.3:9000", True),
        ("10.0.0.0/8", "11.1.2.3:9000", False),
        ("10.0.0.0/nonsense", "10.1.2.3:9000", False),
        ("10.1.2.3", "10.1.2.3:9000", True),
        ("2.3", "10.1.2.3:9000", False),
        ("fd00::/8", "[fd00::1]:9000", True),
        ("[fd00::1]", "[fd00::1]:9000", True),
        (" , ,", "store.corp.example:9000", False),
    ],
)
def test_no_proxy_lists_who_is_asked_directly(no_proxy: str, endpoint: str, *, direct: bool) -> None:
    for variable in ("NO_PROXY", "no_proxy"):
        found = proxy_of({"HTTP_PROXY": P, variable: no_proxy}, endpoint, secure=False)
        assert (found == ("", "")) == direct


def test_the_settings_say_which_and_where_it_came_from(home: Path) -> None:
    settings, sources = load_settings_with_sources(home, {**REMOTE, "HTTP_PROXY": P})
    assert (settings.store.proxy, sources["store.proxy"]) == (P, "HTTP_PROXY")
    assert load_settings(home, {**REMOTE, "HTTP_PROXY": P, "NO_PROXY": "corp.example"}).store.proxy == ""
    assert load_settings(home, {**REMOTE, "FLUVIAL_STORE_SECURE": "true", "HTTP_PROXY": P}).store.proxy == ""


@pytest.mark.parametrize("value", ["socks5://proxy:1080", "http://", "http://proxy:nonsense", "ftp://proxy"])
def test_a_proxy_that_we_cannot_speak_with_is_refused_by_name(home: Path, value: str) -> None:
    with pytest.raises(UsageProblem, match=r"store\.proxy") as caught:
        load_settings(home, {**REMOTE, "HTTP_PROXY": value})
    assert (caught.value.error_id, caught.value.where) == ("FLV-1002", "from HTTP_PROXY")


def test_no_text_form_shows_its_password(home: Path) -> None:
    settings = load_settings(home, {**REMOTE, "HTTP_PROXY": "http://me:very-secret@proxy:1"})
    assert "very-secret" not in f"{settings!r} {open_object_store(settings.store).describe()}"
    assert without_password("http://me:very-secret@proxy:1") == "http://me:***@proxy:1"


Seen = list[tuple[str, str, str, str]]


@contextmanager
def a_proxy() -> Iterator[tuple[int, Seen]]:
    """A proxy that writes down what it is asked for, and answers that it cannot."""
    seen: Seen = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            header = self.headers.get
            seen.append(
                (
                    self.command,
                    self.path,
                    header("Proxy-Authorization", ""),
                    header("X-Amz-Security-Token", ""),
                )
            )
            self.send_error(502)

        do_GET = do_PUT = do_HEAD = do_CONNECT = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port, seen
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("endpoint", "command", "asked"),
    [
        ("http://store.corp.example:9000", "HEAD", "http://store.corp.example:9000/fluvial/a"),
        ("https://store.corp.example", "CONNECT", "store.corp.example:443"),
    ],
)
@pytest.mark.parametrize("kind", ["minio", "s3"])
def test_the_store_is_asked_through_it(
    home: Path, kind: str, endpoint: str, command: str, asked: str
) -> None:
    with a_proxy() as (port, seen):
        environ = {
            **REMOTE,
            "FLUVIAL_STORE_ENDPOINT": endpoint,
            "ALL_PROXY": f"http://me:p%40ss@127.0.0.1:{port}",
        }
        store = open_object_store(load_settings(home, environ | {"FLUVIAL_STORE_KIND": kind}).store)
        with pytest.raises(StoreUnavailable) as caught:
            store.exists("a")
    assert seen[0][:2] == (command, asked)
    assert seen[0][2] == "Basic " + base64.b64encode(b"me:p@ss").decode()
    assert f"through the proxy http://me:***@127.0.0.1:{port}" in caught.value.where


@pytest.mark.parametrize(
    ("addressing", "asked"),
    [
        ("path", "http://store.corp.example:9000/fluvial/a"),
        ("virtual", "http://fluvial.store.corp.example:9000/a"),
        ("auto", "http://store.corp.example:9000/fluvial/a"),
    ],
)
def test_the_bucket_stands_where_the_settings_say(home: Path, addressing: str, asked: str) -> None:
    with a_proxy() as (port, seen):
        environ = {
            **REMOTE,
            "FLUVIAL_STORE_ENDPOINT": "http://store.corp.example:9000",
            "FLUVIAL_STORE_ADDRESSING": addressing,
            "HTTP_PROXY": f"127.0.0.1:{port}",
        }
        with pytest.raises(StoreUnavailable):
            open_object_store(load_settings(home, environ).store).exists("a")
    assert {path for _, path, _, _ in seen} == {asked}


@pytest.mark.parametrize("kind", ["minio", "s3"])
def test_a_session_token_goes_with_every_request(home: Path, kind: str) -> None:
    with a_proxy() as (port, seen):
        environ = {
            **REMOTE,
            "FLUVIAL_STORE_SESSION_TOKEN": "for-an-hour\n",
            "HTTP_PROXY": f"127.0.0.1:{port}",
        }
        settings = load_settings(home, environ | {"FLUVIAL_STORE_KIND": kind})
        store = open_object_store(settings.store)
        with pytest.raises(StoreUnavailable):
            store.get("a")
        with pytest.raises(StoreUnavailable):
            store.create("a", b"x")
    assert {token for _, _, _, token in seen} == {"for-an-hour"}
    assert "for-an-hour" not in repr(settings)
