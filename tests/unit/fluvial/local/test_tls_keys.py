"""The home's private CA: what it issues, to whom, and how long it lasts."""

from __future__ import annotations

import datetime as dt
import os
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID

from aggregation.errors import EnvironmentProblem
from backends import keys
from backends.environment import load_settings
from backends.settings import StackFile, stack_path
from fluvial.local import tls_keys
from fluvial.local.files import write_stack_file
from fluvial.local.kafka import KafkaBroker
from fluvial.local.minio import MinioServer
from fluvial.local.tls_keys import ensure_tls_keys, principal
from fluvial.terminal.output import quiet_output
from schemas.access import ROLES
from schemas.certificates import Role

HOLDERS = ("broker", "store", "admin", *ROLES)


@pytest.fixture
def made(home: Path) -> Path:
    home.mkdir()
    ensure_tls_keys(home)
    return home


def certificate_of(home: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((home / "tls" / f"{name}.pem").read_bytes())


def test_everybody_has_a_certificate_of_the_homes_ca_that_says_the_role(made: Path) -> None:
    authority = certificate_of(made, "ca")
    for name in HOLDERS:
        certificate = certificate_of(made, name)
        certificate.verify_directly_issued_by(authority)
        assert f"User:{certificate.subject.rfc4514_string()}" == principal(name)
        assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
        purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert (ExtendedKeyUsageOID.SERVER_AUTH in purposes) == (name in {"broker", "store"})
        assert (ExtendedKeyUsageOID.CLIENT_AUTH in purposes) == (name != "store")


def test_only_the_owner_reads_the_keys(made: Path) -> None:
    folder = made / "tls"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    private = [folder / "ca.key", *(folder / f"{name}.pem" for name in HOLDERS)]
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}


def test_a_second_time_changes_nothing(made: Path) -> None:
    before = {path: path.read_bytes() for path in (made / "tls").iterdir()}
    assert ensure_tls_keys(made) == []
    assert {path: path.read_bytes() for path in (made / "tls").iterdir()} == before


def test_what_is_missing_damaged_or_about_to_end_is_issued_anew(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (made / "tls" / "device.pem").unlink()
    (made / "tls" / "reader.pem").write_text("junk")
    assert ensure_tls_keys(made) == ["device", "reader"]
    monkeypatch.setattr(tls_keys, "RENEW_BEFORE", dt.timedelta(days=tls_keys.LEAF_DAYS + 1))
    assert ensure_tls_keys(made) == list(HOLDERS)
    monkeypatch.setattr(tls_keys, "RENEW_BEFORE", dt.timedelta(days=tls_keys.CA_DAYS + 1))
    assert ensure_tls_keys(made) == ["ca", *HOLDERS]


def test_what_a_killed_renewal_left_of_the_ca_before_is_issued_anew(made: Path) -> None:
    kept = {name: (made / "tls" / f"{name}.pem").read_bytes() for name in ("broker", "worker")}
    (made / "tls" / "ca.key").unlink()
    assert ensure_tls_keys(made) == ["ca", *HOLDERS]
    for name, before in kept.items():
        (made / "tls" / f"{name}.pem").write_bytes(before)
    assert ensure_tls_keys(made) == ["broker", "worker"]


def test_a_key_that_the_ca_is_not_for_is_never_signed_with(made: Path) -> None:
    before = (made / "tls" / "ca.pem").read_bytes()
    (made / "tls" / "ca.key").unlink()
    ensure_tls_keys(made)
    (made / "tls" / "ca.pem").write_bytes(before)
    assert ensure_tls_keys(made) == ["ca", *HOLDERS]


def certificate_alone(folder: Path, name: str) -> bytes:
    _, mark, after = (folder / f"{name}.pem").read_bytes().partition(b"-----BEGIN CERT")
    return mark + after


def key_alone(folder: Path, name: str) -> bytes:
    return (folder / f"{name}.pem").read_bytes().partition(b"-----BEGIN CERT")[0]


OF_NO_USE: dict[str, Callable[[Path], bytes]] = {
    "nothing": lambda _: b"",
    "no PEM": lambda _: b"junk",
    "a certificate without its key": lambda folder: certificate_alone(folder, "worker"),
    "a key without its certificate": lambda folder: key_alone(folder, "worker"),
    "another's key": lambda folder: key_alone(folder, "device") + certificate_alone(folder, "worker"),
    "another's key and certificate": lambda folder: (folder / "admin.pem").read_bytes(),
    "a key of another kind": lambda folder: (
        pem_of(Ed25519PrivateKey.generate()) + certificate_alone(folder, "worker")
    ),
    "an encrypted key": lambda folder: (
        pem_of(ec.generate_private_key(ec.SECP256R1()), b"secret") + certificate_alone(folder, "worker")
    ),
}


def pem_of(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey, passphrase: bytes = b"") -> bytes:
    how = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)


