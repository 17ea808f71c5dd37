r"""From the bytes of a record to what it says and who says so, as the schemas' and architecture's texts describe it.

Avro single-object encoding: ``C3 01``, the schema's CRC-64-AVRO fingerprint, the body. A SignedEnvelope holds a kind, a
payload, the signer's certificate and an Ed25519 signature over ``"fluvial/<kind>/v1\0"``, the SHA-256 of the full
schema in RFC 8785 form, and the payload's SHA-256.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from fluvial.proof.checker.encoding import Undecodable, decode, schema_of
from fluvial.proof.checker.holders import NotHolder, read_holder, subject_bytes

SIGNED_BY: Final = {
    "ClientUpdate": "device",
    "EdgeAggregate": "edge",
    "Tick": "worker",
    "RegionalAggregate": "worker",
    "Barrier": "merger",
    "ModelAnnouncement": "merger",
    "Revoke": "operator",
    "Skip": "operator",
    "Pardon": "operator",
    "Guide": "guardian",
    "GuideAnnouncement": "guardian",
}
"""Which role may sign which record."""

OF_CONTROL: Final = frozenset({"merger", "operator", "guardian"})
"""Roles that the control CA vouches for; regional ones vouch for the others."""
CONTRIBUTIONS: Final = frozenset({"ClientUpdate", "EdgeAggregate"})
"""What is refused for what it is; all else that fails is a forgery."""
IN_UPDATES_TOPICS: Final = CONTRIBUTIONS | {"Barrier", "Tick", "Revoke", "Skip", "Pardon"}
CONTROL: Final = "control"
CERTIFICATE_BYTES_MAX: Final = 4096
CACHED_BYTES_MAX: Final = 8192
"""Longer records are read anew each time: a cache of large updates would fill the memory."""
CACHED_RECORDS_MAX: Final = 4096

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9_.-]{0,62}[a-z0-9])?")
_HOLDER: Final = re.compile(
    f"spiffe://(?P<region>{_NAME.pattern})/(?P<role>[a-z]+)/(?P<name>{_NAME.pattern})"
)
_COHORT: Final = re.compile(r"urn:fluvial:cohort:(?P<cohort>[a-z0-9]([a-z0-9_-]{0,30}[a-z0-9])?)")
_ROLES: Final = frozenset(SIGNED_BY.values())
_MALFORMED_CERTIFICATE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    InvalidSignature,
    x509.InvalidVersion,
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True, slots=True)
class Signer:
    """Who a certificate says its holder is; times are milliseconds since 1970 UTC, both inclusive."""

    region: str
    role: str
    name: str
    serial: str
    not_before_ms: int
    not_after_ms: int
    key: Ed25519PublicKey
    cohort: str = ""
    """Of a device, since ``fluvial/policy/v6``; "" for none."""
    is_of_an_edge: bool = False
    """Whether its region has no CA of its own, but that of a region above it, or its role is an edge's."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """An envelope, opened as far as it could be.

    ``signer`` is None for a certificate that the task's CAs do not vouch for; ``record`` is None for a payload that
    cannot be decoded; ``genuine`` says whether the signature is the signer's.
    """

    kind: str
    schema_version: int
    payload: bytes
    signature: bytes
    signer: Signer | None
    genuine: bool
    record: dict[str, Any] | None
    record_bytes: int

    def authentic_at(self, timestamp_ms: int) -> bool:
        """Whether one who may sign this kind signed it, with a certificate that was valid at this LogAppendTime."""
        return refusal_of(self, timestamp_ms) == "" and self.record is not None


def refusal_of(sealed: Sealed, timestamp_ms: int) -> str:
    """The refusal that an envelope's signer and signature deserve, in the documented order; "" for a good one."""
    refusal = ""
    if sealed.signer is None:
        refusal = "bad_certificate"
    elif not sealed.signer.not_before_ms <= timestamp_ms <= sealed.signer.not_after_ms:
        refusal = "certificate_expired"
    elif SIGNED_BY.get(sealed.kind) != sealed.signer.role:
        refusal = "bad_certificate"
    elif not sealed.genuine:
        refusal = "bad_signature"
    # A forged control record is one thing, whichever check it failed.
    return "bad_signature" if refusal and sealed.kind not in CONTRIBUTIONS else refusal


