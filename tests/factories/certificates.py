"""Keys, CAs and certificates that depend on their names only, and who signs with them."""

from __future__ import annotations

import datetime as dt
import hashlib
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from aggregation.fold.rules import CANONICAL_RULES, RecordRules
from schemas.certificates import COHORT_PREFIX, Role, Trust
from schemas.envelope import Signer
from schemas.signing import FIRST_DOMAIN, SignatureDomain
from tests.factories.task import CONTROL, REGION

NOT_BEFORE = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
NOT_AFTER = dt.datetime(2036, 1, 1, tzinfo=dt.UTC)


@cache
def key(name: str) -> Ed25519PrivateKey:
    """A private key that depends on its name only."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"key of {name}".encode()).digest())


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    """A key of the wrong kind (the one thing here that is not deterministic)."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _serial(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") | 1


@cache
def authority(region: str, *, secret: str = "") -> x509.Certificate:
    """A region's CA. Another ``secret`` is another CA of the same name."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(f"fluvial {region} CA"))
        .issuer_name(_name(f"fluvial {region} CA"))
        .public_key(key(f"ca {region}{secret}").public_key())
        .serial_number(_serial(f"ca {region}{secret}"))
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(NOT_AFTER)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    )
    return builder.sign(key(f"ca {region}{secret}"), None)


def spiffe(region: str, role: Role, name: str) -> str:
    """The URI that a certificate carries."""
    return f"spiffe://{region}/{role.value}/{name}"


def names_of(region: str, role: Role, name: str, cohort: str = "") -> tuple[str, ...]:
    """The URIs of a certificate, of a device with a cohort or without."""
    named = spiffe(region, role, name)
    return (named, f"{COHORT_PREFIX}{cohort}") if cohort else (named,)


@cache
def certificate(
    region: str,
    role: Role,
    name: str,
    *,
    uris: tuple[str, ...] | None = None,
    issuer: str = "",
    secret: str = "",
    not_before: dt.datetime = NOT_BEFORE,
    not_after: dt.datetime = NOT_AFTER,
    is_authority: bool | None = False,
    with_rsa: bool = False,
    serial: int = 0,
) -> bytes:
    """A certificate (DER). By default a good one; every argument spoils one thing."""
    issuer = issuer or region
    uris = (spiffe(region, role, name),) if uris is None else uris
    public = rsa_key().public_key() if with_rsa else key(f"{region}/{role.value}/{name}").public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(f"fluvial {issuer} CA"))
        .public_key(public)
        .serial_number(serial or _serial(f"{uris}{issuer}{secret}{not_before}{not_after}{is_authority}"))
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )
    if is_authority is not None:
        builder = builder.add_extension(
            x509.BasicConstraints(ca=is_authority, path_length=None), critical=True
        )
    if uris:
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key(f"ca {issuer}{secret}"), None).public_bytes(Encoding.DER)


def certificate_sha256_signed() -> bytes:
    """A certificate signed with RSA and SHA-256, for a CA that is none of ours."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name("d"))
        .issuer_name(_name("fluvial eu CA"))
        .public_key(key("eu/device/d").public_key())
        .serial_number(7)
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(NOT_AFTER)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://eu/device/d")]),
            critical=False,
        )
    )
    return builder.sign(rsa_key(), hashes.SHA256()).public_bytes(Encoding.DER)


def trust(
    *regions: str, rules: RecordRules = CANONICAL_RULES, domain: SignatureDomain = FIRST_DOMAIN
) -> Trust:
    """What a task of v4 trusts: the CAs of ``regions`` (eu and us by default) and of ``control``."""
    authorities = {region: authority(region) for region in (*(regions or ("eu", "us")), CONTROL)}
    return Trust(authorities, rules, domain)


def signer(region: str, role: Role, name: str, **spoiled: Any) -> Signer:
    """A key and its certificate, signing for tasks before v5; ``of_task`` for one of v5."""
    der = certificate(region, role, name, **spoiled)
    return Signer(der, key(f"{region}/{role.value}/{name}"), FIRST_DOMAIN)


def device_signer(device_id: str, region: str = REGION, **spoiled: Any) -> Signer:
    """A device's signer."""
    return signer(region, Role.DEVICE, device_id, **spoiled)


def worker_signer(name: str = "w-1", region: str = REGION) -> Signer:
    """A regional worker's signer."""
    return signer(region, Role.WORKER, name)


def merger_signer(name: str = "m-1") -> Signer:
    """A merger's signer."""
    return signer(CONTROL, Role.MERGER, name)


def operator_signer(name: str = "op-1") -> Signer:
    """An operator's signer."""
    return signer(CONTROL, Role.OPERATOR, name)


def guardian_signer(name: str = "g-1", **spoiled: Any) -> Signer:
    """A guardian's signer."""
    return signer(CONTROL, Role.GUARDIAN, name, **spoiled)