@pytest.mark.parametrize("what", OF_NO_USE)
@pytest.mark.parametrize(("place", "made_anew"), [("worker.pem", False), ("ca.key", True), ("ca.pem", True)])
def test_what_is_of_no_use_is_made_anew(made: Path, place: str, what: str, *, made_anew: bool) -> None:
    """A file that a full disk, an editor or a copy has spoilt ends no ``up``, and is no dead end."""
    (made / "tls" / place).write_bytes(OF_NO_USE[what](made / "tls"))
    assert ensure_tls_keys(made) == (["ca", *HOLDERS] if made_anew else ["worker"])
    assert ensure_tls_keys(made) == []


@pytest.mark.parametrize("place", ["ca.key", "ca.pem", "worker.pem"])
def test_a_folder_in_the_place_of_a_file_is_named(made: Path, place: str) -> None:
    (made / "tls" / place).unlink()
    (made / "tls" / place).mkdir()
    with pytest.raises(EnvironmentProblem, match="a folder stands") as caught:
        ensure_tls_keys(made)
    assert (caught.value.error_id, caught.value.where) == ("FLV-1015", str(made / "tls" / place))


@pytest.mark.parametrize(("kind", "name"), [(KafkaBroker, "broker"), (MinioServer, "store")])
def test_a_server_that_was_started_with_another_certificate_is_known(
    made: Path, kind: type[KafkaBroker | MinioServer], name: str
) -> None:
    state = StackFile(store_kind="minio", running=True, kafka_port=20001, secured=True, store_secured=True)
    server = kind(made)
    assert not server.renew_keys(state, quiet_output()), "it never ran"
    started = server.daemon.pid_path
    started.parent.mkdir(parents=True, exist_ok=True)
    started.write_text("{}")
    issued = (made / "tls" / f"{name}.pem").stat().st_mtime_ns
    os.utime(started, ns=(issued, issued))
    assert not server.renew_keys(state, quiet_output())
    os.utime(started, ns=(issued - 1, issued - 1))
    assert server.renew_keys(state, quiet_output())
    (made / "tls" / "device.pem").unlink()
    plain = msgspec.structs.replace(state, secured=False, store_secured=False)
    assert not server.renew_keys(plain, quiet_output())


@pytest.mark.parametrize("role", ["admin", "reader", "worker"])
def test_a_process_gets_in_by_its_role(made: Path, role: str) -> None:
    write_stack_file(made, StackFile(store_kind="file", running=True, kafka_port=20001, secured=True))
    kafka = load_settings(made, {}, role=role).kafka  # type: ignore[arg-type]
    assert (kafka.security_protocol, kafka.certificate_file) == ("SSL", made / "tls" / f"{role}.pem")
    elsewhere = {"FLUVIAL_BOOTSTRAP_SERVERS": "kafka.example:9092"}
    assert not load_settings(made, elsewhere, role=role).kafka.has_tls  # type: ignore[arg-type]


def test_a_home_of_before_stays_as_it_was(home: Path) -> None:
    home.mkdir()
    stack_path(home).write_text('{"store_kind": "file", "running": true, "kafka_port": 20001}')
    assert not load_settings(home, {}).kafka.has_tls


def test_a_device_called_admin_is_no_administrator(tmp_path: Path) -> None:
    """Its own certificate serves mutual TLS as well, and a broker goes by the whole subject."""
    keys.create_authority(tmp_path, "eu")
    path = keys.issue(tmp_path, "eu", Role.DEVICE, "admin")
    subject = x509.load_pem_x509_certificate(keys.certificate_pem(path).encode()).subject
    assert subject.rfc4514_string() == "CN=admin,OU=device,O=eu"
    assert f"User:{subject.rfc4514_string()}" != principal("admin")
