"""The HTTP side of a process: ``/metrics``, ``/livez`` (also ``/healthz``) and ``/readyz``, on a thread of its own.

It answers small requests within bounds: so many at a time, each in a few seconds. No answer asks Kafka or the store.
Who connects and asks nothing keeps nobody out: past the bound, the connection goes that has been open for longest.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import socketserver
import threading
import time
import traceback
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

REQUEST_BYTES_MAX: Final = 8192
REQUEST_S_MAX: Final = 5.0
CONNECTIONS_MAX: Final = 64
PLACE_S_MAX: Final = 1.0
"""A connection that has to go is gone in so long, or the newcomer is not taken."""
TEXT: Final = "text/plain; charset=utf-8"
_WORDS: Final = 3
_READ_BYTES: Final = 2048

log = logging.getLogger("fluvial")

Problem = Callable[[], str]
Answer = tuple[HTTPStatus, str, bytes]


class MetricsServer:
    """Serves one registry and two answers until closed. OSError where the port is taken; port 0 is any free one."""

    def __init__(
        self, registry: CollectorRegistry, *, live: Problem, ready: Problem, host: str, port: int
    ) -> None:
        self._registry = registry
        self._problems = {"/livez": live, "/healthz": live, "/readyz": ready}
        self._server = _Server((host, port), self.answer)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="metrics", daemon=True
        )

    @property
    def address(self) -> str:
        """host:port."""
        host, port = self._server.server_address[:2]
        return f"{host!s}:{port}"

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, path: str, accept: str) -> Answer:
        """What a GET of ``path`` gets."""
        if path == "/metrics":
            encode, content_type = choose_encoder(accept)
            return HTTPStatus.OK, content_type, encode(self._registry)
        if path not in self._problems:
            return HTTPStatus.NOT_FOUND, TEXT, b"not found: /metrics, /livez, /healthz and /readyz are here\n"
        problem = self._problems[path]()
        if problem:
            return HTTPStatus.SERVICE_UNAVAILABLE, TEXT, f"{problem}\n".encode()
        return HTTPStatus.OK, TEXT, b"ok\n"


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    request_queue_size = CONNECTIONS_MAX

    def __init__(self, address: tuple[str, int], answer: Callable[[str, str], Answer]) -> None:
        self.answer = answer
        self._places = threading.BoundedSemaphore(CONNECTIONS_MAX)
        self._open: dict[socket.socket, None] = {}  # the oldest first
        self._lock = threading.Lock()
        super().__init__(address, _Request)

    def verify_request(self, request: socket.socket | tuple[bytes, socket.socket], client: object) -> bool:
        """Whether the connection is taken: the oldest goes where there is no place for one more."""
        del client
        assert isinstance(request, socket.socket), "of a TCP server"
        if not self._places.acquire(blocking=False):
            self._end_oldest()
            if not self._places.acquire(timeout=PLACE_S_MAX):
                return False
        with self._lock:
            self._open[request] = None
        return True

    def process_request_thread(
        self, request: socket.socket | tuple[bytes, socket.socket], client: object
    ) -> None:
        """Answer one, then give its place back."""
        assert isinstance(request, socket.socket), "of a TCP server"
        try:
            super().process_request_thread(request, client)
        finally:
            with self._lock:
                self._open.pop(request, None)
            self._places.release()

    def _end_oldest(self) -> None:
        """Its thread reads an end, and gives the place back."""
        with self._lock:
            oldest = next(iter(self._open), None)
            if oldest is None:
                return
            del self._open[oldest]
            with contextlib.suppress(OSError):  # it has just gone by itself
                oldest.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """A defect of ours, told where all are: the server goes on."""
        del request
        log.error("a request of %s for metrics failed\n%s", client_address, traceback.format_exc())


class _Request(socketserver.BaseRequestHandler):
    server: _Server
    request: socket.socket

    def handle(self) -> None:
        """One request, one answer, and the connection is closed."""
        with contextlib.suppress(OSError):  # the client went away, or was too slow
            request = self._read()
            if request is not None:
                self._reply(*request)

    def _read(self) -> tuple[str, str, str] | None:
        """(method, path, Accept), or None for what is not a small HTTP request in time."""
        deadline_s = time.monotonic() + REQUEST_S_MAX
        data = b""
        while b"\r\n\r\n" not in data:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or len(data) > REQUEST_BYTES_MAX:
                return None
            self.request.settimeout(left_s)
            more = self.request.recv(_READ_BYTES)
            if not more:
                return None
            data += more
        first, *lines = data.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
        words = first.split(" ")
        if len(words) != _WORDS or not words[2].startswith("HTTP/1."):
            return None
        pairs = [line.partition(":") for line in lines]
        accept = ",".join(value.strip() for name, _, value in pairs if name.lower() == "accept")
        return words[0], words[1].partition("?")[0], accept

    def _reply(self, method: str, path: str, accept: str) -> None:
        if method in {"GET", "HEAD"}:
            status, content_type, body = self.server.answer(path, accept)
        else:
            status, content_type, body = HTTPStatus.METHOD_NOT_ALLOWED, TEXT, b"GET and HEAD only\n"
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {content_type}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.request.settimeout(REQUEST_S_MAX)
        self.request.sendall(head.encode() + (b"" if method == "HEAD" else body))
