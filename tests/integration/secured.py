"""A stack of mutual TLS and ACLs whose broker also listens with SASL and without any of it, and what a test needs to
be refused there.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from confluent_kafka.admin import (
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from backends.environment import load_settings
from backends.kafka.admin import admin_client
from backends.object_store import ObjectStore
from backends.settings import KafkaSecurity, StackFile, tls_folder
from backends.store.factory import open_object_store
from fluvial.local import downloads, ports
from fluvial.local.files import prepare_home, write_stack_file
from fluvial.local.kafka import Listener
from fluvial.local.minio import MinioServer
from fluvial.local.stack import LocalStack, StackPlan
from fluvial.local.starting import Starting
from fluvial.terminal.output import Output
from tests.waiting import WAIT_S

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from backends.settings import Settings, StackRole

PASSWORD = "correct horse"
PLAIN_USER = "plain-user"
TOKEN_S = 4
_SECURITY = "org.apache.kafka.common.security"
_PLAIN = f'{_SECURITY}.plain.PlainLoginModule required user_{PLAIN_USER}="{PASSWORD}";'
_TOKENS = (
    f'{_SECURITY}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker" '
    f'unsecuredValidatorAllowableClockSkewMs="{1000 * int(WAIT_S)}";'  # a slow machine's handshake takes a while
)
_SASL = (
    "sasl.enabled.mechanisms=SCRAM-SHA-512,SCRAM-SHA-256,PLAIN,OAUTHBEARER",
    "listener.name.sasl.ssl.client.auth=none",
    f"listener.name.sasl.scram-sha-512.sasl.jaas.config={_SECURITY}.scram.ScramLoginModule required;",
    f"listener.name.sasl.scram-sha-256.sasl.jaas.config={_SECURITY}.scram.ScramLoginModule required;",
    f"listener.name.sasl.plain.sasl.jaas.config={_PLAIN}",
    f"listener.name.sasl.oauthbearer.sasl.jaas.config={_TOKENS}",
    "listener.name.sasl.oauthbearer.connections.max.reauth.ms=60000",  # a session is no longer than its token
)


class SecuredStack:
    """The stack, as seen by whoever has a role, a password or nothing."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.sasl_port, self.plain_port = ports.choose(), ports.choose()
        listeners = (
            Listener("SASL", self.sasl_port, self.sasl_port, "SASL_SSL", _SASL),
            Listener("OPEN", self.plain_port, self.plain_port, "PLAINTEXT"),
        )
        self.stack = LocalStack(home, "auto", Output(), plan=StackPlan(listeners=listeners), secured=True)
        self.admin = self.stack.up()
        self.tls = tls_folder(self.home)

    def as_role(self, role: StackRole) -> Settings:
        """By the certificate of a role."""
        return load_settings(self.home, {}, role=role)

    def by(self, port: int | None = None, **kafka: Any) -> Settings:
        """By anything, through any listener; mutual TLS without a port."""
        servers = self.admin.bootstrap_servers if port is None else f"127.0.0.1:{port}"
        return msgspec.structs.replace(self.admin, bootstrap_servers=servers, kafka=KafkaSecurity(**kafka))

    def by_password(self, mechanism: Any, user: str, password: str = PASSWORD, **kafka: Any) -> Settings:
        """By SASL over TLS."""
        return self.by(
            self.sasl_port,
            security_protocol="SASL_SSL",
            ca_file=self.tls / "ca.pem",
            sasl_mechanism=mechanism,
            sasl_username=user,
            sasl_password=password,
            **kafka,
        )

    def make_users(self, names: Sequence[str]) -> None:
        """Users of both kinds of SCRAM."""
        admin = admin_client(self.admin)
        for kind in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            wanted: list[Any] = [
                UserScramCredentialUpsertion(name, ScramCredentialInfo(kind, 4096), PASSWORD.encode())
                for name in names
            ]
            for done in admin.alter_user_scram_credentials(wanted).values():
                done.result(WAIT_S)


class SecuredStore:
    """MinIO alone, as the stack of a home starts it. The broker that its settings name is none."""

    def __init__(self, home: Path) -> None:
        prepare_home(home)
        self.home = home
        self.server = MinioServer(home)
        self.state = StackFile(store_kind="minio", running=True, kafka_port=1, secured=True)
        self.admin = self.up(secured=True)

    @property
    def pid(self) -> int:
        """Of the server that runs."""
        process = self.server.daemon.process()
        assert process is not None
        return int(process.pid)

    def up(self, *, secured: bool) -> Settings:
        """As ``fluvial up`` does it, with TLS or without."""
        state = msgspec.structs.replace(self.state, secured=secured, store_secured=secured)
        reporter = Output()
        self.state = Starting(self.home, reporter).minio(self.server, state, downloads.minio_binary(reporter))
        write_stack_file(self.home, self.state)
        return self.as_role("admin")

    def as_role(self, role: StackRole) -> Settings:
        """By the keys of a role."""
        return load_settings(self.home, {}, role=role)

    def store(self, role: StackRole) -> ObjectStore:
        """As a role sees it."""
        return open_object_store(self.as_role(role).store)


def foreign_certificate(folder: Path, *, issuer: Path | None = None, days: float = 1) -> Path:
    """A key and certificate of a CA that nobody knows, or of the one whose ``ca.pem`` and ``ca.key`` are given."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "admin")])
    signing, by = key, name
    if issuer is not None:
        signing = serialization.load_pem_private_key((issuer / "ca.key").read_bytes(), None)  # type: ignore[assignment]
        by = x509.load_pem_x509_certificate((issuer / "ca.pem").read_bytes()).subject
    end = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - dt.timedelta(days=2))
        .not_valid_after(end)
        .sign(signing, hashes.SHA256())
    )
    path = folder / f"foreign-{issuer is not None}-{days}.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


@contextmanager
def token_endpoint() -> Iterator[tuple[str, list[str]]]:
    """An identity provider of unsigned tokens that last ``TOKEN_S``: its URL, and the subjects that it has given."""
    given: list[str] = []

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            client = base64.b64decode(self.headers["Authorization"].split()[1]).decode()
            user, _, secret = client.partition(":")
            if secret != PASSWORD:
                self.send_response(401)
                self.end_headers()
                return
            given.append(user)
            now = time.time()
            parts = ({"alg": "none"}, {"sub": user, "iat": now, "exp": now + TOKEN_S})
            token = ".".join(
                base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts
            )
            answer = json.dumps(
                {"access_token": f"{token}.", "token_type": "bearer", "expires_in": TOKEN_S}
            ).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/token", given
    finally:
        server.shutdown()
        server.server_close()
