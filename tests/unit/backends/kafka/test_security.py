"""Each setting of Kafka's security reaches librdkafka, aiokafka and Faust, or stops the start; no secret is shown."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka.errors import KafkaConnectionError
from confluent_kafka import Producer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from faust.auth import OAuthCredentials, SASLCredentials, SSLCredentials

from aggregation.errors import AccessProblem, ConnectionProblem, UsageProblem
from backends.environment import load_settings, load_settings_with_sources
from backends.kafka.configuration import (
    broker_credentials,
    checker_connection,
    client_options,
    connection,
    producer_configuration,
)
from backends.kafka.refusals import refusal_in
from backends.kafka.tokens import ANSWER_BYTES_MAX, TokenProvider, token_provider
from backends.settings import KAFKA_SECRETS, KafkaSecurity, Settings
from fluvial import cli
from tests.waiting import WAIT_S

if TYPE_CHECKING:
    from pathlib import Path

PASSWORD = "a-secret-that-nobody-sees"
KEY_PASSWORD = "of-the-key"


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``ca.pem``, ``client.crt`` and ``client.key``, which is encrypted."""
    folder = tmp_path_factory.mktemp("pem")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    for file in ("ca.pem", "client.crt"):
        (folder / file).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    encrypted = serialization.BestAvailableEncryption(KEY_PASSWORD.encode())
    (folder / "client.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encrypted)
    )
    return folder


def given(tmp_path: Path, **kafka: object) -> Settings:
    environ = {f"FLUVIAL_KAFKA_{name.upper()}": str(value) for name, value in kafka.items()}
    return load_settings(
        tmp_path,
        environ={
            "FLUVIAL_BOOTSTRAP_SERVERS": "kafka.example:9093",
            "FLUVIAL_STORE_PATH": str(tmp_path / "objects"),
            **environ,
        },
    )


def mutual_tls(pem: Path) -> dict[str, object]:
    return {
        "security_protocol": "SSL",
        "ca_file": pem / "ca.pem",
        "certificate_file": pem / "client.crt",
        "key_file": pem / "client.key",
        "key_password": KEY_PASSWORD,
    }


def sasl(pem: Path, mechanism: str) -> dict[str, object]:
    return {
        "security_protocol": "SASL_SSL",
        "ca_file": pem / "ca.pem",
        "sasl_mechanism": mechanism,
        "sasl_username": "alice",
        "sasl_password": PASSWORD,
    }


def oauth(pem: Path) -> dict[str, object]:
    return {
        "security_protocol": "SASL_SSL",
        "ca_file": pem / "ca.pem",
        "sasl_mechanism": "OAUTHBEARER",
        "oauth_token_url": "https://id.example/token",
        "oauth_client_id": "fluvial",
        "oauth_client_secret": PASSWORD,
        "oauth_scope": "kafka",
        "oauth_ca_file": pem / "ca.pem",
    }


def test_mutual_tls_reaches_every_client(pem: Path, tmp_path: Path) -> None:
    settings = given(tmp_path, **mutual_tls(pem))
    theirs = connection(settings)
    assert theirs["security.protocol"] == "SSL"
    assert theirs["ssl.ca.location"] == str(pem / "ca.pem")
    assert theirs["ssl.certificate.location"] == str(pem / "client.crt")
    assert theirs["ssl.key.location"] == str(pem / "client.key")
    assert theirs["ssl.key.password"] == KEY_PASSWORD
    assert theirs["ssl.endpoint.identification.algorithm"] == "https"
    Producer(producer_configuration(settings, "c", give_up=True))  # librdkafka opens the files itself
    for options in (client_options(settings, "c"), checker_connection(settings)["aiokafka"]):
        assert options["security_protocol"] == "SSL"
        context = options["ssl_context"]
        assert context.check_hostname
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert [one["subject"] for one in context.get_ca_certs()] == [((("commonName", "test"),),)]
    assert isinstance(broker_credentials(settings), SSLCredentials)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_password_reaches_every_client(pem: Path, tmp_path: Path, mechanism: str) -> None:
    settings = given(tmp_path, **sasl(pem, mechanism))
    theirs = connection(settings)
    assert [theirs[f"sasl.{name}"] for name in ("mechanism", "username", "password")] == [
        mechanism,
        "alice",
        PASSWORD,
    ]
    Producer(producer_configuration(settings, "c", give_up=True))
    options = client_options(settings, "c")
    assert options["security_protocol"] == "SASL_SSL"
    assert options["ssl_context"].verify_mode == ssl.CERT_REQUIRED
    assert [options[f"sasl_{name}"] for name in ("mechanism", "plain_username", "plain_password")] == [
        mechanism,
        "alice",
        PASSWORD,
    ]
    credentials = broker_credentials(settings)
    assert isinstance(credentials, SASLCredentials)
    assert (credentials.mechanism.value, credentials.password) == (mechanism, PASSWORD)


