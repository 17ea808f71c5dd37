"""A store that does not say how long its answer is, as one behind some proxies: no more is read than there may be."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from backends.object_limits import FACTS_BYTES_MAX, ObjectTooLarge
from backends.settings import StoreSettings
from backends.store.factory import open_object_store
from schemas.objects import facts_key

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE = b"x" * 65536


class Chunked(BaseHTTPRequestHandler):
    """Answers every GET in chunks: version 1's facts are short, those of others have no end."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        short = "/versions/1/" in self.path
        try:
            while True:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(PIECE), PIECE))
                if short:
                    break
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True  # the reader has had enough

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Chunked)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("kind", ["minio", "s3"])
def test_an_answer_in_chunks_is_read_no_further_than_its_kind_may_be(endpoint: str, kind: str) -> None:
    store = open_object_store(
        StoreSettings(kind=kind, endpoint=endpoint, access_key="a", secret_key="b", bucket="fluvial")  # type: ignore[arg-type]
    )
    assert store.get(facts_key("t", 1)) == PIECE
    with pytest.raises(ObjectTooLarge, match=str(FACTS_BYTES_MAX)):
        store.get(facts_key("t", 2))