class Notary:
    """The CAs of a task: region (or ``control``) to PEM. Equal CAs give the same notary, see ``notary_of``.

    ``canonical``: one encoding of records and certificates counts. ``named``: SHA-256 (hex) of the genesis, if signed.
    """

    def __init__(self, authorities: dict[str, str], *, canonical: bool, named: str) -> None:
        self.canonical = canonical
        self._named = bytes.fromhex(named)
        self.revokes_all = bool(named)
        self._authorities = {
            region: x509.load_pem_x509_certificate(pem.encode()) for region, pem in authorities.items()
        }

    def signed_bytes(self, kind: str, schema_sha256: bytes, payload: bytes) -> bytes:
        """What the signature of a record of this task is over."""
        domain = b"fluvial/" + kind.encode() + (b"/v2\0" if self._named else b"/v1\0")
        return domain + self._named + schema_sha256 + hashlib.sha256(payload).digest()

    @property
    def signs_manifests(self) -> bool:
        """Whether the task's manifests are signed by their mergers."""
        return bool(self._named)

    def merger_of(self, unsigned: bytes, seal: Any) -> Signer | None:
        """The merger whose signature ``seal`` is, over a manifest's canonical form without its key ``merger``."""
        if not isinstance(seal, dict) or set(seal) != {"certificate", "signature"}:
            return None
        texts = [seal["certificate"], seal["signature"]]
        try:
            certificate, signature = (base64.b64decode(text, validate=True) for text in texts)
            signer = self.signer_of(certificate)
            if signer is None or signer.role != "merger":
                return None
            signer.key.verify(
                signature, b"fluvial/Manifest/v2\0" + self._named + hashlib.sha256(unsigned).digest()
            )
        except (ValueError, TypeError, InvalidSignature):
            return None
        same = [base64.b64encode(data).decode() for data in (certificate, signature)] == texts
        return signer if same else None

    def signer_of(self, der: bytes) -> Signer | None:
        """Who holds a certificate; None where the task's CAs do not vouch for it."""
        if len(der) > CERTIFICATE_BYTES_MAX:
            return None
        if self.canonical:
            return self._holder(der)
        try:
            return self._verified(der)
        except _MALFORMED_CERTIFICATE:
            return None

    def _holder(self, der: bytes) -> Signer | None:
        try:
            holder = read_holder(der)
        except NotHolder:
            return None
        named = _holder_name(holder.uris)
        if named is None or holder.key is None or holder.signature is None or holder.is_authority:
            return None
        region, role, name, cohort = named
        authority = self._authority_of(region)
        if authority is None or (region == CONTROL) != (role in OF_CONTROL):
            return None
        key = authority.public_key()
        same = holder.issuer == subject_bytes(authority.public_bytes(Encoding.DER))
        if not same or not isinstance(key, Ed25519PublicKey):
            return None
        try:
            key.verify(holder.signature, holder.signed)
        except InvalidSignature:
            return None
        times = holder.not_before_ms, holder.not_after_ms
        owned = Ed25519PublicKey.from_public_bytes(holder.key)
        below = region not in self._authorities or role == "edge"
        return Signer(region, role, name, f"{holder.serial:x}", *times, owned, cohort, below)

    def _authority_of(self, region: str) -> x509.Certificate | None:
        """The CA of a region, or of the nearest region above an edge; nothing is below ``control``."""
        parts = region.split(".")
        for many in range(len(parts), 0, -1):
            above = ".".join(parts[:many])
            if above in self._authorities:
                return None if above == CONTROL != region else self._authorities[above]
        return None

    def _verified(self, der: bytes) -> Signer | None:
        certificate = x509.load_der_x509_certificate(der)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uri, *others = names.get_values_for_type(x509.UniformResourceIdentifier)
        scheme, nothing, region, role, name = uri.split("/")
        cohort = _cohort_in(others, role)
        if cohort is None:
            return None
        key = certificate.public_key()
        if (
            (scheme, nothing) != ("spiffe:", "")
            or role not in _ROLES
            or not isinstance(key, Ed25519PublicKey)
        ):
            return None
        authority = self._authority_of(region)
        if not _NAME.fullmatch(region) or not _NAME.fullmatch(name) or authority is None:
            return None
        if (region == CONTROL) != (role in OF_CONTROL):
            return None
        certificate.verify_directly_issued_by(authority)
        if not der.endswith(b"\0" + certificate.signature) or _is_authority(certificate):
            return None
        return Signer(
            region,
            role,
            name,
            f"{certificate.serial_number:x}",
            int(certificate.not_valid_before_utc.timestamp() * 1000),
            int(certificate.not_valid_after_utc.timestamp() * 1000),
            key,
            cohort,
            region not in self._authorities or role == "edge",
        )


