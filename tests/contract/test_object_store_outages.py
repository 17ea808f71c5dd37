"""What a store that is away, full or closed looks like: an error that says which, and if waiting helps."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import msgspec
import pytest

from aggregation.errors import ConnectionProblem, FluvialError
from backends.object_store import StoreFull, StoreRefused, StoreUnavailable
from backends.settings import StoreSettings
from backends.store.file import FileStore
from backends.store.minio_store import MinioStore
from backends.store.s3 import S3Store
from fluvial.local import ports
from tests.requirements import require_minio

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backends.settings import Settings

Client = MinioStore | S3Store
Kind = type[MinioStore] | type[S3Store]
Call = Callable[[Client], object]
CALLS: dict[str, Call] = {
    "get": lambda store: store.get("a"),
    "put": lambda store: store.put("a", b"x"),
    "create": lambda store: store.create("a", b"x"),
    "exists": lambda store: store.exists("a"),
    "list": lambda store: list(store.list("a")),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@pytest.fixture(params=["minio", "s3"])
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each of our two clients."""
    return MinioStore if request.param == "minio" else S3Store


def client(kind: Kind, port: int, read_timeout_s: float = 2.0) -> Client:
    settings = StoreSettings(
        kind="minio" if kind is MinioStore else "s3",
        endpoint=f"127.0.0.1:{port}",
        access_key="key",
        secret_key="secret",
    )
    return kind(settings, read_timeout_s=read_timeout_s)


@contextmanager
def answering(kind: Kind, status: int, code: str) -> Iterator[Client]:
    """A server that gives every request one S3 error."""
    body = f"<Error><Code>{code}</Code><Message>told so</Message></Error>".encode() if code else b""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_HEAD = do_POST = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield client(kind, server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()


@every_call
def test_nobody_listens(call: Call, kind: Kind) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        call(client(kind, ports.choose()))
    assert caught.value.error_id == "FLV-4002"
    assert "refused" in caught.value.message and "object at" not in caught.value.message


@every_call
def test_a_server_that_never_answers(call: Call, kind: Kind) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(StoreUnavailable):
        call(client(kind, listener.getsockname()[1], read_timeout_s=0.2))


@every_call
def test_a_server_that_cannot_serve_now(call: Call, kind: Kind) -> None:
    with answering(kind, 503, "SlowDown") as store, pytest.raises(StoreUnavailable):
        call(store)


@pytest.mark.parametrize("name", ["put", "create"])
def test_a_full_server_says_so(name: str, kind: Kind) -> None:
    with answering(kind, 507, "XMinioStorageFull") as store, pytest.raises(StoreFull) as caught:
        CALLS[name](store)
    assert caught.value.error_id == "FLV-4004"


def test_conflicts_are_asked_again_and_given_up_at_last(kind: Kind) -> None:
    with (
        answering(kind, 409, "ConditionalRequestConflict") as store,
        pytest.raises(StoreUnavailable) as caught,
    ):
        store.create("a", b"x")
    assert "409" in caught.value.message


@every_call
def test_an_error_that_nobody_knows_is_still_ours(call: Call, kind: Kind) -> None:
    with answering(kind, 418, "IAmATeapot") as store, pytest.raises(ConnectionProblem):
        call(store)


@pytest.mark.integration
@every_call
def test_wrong_keys_are_refused_and_not_taken_for_an_outage(call: Call, kind: Kind, stack: Settings) -> None:
    require_minio(stack)
    with pytest.raises(StoreRefused) as caught:
        call(kind(msgspec.structs.replace(stack.store, secret_key="wrong" * 8)))
    assert caught.value.error_id == "FLV-4003"
    assert "wrong" not in str(caught.value)


@pytest.mark.integration
@every_call
def test_a_missing_bucket_is_named_and_not_taken_for_a_missing_object(
    call: Call, kind: Kind, stack: Settings
) -> None:
    require_minio(stack)
    with pytest.raises(FluvialError) as caught:
        call(kind(msgspec.structs.replace(stack.store, bucket="not-there")))
    assert caught.value.error_id == "FLV-4006"


def test_a_full_disk_says_so_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileStore(tmp_path)

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreFull):
        store.put("a", b"x")
    assert store.exists("a") is False
    assert list((tmp_path / ".tmp").iterdir()) == []


def test_a_folder_that_is_a_file_is_an_outage(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FluvialError):
        FileStore(tmp_path / "file")


def test_a_key_below_an_object_is_refused(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.put("a", b"x")
    for attempt in (lambda: store.put("a/b", b"x"), lambda: store.create("a/b", b"x")):
        with pytest.raises(FluvialError) as caught:
            attempt()
        assert caught.value.error_id == "FLV-4005"
