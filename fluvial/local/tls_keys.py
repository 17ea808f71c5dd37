"""The home's private CA, and a certificate for each of the stack's servers and roles.

::

    <home>/tls/ca.pem ca.key             whom the home's clients and servers trust, and the key that says so
    <home>/tls/broker.pem store.pem      key and certificate of Kafka and of MinIO, for 127.0.0.1 and localhost
    <home>/tls/<role>.pem                the same for each role of ``schemas.access``, and for ``admin``

P-256, which the JVM's TLS takes as PEM. A subject carries region and role (``CN=worker,OU=worker,O=local``): Kafka's
ACLs go by the whole of it, so that nobody becomes an administrator by being called one. These certificates say who may
connect; who may sign records is said by the tasks' own CAs (``backends.keys``).
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from aggregation.errors import EnvironmentProblem
from backends.settings import ADMIN, tls_folder
from schemas.access import ROLES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluvial.terminal.output import Reporter

CA_DAYS: Final = 3650
LEAF_DAYS: Final = 397
RENEW_BEFORE: Final = dt.timedelta(days=30)
"""``fluvial up`` issues a certificate anew that ends within this time."""
CLOCK_SKEW: Final = dt.timedelta(minutes=5)
_NO_USE: Final = (
    FileNotFoundError,
    IsADirectoryError,
    InvalidSignature,
    TypeError,
    UnsupportedAlgorithm,
    ValueError,
    x509.InvalidVersion,
)
"""Whatever comes of a file that is not there, or holds something else than it should."""
FOLDER_MODE: Final = 0o700
PRIVATE_MODE: Final = 0o600
BROKER: Final = "broker"
STORE: Final = "store"
SERVERS: Final = (BROKER, STORE)
LOCAL: Final = "local"
"""In the place of a region: the stack's clients have one certificate a role, for all regions."""


def principal(role: str) -> str:
    """Who the holder of a role's certificate is to Kafka (RFC 2253)."""
    return f"User:CN={role},OU={role},O={LOCAL}"


def ensure_tls_keys(home: Path) -> list[str]:
    """Make what is missing, of no use or about to expire, and nothing else; the names of what was made.

    A CA that is about to expire is made anew with all that it has issued.
    """
    folder = tls_folder(home)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(FOLDER_MODE)
    made = []
    authority = _authority(folder)
    if authority is None:
        authority = _make_authority(folder)
        made.append("ca")
    for name in (*SERVERS, ADMIN, *ROLES):
        if made[:1] == ["ca"] or not _is_whole(folder / f"{name}.pem", name, authority[1]):
            _issue(folder, authority, name)
            made.append(name)
    return made


def renew_tls_keys(home: Path, server: str, started: Path, reporter: Reporter) -> bool:
    """``ensure_tls_keys``, told; whether a ``server`` that wrote ``started`` when it began has another now."""
    folder = tls_folder(home)
    if made := ensure_tls_keys(home):
        reporter.say(f"issued certificates for {', '.join(made)} in {folder}")
    return started.exists() and (folder / f"{server}.pem").stat().st_mtime_ns > started.stat().st_mtime_ns


Authority = tuple[ec.EllipticCurvePrivateKey, x509.Certificate]


def _authority(folder: Path) -> Authority | None:
    """The CA that is there; None where its certificate does not last, or there is no key that belongs to it."""
    certificate, key = _certificate_in(folder / "ca.pem"), _key_in(folder / "ca.key")
    if certificate is None or key is None or not _lasts(certificate):
        return None
    # The key is written first: whoever was killed in between left one that this certificate is not for.
    return (key, certificate) if _belong_together(key, certificate) else None


def _is_whole(path: Path, name: str, issuer: x509.Certificate) -> bool:
    """Whether a file has the key and certificate of ``name`` for a while to come, and not of a CA that is no more."""
    certificate, key = _certificate_in(path), _key_in(path)
    if certificate is None or key is None or certificate.subject != _subject(name):
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except _NO_USE:
        return False
    return _lasts(certificate) and _belong_together(key, certificate)


def _certificate_in(path: Path) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except _NO_USE:
        return None


def _key_in(path: Path) -> ec.EllipticCurvePrivateKey | None:
    try:
        found = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except _NO_USE:
        return None
    return found if isinstance(found, ec.EllipticCurvePrivateKey) else None


def _belong_together(key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> bool:
    try:
        return certificate.public_key() == key.public_key()
    except _NO_USE:
        return False


def _lasts(certificate: x509.Certificate) -> bool:
    return certificate.not_valid_after_utc > dt.datetime.now(dt.UTC) + RENEW_BEFORE


def _make_authority(folder: Path) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _subject("ca")
    certificate = (
        _builder(name, name, key, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_private(folder / "ca.key", _pem(key))
    write_private(folder / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)
    return key, certificate


def _issue(folder: Path, authority: Authority, name: str) -> None:
    authority_key, authority_certificate = authority
    key = ec.generate_private_key(ec.SECP256R1())
    # A broker is a client of its controller; the store is nobody's.
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH] if name != STORE else []
    if name in SERVERS:
        purposes.append(ExtendedKeyUsageOID.SERVER_AUTH)
    builder = (
        _builder(_subject(name), authority_certificate.subject, key, LEAF_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if name in SERVERS:
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(authority_key, hashes.SHA256())
    write_private(folder / f"{name}.pem", _pem(key) + certificate.public_bytes(serialization.Encoding.PEM))


def _subject(role: str) -> x509.Name:
    parts: Sequence[tuple[x509.ObjectIdentifier, str]] = (
        (NameOID.ORGANIZATION_NAME, LOCAL),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, role),
        (NameOID.COMMON_NAME, role),
    )
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in parts])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + dt.timedelta(days=days))
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    """A leaf signs handshakes, a CA signs certificates."""
    return x509.KeyUsage(
        digital_signature=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=not signs,
        crl_sign=not signs,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def write_private(path: Path, data: bytes, *, mode: int = PRIVATE_MODE) -> None:
    """A file, all or nothing, and never readable by others, not even for a moment.

    EnvironmentProblem FLV-1015: a folder has its place.
    """
    if path.is_dir():
        raise EnvironmentProblem(
            "FLV-1015", "a folder stands where a file belongs", where=str(path), hint="move it away"
        )
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    part.replace(path)
