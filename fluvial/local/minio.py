"""The MinIO server of the local stack: one process, one folder, random keys, one bucket."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final

import urllib3

from aggregation.errors import TimeoutProblem
from backends.folders import make_private
from backends.object_store import StoreUnavailable
from backends.settings import StoreSettings, stack_ca, tls_folder
from backends.store.http import open_pool
from backends.store.minio_store import MinioStore
from fluvial.local import names, ports
from fluvial.local.process import Daemon
from fluvial.local.tls_keys import STORE, renew_tls_keys, write_private

if TYPE_CHECKING:
    from pathlib import Path

    from backends.settings import CredentialsFile, StackFile
    from fluvial.terminal.output import Reporter

READY_TIMEOUT_S: Final = 180.0
_PROBE_TIMEOUT_S: Final = 5.0
_HTTP_OK: Final = 200
_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"


class MinioServer:
    """The server of one home folder. Holds no state of its own: everything is in the folder."""

    name: Final = "minio"

    def __init__(self, home: Path, data: Path | None = None) -> None:
        """Describe the server of ``home``; nothing is touched yet. ``data`` may lie on a disk of its own."""
        self._home = home
        self.data = data or home / "data" / "minio"
        # Its own place would be ~/.minio, which is outside the home, and need not exist.
        self._certificates = home / "config" / "minio-certs"
        self.daemon = Daemon(
            name="MinIO",
            pid_path=home / "run" / "minio.json",
            console=home / "logs" / "minio.log",
            marker=str(self.data),
            folder=home,
        )

    def start(self, state: StackFile, credentials: CredentialsFile, binary: Path, reporter: Reporter) -> None:
        """Start; ``wait_ready`` says when it serves.

        Raises EnvironmentProblem: FLV-1008, it does not start.
        """
        make_private(self.data)
        self.renew_keys(state, reporter)
        self._put_certificate(state)
        certificates, data = (names.seen_from(self._home, path) for path in (self._certificates, self.data))
        address = f"{ports.LOOPBACK}:{state.store_port}"
        self.daemon.start(
            [str(binary), "server", "--address", address, "--certs-dir", certificates, data],
            {
                "MINIO_ROOT_USER": credentials.store_access_key,
                "MINIO_ROOT_PASSWORD": credentials.store_secret_key,
                "MINIO_BROWSER": "off",
                # No calls to the outside: no update check, no telemetry.
                "MINIO_UPDATE": "off",
                "MINIO_CALLHOME_ENABLE": "off",
            },
        )

    def renew_keys(self, state: StackFile, reporter: Reporter) -> bool:
        """Issue certificates that are missing or about to end; whether a server that runs was started with another."""
        return state.store_secured and renew_tls_keys(self._home, STORE, self.daemon.pid_path, reporter)

    def _put_certificate(self, state: StackFile) -> None:
        """Where MinIO looks for it: it speaks TLS if a certificate is there."""
        self._certificates.mkdir(parents=True, exist_ok=True)
        key, certificate = self._certificates / "private.key", self._certificates / "public.crt"
        if not state.store_secured:
            key.unlink(missing_ok=True)
            certificate.unlink(missing_ok=True)
            return
        before, mark, after = (tls_folder(self._home) / f"{STORE}.pem").read_bytes().partition(_CERTIFICATE)
        write_private(key, before)
        write_private(certificate, mark + after)

    def wait_ready(self, state: StackFile, credentials: CredentialsFile, reporter: Reporter) -> None:
        """Wait until the server lets us in, and make the bucket.

        Raises EnvironmentProblem: FLV-1008, it ended. TimeoutProblem: FLV-1009, it does not answer in time.
        StoreRefused: FLV-4003, it answers and refuses the keys.
        """
        settings = store_settings(self._home, state, credentials)
        store, pool = MinioStore(settings, read_timeout_s=_PROBE_TIMEOUT_S), open_pool(settings)
        with reporter.waiting(f"MinIO to answer on {ports.LOOPBACK}:{state.store_port}") as waiting:
            while waiting.seconds < READY_TIMEOUT_S:
                if self.daemon.process() is None:
                    raise self.daemon.died("its process ended")
                # It listens a moment before it serves, and leaves requests of that moment unanswered.
                if _is_ready(pool, settings.url):
                    with contextlib.suppress(StoreUnavailable):
                        store.make_bucket()
                        return
                time.sleep(0.1)
        raise TimeoutProblem(
            "FLV-1009",
            f"MinIO (on {ports.LOOPBACK}:{state.store_port}) does not answer after {READY_TIMEOUT_S:.0f} s",
            where=self.daemon.log_tail(),
            hint=f"read {self.daemon.console}; a machine under heavy load may only need `fluvial up` again",
        )


def _is_ready(pool: urllib3.PoolManager, url: str) -> bool:
    try:
        answer = pool.request("GET", f"{url}/minio/health/ready", timeout=1.0, retries=False, redirect=False)
    except urllib3.exceptions.HTTPError:
        return False
    return answer.status == _HTTP_OK


def store_settings(home: Path, state: StackFile, credentials: CredentialsFile) -> StoreSettings:
    """How the administrator reaches the local MinIO."""
    return StoreSettings(
        kind="minio",
        endpoint=f"{ports.LOOPBACK}:{state.store_port}",
        bucket=state.bucket,
        access_key=credentials.store_access_key,
        secret_key=credentials.store_secret_key,
        secure=state.store_secured,
        ca_file=stack_ca(home) if state.store_secured else None,
    )