def test_openid_connect_reaches_every_client(pem: Path, tmp_path: Path) -> None:
    settings = given(tmp_path, **oauth(pem))
    theirs = connection(settings)
    asked = {name.removeprefix("sasl.oauthbearer."): value for name, value in theirs.items()}
    assert asked["method"] == "oidc"
    assert asked["token.endpoint.url"] == "https://id.example/token"
    assert [asked[name] for name in ("client.id", "client.secret", "scope")] == ["fluvial", PASSWORD, "kafka"]
    assert theirs["https.ca.location"] == str(pem / "ca.pem")
    Producer(producer_configuration(settings, "c", give_up=True))
    assert isinstance(client_options(settings, "c")["sasl_oauth_token_provider"], TokenProvider)
    assert isinstance(broker_credentials(settings), OAuthCredentials)


def test_a_function_of_ones_own_gives_tokens_to_both(pem: Path, tmp_path: Path) -> None:
    own = {"sasl_mechanism": "OAUTHBEARER", "oauth_callback": f"{__name__}:own_token"}
    settings = given(tmp_path, security_protocol="SASL_SSL", ca_file=pem / "ca.pem", **own)
    assert connection(settings)["oauth_cb"]("") == own_token()
    provider = client_options(settings, "c")["sasl_oauth_token_provider"]
    assert asyncio.run(provider.token()) == "own"


def own_token() -> tuple[str, float]:
    return "own", 4e9


def test_a_token_is_asked_for_anew_before_it_ends() -> None:
    now_s, asked = 1000.0, []

    def ask() -> tuple[str, float]:
        asked.append(now_s)
        return f"token {len(asked)}", now_s + 100

    provider = TokenProvider(ask, lambda: now_s)

    def at(time_s: float) -> str:
        nonlocal now_s
        now_s = time_s
        return asyncio.run(provider.token())

    given_out = [at(time_s) for time_s in (1000.0, 1079.0, 1080.0, 1100.0)]
    assert given_out == ["token 1", "token 1", "token 2", "token 2"]


REFUSED = AccessProblem("FLV-3118", "no token", hint="look")


@pytest.mark.parametrize(
    ("answer", "refusal"),
    [
        (REFUSED, REFUSED),
        (ConnectionProblem("FLV-3118", "no answer", hint="wait"), None),
        (RuntimeError("a bug of the user's"), None),
        (("token", "soon"), None),
        ("no pair", None),
    ],
    ids=repr,
)
def test_without_a_token_aiokafka_hears_of_a_connection_that_failed(
    answer: object, refusal: AccessProblem | None
) -> None:
    """Its tasks end with any other error, and are never begun again."""

    def ask() -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    with pytest.raises(KafkaConnectionError) as caught:
        asyncio.run(TokenProvider(ask).token())
    assert refusal_in(caught.value, "get in", "broker kafka:9092") is refusal


def test_an_identity_provider_cannot_fill_the_memory() -> None:
    """It says that much is to come, and sends no more than is looked at."""
    may_end = threading.Event()

    class Endless(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(10 * ANSWER_BYTES_MAX))
            self.end_headers()
            self.wfile.write(bytes(ANSWER_BYTES_MAX))
            may_end.wait(WAIT_S)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            kafka = KafkaSecurity(oauth_token_url=f"http://127.0.0.1:{server.server_port}/")
            with pytest.raises(KafkaConnectionError) as caught:
                asyncio.run(token_provider(kafka).token())
        finally:
            may_end.set()
            server.shutdown()
            serving.join()
    assert isinstance(caught.value.__cause__, AccessProblem), "it was asked for no more"


def test_without_settings_nothing_is_secured(tmp_path: Path) -> None:
    settings = given(tmp_path)
    assert settings.kafka == KafkaSecurity()
    assert not [name for name in connection(settings) if name.startswith(("ssl", "sasl", "security"))]
    assert broker_credentials(settings) is None


