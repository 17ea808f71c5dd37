"""The X.509 certificates of a task: of its CAs, and of whoever signs in it. Ed25519 throughout."""

from __future__ import annotations

import datetime as dt
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import NameOID

from schemas.certificates import COHORT_PREFIX, CONTROL, ISSUED_BY_CONTROL, Role

AUTHORITY_DAYS: Final = 3650
LEAF_DAYS: Final = 365
CLOCK_SKEW: Final = dt.timedelta(minutes=5)


class CertifiedName(NamedTuple):
    """Whom a certificate is for, whose CA signs it (a region's, or ``control``), and a device's cohort, "" for none."""

    issuer: str
    role: str
    name: str
    cohort: str = ""

    @property
    def uris(self) -> list[str]:
        """What the subject alternative name holds."""
        named = f"spiffe://{self.issuer}/{self.role}/{self.name}"
        return [named, f"{COHORT_PREFIX}{self.cohort}"] if self.cohort else [named]


def holder_of(region: str, role: Role, name: str, cohort: str = "") -> CertifiedName:
    """The control CA vouches for its roles in every region."""
    return CertifiedName(CONTROL if role in ISSUED_BY_CONTROL else region, role.value, name, cohort)


def authority_certificate(region: str, key: Ed25519PrivateKey, days: float) -> x509.Certificate:
    """What the CA of a region, or of ``control``, signs for itself; it ends after ``days`` days."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"fluvial {region} CA")])
    return (
        _builder(subject, subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, None)
    )


def leaf_certificate(
    holder: CertifiedName,
    public: Ed25519PublicKey,
    authority: x509.Certificate,
    authority_key: Ed25519PrivateKey,
    days: float,
    *,
    serial: int | None = None,
) -> x509.Certificate:
    """What its CA signs for a holder; it ends after ``days`` days. ``serial``: None for a random one."""
    issuer, role, name, _ = holder
    # A broker that takes this certificate goes by the whole subject: a device called ``admin`` is none.
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, issuer),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )
    san = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in holder.uris])
    return (
        _builder(subject, authority.subject, public, days, serial)
        .add_extension(san, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(authority_key, None)
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, public: Ed25519PublicKey, days: float, serial: int | None = None
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + dt.timedelta(days=days))
    )