def _holder_name(uris: list[bytes]) -> tuple[str, str, str, str] | None:
    """Region, role and name of ``spiffe://<region>/<role>/<name>``, and a device's cohort, "" for none.

    None unless there is that one URI, or that one and behind it a device's ``urn:fluvial:cohort:<cohort>``.
    """
    texts = [uri.decode("latin-1") for uri in uris]
    found = _HOLDER.fullmatch(texts[0]) if texts else None
    if found is None or found["role"] not in _ROLES:
        return None
    cohort = _cohort_in(texts[1:], found["role"])
    return None if cohort is None else (found["region"], found["role"], found["name"], cohort)


def _cohort_in(others: list[str], role: str) -> str | None:
    """What the URIs behind the first say; "" for none, None where they are not one cohort of a device."""
    if not others:
        return ""
    found = _COHORT.fullmatch(others[0]) if len(others) == 1 and role == "device" else None
    return None if found is None else found["cohort"]


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


@lru_cache(maxsize=64)
def notary_of(authorities: tuple[tuple[str, str], ...], *, canonical: bool, named: str) -> Notary:
    """The notary of these CAs, (region, PEM) each, and of the task that its signatures name."""
    return Notary(dict(authorities), canonical=canonical, named=named)


@lru_cache(maxsize=CACHED_RECORDS_MAX)
def _signer_of(notary: Notary, der: bytes) -> Signer | None:
    return notary.signer_of(der)


def open_sealed(notary: Notary, value: bytes) -> Sealed:
    """Open a SignedEnvelope as far as it goes; ``Undecodable`` where it is none, or its payload is of another kind."""
    return _open_short(notary, value) if len(value) <= CACHED_BYTES_MAX else _open(notary, value)


@lru_cache(maxsize=CACHED_RECORDS_MAX)
def _open_short(notary: Notary, value: bytes) -> Sealed:
    return _open(notary, value)


def _open(notary: Notary, value: bytes) -> Sealed:
    envelope = decode(value, "SignedEnvelope", canonical=notary.canonical)
    kind, payload, signature = envelope["kind"], envelope["payload"], envelope["signature"]
    schema = schema_of(payload)
    if schema.name != kind:
        raise Undecodable(f"the envelope says {kind[:64]!r}, the payload is a {schema.name}", schema=schema)
    signer = _signer_of(notary, envelope["certificate"])
    genuine = False
    if signer is not None:
        try:
            signer.key.verify(signature, notary.signed_bytes(kind, schema.sha256, payload))
            genuine = True
        except InvalidSignature:
            genuine = False
    record = None
    if genuine:
        try:
            record = decode(payload, kind, canonical=notary.canonical)
        except Undecodable:
            record = None
    return Sealed(kind, schema.version, payload, signature, signer, genuine, record, len(value))
