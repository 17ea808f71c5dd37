"""How a store of kind ``s3`` is opened: by whose credentials, under whose certificate, and with which encryption."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import boto3
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from backends.object_store import StoreRefused, StoreUnavailable
from backends.settings import StoreSettings
from backends.store.factory import open_object_store
from tests.contract.s3_servers import moto_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE")


@pytest.fixture(scope="module")
def server() -> Iterator[StoreSettings]:
    with moto_server() as settings:
        yield settings


@pytest.fixture
def keyless(server: StoreSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> StoreSettings:
    """Settings without keys, on a machine that has none either."""
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return msgspec.structs.replace(server, access_key="", secret_key="")


def by_variables(_: StoreSettings, monkeypatch: pytest.MonkeyPatch, __: Path) -> dict[str, str]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-a-variable")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    return {}


def by_a_profile(_: StoreSettings, monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict[str, str]:
    (folder / "file").write_text("[there]\naws_access_key_id = of-a-file\naws_secret_access_key = x\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "file"))
    return {"profile": "there"}


def by_a_web_identity(
    settings: StoreSettings, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> dict[str, str]:
    """As Kubernetes gives it to a pod (IRSA): a token in a file, which STS takes for keys of an hour."""
    (folder / "token").write_text("a.signed.token")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(folder / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/merger")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", settings.url)
    return {}


@pytest.mark.parametrize("given", [by_variables, by_a_profile, by_a_web_identity])
def test_without_keys_it_is_opened_with_what_the_machine_has(
    keyless: StoreSettings,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    given: Callable[[StoreSettings, pytest.MonkeyPatch, Path], dict[str, str]],
) -> None:
    more = given(keyless, monkeypatch, tmp_path)
    store = open_object_store(msgspec.structs.replace(keyless, **more))
    key = given.__name__
    assert store.create(key, b"one") is True
    assert store.create(key, b"two") is False
    assert store.get(key) == b"one"


def test_without_any_credentials_it_is_refused_at_once_and_not_waited_for(keyless: StoreSettings) -> None:
    store = open_object_store(keyless)
    for call in (
        store.get,
        store.exists,
        lambda key: store.create(key, b"x"),
        lambda key: list(store.list(key)),
    ):
        with pytest.raises(StoreRefused, match="no credentials for the store") as caught:
            call("a")
        assert caught.value.error_id == "FLV-4003"


def test_a_profile_that_is_not_there_is_named(keyless: StoreSettings) -> None:
    with pytest.raises(StoreRefused, match="nowhere"):
        open_object_store(msgspec.structs.replace(keyless, profile="nowhere")).exists("a")


@pytest.mark.parametrize(
    ("encryption", "kms_key", "told"),
    [("", "", None), ("AES256", "", "AES256"), ("aws:kms", "arn:aws:kms:us-east-1:1:key/k", "aws:kms")],
)
def test_the_server_is_asked_to_encrypt_what_is_written(
    server: StoreSettings, encryption: Any, kms_key: str, told: str | None
) -> None:
    store = open_object_store(msgspec.structs.replace(server, encryption=encryption, kms_key=kms_key))
    client = boto3.client(
        "s3",
        endpoint_url=server.url,
        region_name=server.region,
        aws_access_key_id="key",
        aws_secret_access_key="x",
    )
    prefix = (encryption or "none").replace(":", "-")
    store.put(f"{prefix}/put", b"x")
    store.create(f"{prefix}/created", b"x")
    for name in ("put", "created"):
        head = client.head_object(Bucket=server.bucket, Key=f"{prefix}/{name}")
        assert head.get("SSEKMSKeyId", "") == kms_key
        if told is not None:
            assert head["ServerSideEncryption"] == told


# -- certificates


def certificate(folder: Path, *names: x509.GeneralName) -> tuple[Path, Path]:
    """A certificate that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "store")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir()
    (folder / "certificate.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return folder / "certificate.pem", folder / "key.pem"


@contextlib.contextmanager
def serving(certificate_file: Path, key_file: Path) -> Iterator[int]:
    """A server over TLS that answers every request with the error 503."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_error(503)

        do_GET = do_PUT = do_HEAD = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Handshakes that clients break off are what is tried here."""

    server = Server(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_file, key_file)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("kind", ["minio", "s3"])
def test_only_the_ca_of_the_settings_vouches_for_the_store(tmp_path: Path, kind: Any) -> None:
    ours = certificate(tmp_path / "ours", x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    foreign = certificate(tmp_path / "foreign", x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    other_name = certificate(tmp_path / "named", x509.DNSName("store.example"))
    settings = StoreSettings(kind=kind, access_key="key", secret_key="very-secret", secure=True)

    def asked(at: int, ca_file: Path | None) -> Exception:
        where = msgspec.structs.replace(settings, endpoint=f"127.0.0.1:{at}", ca_file=ca_file)
        found = []
        store = open_object_store(where)
        for call in (lambda: store.get("a"), lambda: store.create("a", b"x")):
            with pytest.raises((StoreRefused, StoreUnavailable)) as caught:
                call()
            found.append(caught.value)
        assert type(found[0]) is type(found[1])
        return found[0]

    with serving(*ours) as at:
        assert isinstance(asked(at, ours[0]), StoreUnavailable), "it is let in, and told 503"
        for ca_file in (None, foreign[0]):
            refused = asked(at, ca_file)
            assert isinstance(refused, StoreRefused)
            assert refused.error_id == "FLV-4009" and "very-secret" not in json.dumps(str(refused))
    with serving(*other_name) as at:
        refused = asked(at, other_name[0])
        assert isinstance(refused, StoreRefused) and refused.error_id == "FLV-4009"
