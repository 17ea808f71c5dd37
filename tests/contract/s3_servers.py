"""The S3 servers that the stores are held to: MinIO, through both of our clients, and moto's."""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING, Final

import msgspec

from backends.object_store import StoreUnavailable
from backends.settings import StoreSettings
from backends.store.s3 import S3Store
from fluvial.local import ports
from tests.requirements import require, require_minio
from tests.waiting import WAIT_S, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

SERVERS: Final = ("minio", "s3", "moto", "versitygw")
"""MinIO as the local stack has it; the same server by the client for all others; moto and versitygw, other servers."""


@contextlib.contextmanager
def settings_of(server: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[StoreSettings]:
    """How to reach one of ``SERVERS``, or a folder (``file``); while it serves."""
    if server == "file":
        yield StoreSettings(kind="file", path=folder / "objects")
    elif server == "moto":
        with moto_server() as settings:
            yield settings
    elif server == "versitygw":
        with versitygw(folder) as settings:
            yield settings
    else:
        stack = request.getfixturevalue("stack")
        require_minio(stack)
        yield msgspec.structs.replace(stack.store, kind=server)


@contextlib.contextmanager
def moto_server() -> Iterator[StoreSettings]:
    """A moto of this process, with our bucket."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        settings = StoreSettings(
            kind="s3", endpoint=f"{host}:{port}", access_key="key", secret_key="very-secret"
        )
        S3Store(settings).make_bucket()
        yield settings
    finally:
        server.stop()


@contextlib.contextmanager
def versitygw(folder: Path) -> Iterator[StoreSettings]:
    """A versitygw over a folder, with our bucket."""
    require("versitygw")
    (folder / "root").mkdir()
    port = ports.choose()
    command = ["versitygw", "--port", f"127.0.0.1:{port}", "--access", "key", "--secret", "very-secret"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, "posix", str(folder / "root")], stdout=log, stderr=log)
    try:
        settings = StoreSettings(
            kind="s3", endpoint=f"127.0.0.1:{port}", access_key="key", secret_key="very-secret"
        )
        store = S3Store(settings)

        def serves() -> bool:
            with contextlib.suppress(StoreUnavailable):
                store.make_bucket()
                return True
            return False

        until(serves, f"versitygw\n{(folder / 'log').read_text()}")
        yield settings
    finally:
        process.terminate()
        process.wait(WAIT_S)
