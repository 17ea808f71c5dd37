"""Who signed: X.509 Ed25519 certificates, each naming one region, one role and one id.

The name is a SPIFFE-style URI in the subject alternative name: ``spiffe://<region>/<role>/<id>``. Regional
CAs vouch for devices and workers of their region; the control CA (region ``control``) for mergers, operators and
guardians. Behind its name a device's certificate may have a second URI, ``urn:fluvial:cohort:<cohort>``: of which
cohort the CA says that it is.
"""

from __future__ import annotations

import contextlib
import re
from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from aggregation.policy import checks as policies
from aggregation.reasons import Because, Reason, Value, because
from aggregation.regions import root_of
from schemas.der import Certificate, NotDerError, NotOursError, read_certificate, subject_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aggregation.fold.rules import RecordRules
    from schemas.signing import SignatureDomain

CONTROL: Final = "control"
NAME_PATTERN: Final = re.compile(r"[a-z0-9]([a-z0-9_.-]{0,62}[a-z0-9])?")
COHORT_PATTERN: Final = re.compile(policies.COHORT_PATTERN)
COHORT_PREFIX: Final = "urn:fluvial:cohort:"
_COHORT_URI: Final = re.compile(f"{COHORT_PREFIX}(?P<cohort>{COHORT_PATTERN.pattern})")
CACHED_CERTIFICATES_MAX: Final = 65_536
CACHED_CERTIFICATE_BYTES_MAX: Final = 32 << 20
"""DER bytes of all remembered certificates: a CA may issue large ones."""
CERTIFICATE_BYTES_MAX: Final = 4096
AUTHORITIES_HELD_MAX: Final = 64
"""CAs whose subject is remembered."""


class Role(Enum):
    """What a certificate's holder may sign."""

    DEVICE = "device"
    WORKER = "worker"
    MERGER = "merger"
    OPERATOR = "operator"
    GUARDIAN = "guardian"
    EDGE = "edge"


