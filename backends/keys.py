"""Keys and certificates on disk: regional CAs, the control CA, and what they issue.

::

    <folder>/control-ca.pem  eu-ca.pem ...           certificate and private key of each CA, mode 600
    <folder>/eu/device/d-0001.pem                    the same for every holder: <region>/<role>/<name>.pem

Everything is Ed25519 and X.509, so the same certificate can serve mutual TLS. Devices and workers are issued by
their region's CA; mergers and operators by the control CA.
"""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from aggregation.errors import UsageProblem
from backends.text_files import plain_utf8
from schemas.certificates import CONTROL, ISSUED_BY_CONTROL, NAME_PATTERN, Role
from schemas.envelope import KeyPair

AUTHORITY_DAYS: Final = 3650
LEAF_DAYS: Final = 365
CLOCK_SKEW: Final = dt.timedelta(minutes=5)
PRIVATE_MODE: Final = 0o600


def authority_path(folder: Path, region: str) -> Path:
    """Where the CA of a region (or ``control``) is kept."""
    return folder / f"{region}-ca.pem"


def signer_path(folder: Path, region: str, role: Role, name: str) -> Path:
    """Where an issued key and certificate are kept."""
    return folder / (CONTROL if role in ISSUED_BY_CONTROL else region) / role.value / f"{name}.pem"


def create_authority(folder: Path, region: str) -> Path:
    """Make the CA of a region, or of ``control``. An existing one is left as it is."""
    _check_name("region", region)
    path = authority_path(folder, region)
    if path.exists():
        return path
    key = Ed25519PrivateKey.generate()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"fluvial {region} CA")])
    certificate = (
        _builder(subject, subject, key, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, None)
    )
    _write(path, key, certificate)
    return path


def issue(folder: Path, region: str, role: Role, name: str, *, days: float = LEAF_DAYS) -> Path:
    """Issue a key and certificate. An existing one is left as it is. UsageProblem FLV-2301 (name), FLV-2302 (no CA)."""
    _check_name("name", name)
    _check_name("region", region)
    path = signer_path(folder, region, role, name)
    if path.exists():
        return path
    issuer = CONTROL if role in ISSUED_BY_CONTROL else region
    authority_key, authority = _read(authority_path(folder, issuer), f"fluvial ca init --region {issuer}")
    key = Ed25519PrivateKey.generate()
    # A broker that takes this certificate goes by the whole subject: a device called ``admin`` is none.
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, issuer),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role.value),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )
    san = x509.SubjectAlternativeName(
        [x509.UniformResourceIdentifier(f"spiffe://{issuer}/{role.value}/{name}")]
    )
    certificate = (
        _builder(subject, authority.subject, key, days)
        .add_extension(san, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(authority_key, None)
    )
    _write(path, key, certificate)
    return path


def load_key_pair(path: Path) -> KeyPair:
    """The key and certificate in an issued file; ``of_task`` makes a signer of them."""
    key, certificate = _read(path, "fluvial ca issue --help")
    return KeyPair(certificate.public_bytes(serialization.Encoding.DER), key)


def certificate_pem(path: Path) -> str:
    """The certificate in a file, PEM, without its key: what a genesis document holds of a CA."""
    _, certificate = _read(path, "fluvial ca init --help")
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def certificate_serial(path: Path) -> str:
    """The serial number of the certificate in a file, hex, as a Revoke names it."""
    _, certificate = _read(path, "fluvial ca issue --help")
    return f"{certificate.serial_number:x}"


def certificate_expires_s(path: Path) -> float:
    """When the certificate in a file ends, in seconds since 1970."""
    _, certificate = _read(path, "fluvial ca issue --help")
    return certificate.not_valid_after_utc.timestamp()


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Ed25519PrivateKey, days: float
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


def _write(path: Path, key: Ed25519PrivateKey, certificate: x509.Certificate) -> None:
    """Write key and certificate as one file that only its owner may read, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    part = path.with_suffix(f".{os.getpid()}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text)
    part.replace(path)


def _read(path: Path, command: str) -> tuple[Ed25519PrivateKey, x509.Certificate]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageProblem(
            "FLV-2302", f"cannot read the key file {path}: {error.strerror}", hint=f"make it with `{command}`"
        ) from error
    try:
        text = plain_utf8(data)
        key = serialization.load_pem_private_key(text, password=None)
        certificate = x509.load_pem_x509_certificate(text)
    except ValueError as error:
        raise UsageProblem(
            "FLV-2303",
            f"{path} does not hold a certificate and its private key: {error}",
            hint="issue it again",
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageProblem("FLV-2303", f"{path} holds a key that is not Ed25519", hint="issue it again")
    return key, certificate


def _check_name(what: str, name: str) -> None:
    if not NAME_PATTERN.fullmatch(name):
        raise UsageProblem(
            "FLV-2301",
            f"{what} {name!r}: expected 1 to 64 of a-z 0-9 . _ -, beginning and ending with a letter or digit",
        )