@pytest.mark.parametrize(
    ("kafka", "setting"),
    [
        ({"security_protocol": "TLS"}, "security_protocol"),
        ({"sasl_mechanism": "SCRAM"}, "sasl_mechanism"),
        ({"sasl_password": PASSWORD}, "security_protocol"),
        ({"security_protocol": "SSL", "sasl_username": "alice"}, "security_protocol"),
        ({"ca_file": "ca.pem"}, "security_protocol"),
        ({"security_protocol": "SASL_PLAINTEXT", "certificate_file": "c.pem"}, "security_protocol"),
        ({"security_protocol": "SSL", "key_file": "k.pem"}, "certificate_file"),
        ({"security_protocol": "SASL_SSL"}, "sasl_mechanism"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN"}, "sasl_username"),
        (
            {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "sasl_username": "a"},
            "sasl_password",
        ),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"}, "oauth_token_url"),
    ],
)
def test_what_does_not_fit_together_stops_the_start(
    tmp_path: Path, kafka: dict[str, object], setting: str
) -> None:
    with pytest.raises(UsageProblem) as caught:
        given(tmp_path, **kafka)
    assert caught.value.error_id == "FLV-1002"
    assert f"setting kafka.{setting}:" in caught.value.message
    assert "FLUVIAL_KAFKA_" in caught.value.hint
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("name", KAFKA_SECRETS)
def test_a_secret_may_stand_in_a_file(tmp_path: Path, pem: Path, name: str) -> None:
    others = {
        "key_password": mutual_tls,
        "sasl_password": lambda p: sasl(p, "PLAIN"),
        "oauth_client_secret": oauth,
    }
    kafka = others[name](pem)
    secret = str(kafka.pop(name))
    (tmp_path / "secret").write_text(f"\ufeff{secret}\n")
    settings = given(tmp_path, **kafka, **{f"{name}_file": tmp_path / "secret"})
    assert getattr(settings.kafka, name) == secret


def test_a_stores_secret_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    environ = {
        "FLUVIAL_BOOTSTRAP_SERVERS": "kafka:9092",
        "FLUVIAL_STORE_ENDPOINT": "https://store.example",
        "FLUVIAL_STORE_ACCESS_KEY": "key",
        "FLUVIAL_STORE_SECRET_KEY_FILE": str(tmp_path / "secret"),
    }
    settings, sources = load_settings_with_sources(tmp_path, environ)
    assert settings.store.secret_key == "s3cret"
    assert sources["store.secret_key"] == "FLUVIAL_STORE_SECRET_KEY_FILE"


def test_a_secrets_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem) as caught:
        given(tmp_path, security_protocol="SASL_SSL", sasl_password_file=tmp_path / "none")
    assert caught.value.error_id == "FLV-1002"
    assert "FLUVIAL_KAFKA_SASL_PASSWORD_FILE" in caught.value.where


@pytest.mark.parametrize(
    "changed",
    [
        {"ca_file": "none.pem"},
        {"ca_file": "junk"},
        {"certificate_file": "none.pem"},
        {"key_password": "wrong"},
        {"key_password": ""},
        {"key_file": "other"},
    ],
)
def test_a_file_that_cannot_be_used_is_one_error(pem: Path, tmp_path: Path, changed: dict[str, str]) -> None:
    (tmp_path / "junk").write_text("no PEM")
    (tmp_path / "other").write_text((pem / "ca.pem").read_text())
    paths = {name: tmp_path / value if "file" in name else value for name, value in changed.items()}
    settings = given(tmp_path, **(mutual_tls(pem) | paths))
    for make in (connection, broker_credentials, checker_connection):
        with pytest.raises(UsageProblem) as caught:
            make(settings)
        assert caught.value.error_id == "FLV-3119"
        assert KEY_PASSWORD not in str(caught.value)


def test_no_secret_is_shown(
    pem: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = given(tmp_path, **sasl(pem, "PLAIN"))
    assert PASSWORD not in repr(settings) + str(settings.kafka) + f"{settings.kafka.shown()}"
    monkeypatch.setenv("FLUVIAL_BOOTSTRAP_SERVERS", "kafka.example:9093")
    monkeypatch.setenv("FLUVIAL_STORE_PATH", str(tmp_path / "objects"))
    for name, value in sasl(pem, "PLAIN").items():
        monkeypatch.setenv(f"FLUVIAL_KAFKA_{name.upper()}", str(value))
    assert cli.main(["--home", str(tmp_path), "config", "show", "--sources"]) == 0
    out, err = capsys.readouterr()
    assert "kafka.sasl_password" in out
    assert PASSWORD not in out + err