_MALFORMED: Final = (
    ValueError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What ``cryptography`` raises on bytes that only look like a certificate; they have no common base."""

_ROLES: Final = {role.value: role for role in Role}
_KNOWN_ROLES: Final = {
    (guardians, edges): {
        name: role
        for name, role in _ROLES.items()
        if (guardians or role is not Role.GUARDIAN) and (edges or role is not Role.EDGE)
    }
    for guardians in (False, True)
    for edges in (False, True)
}
"""Roles by whether guardians and edges are known: at first there were neither."""
ISSUED_BY_CONTROL: Final = frozenset({Role.MERGER, Role.OPERATOR, Role.GUARDIAN})


class _Known(NamedTuple):
    """What a certificate may say, to those who ask: roles by their names, and whether there are cohorts and edges."""

    roles: Mapping[str, Role]
    cohorts: bool
    edges: bool


class _Named(NamedTuple):
    """What a certificate's URIs say; ``cohort`` is "" where they name none."""

    region: str
    role: Role
    name: str
    cohort: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """A verified certificate's content.

    Times are milliseconds since 1970 UTC, both inclusive; serial is hex. ``cohort`` is a device's, "" for none.
    """

    region: str
    role: Role
    name: str
    serial: str
    not_before_ms: int
    not_after_ms: int
    public_key: Ed25519PublicKey
    cohort: str = ""

    def valid_at(self, timestamp_ms: int) -> bool:
        """Whether the certificate was valid at a record's LogAppendTime."""
        return self.not_before_ms <= timestamp_ms <= self.not_after_ms


class BadCertificateError(ValueError):
    """Not a certificate that this task's CAs vouch for; ``because`` says why."""

    def __init__(self, because: Because) -> None:
        super().__init__(because.text)
        self.because = because


def _bad(reason: Reason, *values: Value, library: str | None = None) -> BadCertificateError:
    return BadCertificateError(because(reason, *values, library=library))


@dataclass(slots=True)
class Trust:
    """The CAs of a task: ``authorities`` maps each region, and ``control``, to its CA certificate.

    ``rules`` are those of the task's records: every record that is judged by these CAs is read by them.
    ``domain`` is for which task they have to be signed. ``edges``: whether the names of edges below a region are known
    where no policy says so, as in an edge's own topics.

    ``identify`` remembers what it verified, up to ``CACHED_CERTIFICATES_MAX`` certificates of
    ``CACHED_CERTIFICATE_BYTES_MAX`` in all, and beyond that forgets who was not seen for longest: who it remembers
    decides what a record costs, never what it gets. What was not vouched for is not remembered, so that strangers
    cannot push devices out.
    """

    authorities: Mapping[str, x509.Certificate]
    rules: RecordRules
    domain: SignatureDomain
    edges: bool = False
    _known: OrderedDict[bytes, Identity] = field(default_factory=OrderedDict, repr=False)
    _known_bytes: int = field(default=0, repr=False)

    @classmethod
    def from_pem(cls, pems: Mapping[str, str], rules: RecordRules, domain: SignatureDomain) -> Trust:
        """From the PEM texts in a genesis document, its rules and the domain of its task."""
        found = {region: x509.load_pem_x509_certificate(pem.encode()) for region, pem in pems.items()}
        return cls(found, rules, domain)

    def of_edges(self) -> Trust:
        """The same CAs for who reads the topics of edges."""
        return Trust(self.authorities, self.rules, self.domain, edges=True)

    def identify(
        self, der: bytes, *, guardians: bool = True, cohorts: bool = True, edges: bool | None = None
    ) -> Identity:
        """The identity behind a certificate; raises ``BadCertificateError`` with the reason.

        Without ``guardians`` there is no such role, as there was none to the Fluvial of policies before v3. Without
        ``cohorts`` no certificate may name one, as before v6. Without ``edges`` (None: ask ``Trust.edges``) there is
        no such role, and no region but those that have a CA.
        """
        known, edges = self._known, self.edges if edges is None else edges
        roles = _KNOWN_ROLES[guardians, edges]
        identity = known.get(der)
        if (
            identity is not None
            and identity.role in roles.values()
            and (cohorts or not identity.cohort)
            and (edges or identity.region in self.authorities)
        ):
            with contextlib.suppress(KeyError):  # another thread has just forgotten it
                known.move_to_end(der)
            return identity
        identity = self._verify(der, _Known(roles, cohorts, edges))
        if known.setdefault(der, identity) is identity:
            self._known_bytes += len(der)
        while len(known) > CACHED_CERTIFICATES_MAX or self._known_bytes > CACHED_CERTIFICATE_BYTES_MAX:
            self._known_bytes -= len(known.popitem(last=False)[0])
        return identity

    def _verify(self, der: bytes, known: _Known) -> Identity:
        if len(der) > CERTIFICATE_BYTES_MAX:
            raise _bad(Reason.CERTIFICATE_TOO_LARGE, len(der), CERTIFICATE_BYTES_MAX)
        return self._by_us(der, known) if self.rules.canonical else self._by_library(der, known)

    def _by_us(self, der: bytes, known: _Known) -> Identity:
        """By one reading of the bytes; a library is asked about the signature only."""
        try:
            read = read_certificate(der)
        except NotDerError as error:
            raise _bad(Reason.NOT_CANONICAL_DER) from error
        except NotOursError as error:
            raise _bad(Reason.NOT_A_CERTIFICATE) from error
        named = _name_in(read.uris, known)
        if read.key is None:
            raise _bad(Reason.KEY_NOT_ED25519)
        if not _issued(read, self._issuer(named, known)):
            raise _bad(Reason.NOT_ISSUED, named.region)
        if read.is_authority:
            raise _bad(Reason.IS_A_CA)
        return Identity(
            region=named.region,
            role=named.role,
            name=named.name,
            cohort=named.cohort,
            serial=f"{read.serial:x}",
            not_before_ms=read.not_before_ms,
            not_after_ms=read.not_after_ms,
            public_key=Ed25519PublicKey.from_public_bytes(read.key),
        )

    def _issuer(self, named: _Named, known: _Known) -> x509.Certificate:
        """The CA that may vouch for a role of a region; for those of an edge it is that of the region above."""
        region, role = named.region, named.role
        root = root_of(region, self.authorities) if known.edges else region
        issuer = None if root == CONTROL != region else self.authorities.get(root)
        if issuer is None:
            raise _bad(Reason.NO_CA, region)
        if (role in ISSUED_BY_CONTROL) != (region == CONTROL):
            raise _bad(Reason.CA_MAY_NOT, region, role.value)
        return issuer

    def _by_library(self, der: bytes, known: _Known) -> Identity:
        """As a library reads it: for tasks of before."""
        try:
            certificate = x509.load_der_x509_certificate(der)
            named = _spiffe_name(certificate, known)
            public_key = certificate.public_key()
        except _MALFORMED as error:
            raise _bad(Reason.NOT_A_CERTIFICATE, library=str(error)) from error
        if not isinstance(public_key, Ed25519PublicKey):
            raise _bad(Reason.KEY_NOT_ED25519)
        issuer = self._issuer(named, known)
        try:
            certificate.verify_directly_issued_by(issuer)
        except (*_MALFORMED, TypeError, InvalidSignature) as error:
            raise _bad(Reason.NOT_ISSUED, named.region) from error
        if not der.endswith(b"\0" + certificate.signature):
            # The count of unused bits before the signature is not signed: one certificate, one form.
            raise _bad(Reason.NOT_CANONICAL_DER)
        if _is_authority(certificate):
            raise _bad(Reason.IS_A_CA)
        return Identity(
            region=named.region,
            role=named.role,
            name=named.name,
            cohort=named.cohort,
            serial=f"{certificate.serial_number:x}",
            not_before_ms=int(certificate.not_valid_before_utc.timestamp() * 1000),
            not_after_ms=int(certificate.not_valid_after_utc.timestamp() * 1000),
            public_key=public_key,
        )


def _issued(certificate: Certificate, issuer: x509.Certificate) -> bool:
    """Whether the CA is named as the issuer, and signed."""
    key = issuer.public_key()
    if certificate.signature is None or not isinstance(key, Ed25519PublicKey):
        return False
    if certificate.issuer != _subject_of(issuer):
        return False
    try:
        key.verify(certificate.signature, certificate.signed)
    except InvalidSignature:
        return False
    return True


@lru_cache(maxsize=AUTHORITIES_HELD_MAX)
def _subject_of(issuer: x509.Certificate) -> bytes:
    return subject_of(issuer.public_bytes(Encoding.DER))


def _name_in(uris: tuple[bytes, ...], known: _Known) -> _Named:
    texts = [uri.decode("latin-1") for uri in uris]
    if not _is_named_once(texts, known):
        raise _bad(Reason.NOT_ONE_NAME)
    match texts[0].removeprefix("spiffe://").split("/"):
        case [region, role, name] if (
            all(NAME_PATTERN.fullmatch(part) for part in (region, name)) and role in known.roles
        ):
            cohort = _cohort_in(texts[1:], known.roles[role])
            if cohort is None:
                raise _bad(Reason.NOT_ONE_NAME)
            return _Named(region, known.roles[role], name, cohort)
        case _:
            raise _bad(Reason.WRONG_NAME, texts[0])


def _is_named_once(uris: list[str], known: _Known) -> bool:
    """Whether there is a name, and behind it no more than what may be a cohort."""
    return 1 <= len(uris) <= (2 if known.cohorts else 1) and uris[0].startswith("spiffe://")


def _cohort_in(uris: list[str], role: Role) -> str | None:
    """The cohort that is named behind a holder's name, "" where nothing is; None where that is no device's cohort."""
    if not uris:
        return ""
    found = _COHORT_URI.fullmatch(uris[0])
    return None if found is None or role is not Role.DEVICE else found["cohort"]


def cohort_in(der: bytes) -> str:
    """The cohort that a device's certificate names, whoever signed it; "" where it names none, or is no certificate."""
    try:
        uris = [uri.decode("latin-1") for uri in read_certificate(der).uris]
    except (NotDerError, NotOursError):
        return ""
    return (_cohort_in(uris[1:], Role.DEVICE) or "") if len(uris) == 2 else ""  # noqa: PLR2004 (name and cohort)


def _spiffe_name(certificate: x509.Certificate, known: _Known) -> _Named:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if not _is_named_once(uris, known):
        raise ValueError("it has to carry exactly one spiffe:// URI")
    match uris[0].removeprefix("spiffe://").split("/"):
        case [region, role, name] if all(NAME_PATTERN.fullmatch(part) for part in (region, role, name)):
            if role not in known.roles:
                raise ValueError(f"{role!r} is not a valid Role")
            cohort = _cohort_in(uris[1:], known.roles[role])
            if cohort is None:
                raise ValueError("behind its name only a device may carry a URI, its cohort's")
            return _Named(region, known.roles[role], name, cohort)
        case _:
            raise ValueError(f"expected spiffe://<region>/<role>/<id>, got {uris[0]!r}")


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False
