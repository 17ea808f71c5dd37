"""Who made a version: the merger's signature in a manifest, in tasks since ``fluvial/genesis/v5``.

It covers a domain of its own (``schemas/documents.md``), the same for every format since v2, the SHA-256 of the genesis
document, and that of the manifest's canonical form without its key ``merger``. A version's identity stays the SHA-256
of its manifest's bytes.

A manifest carries no time, so its signature says nothing of when. Its certificate has to have been valid at the
LogAppendTime of the first announcement of the version; before one stands, whoever adopts it goes by the own clock.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Final

import msgspec
from cryptography.exceptions import InvalidSignature

from aggregation.errors import IntegrityProblem
from schemas.certificates import BadCertificateError, Identity, Role
from schemas.documents import manifest_v1, manifest_v2, manifest_v3
from schemas.manifests import Manifest, Seal

if TYPE_CHECKING:
    from aggregation.policy import Policy
    from schemas.certificates import Trust
    from schemas.envelope import Signer
    from schemas.signing import SignatureDomain

_DOMAIN: Final = b"fluvial/Manifest/v2\0"


def manifest_formats(domain: SignatureDomain) -> tuple[str, ...]:
    """The formats of a task's manifests: signed ones where its signatures name the task."""
    return (manifest_v2.FORMAT, manifest_v3.FORMAT) if domain.version > 1 else (manifest_v1.FORMAT,)


def manifest_format(domain: SignatureDomain, policy: Policy) -> str:
    """The format of a version that is merged under ``policy``."""
    formats = manifest_formats(domain)
    return formats[-1] if policy.counts_shares else formats[0]


def sealed(manifest: Manifest, signer: Signer) -> Manifest:
    """``manifest`` with its merger's signature; as it is in tasks before ``fluvial/genesis/v5``."""
    if manifest.format == manifest_v1.FORMAT:
        return manifest
    signature = signer.key.sign(_signed_bytes(manifest, signer.domain))
    seal = Seal(base64.b64encode(signer.certificate).decode(), base64.b64encode(signature).decode())
    return msgspec.structs.replace(manifest, merger=seal)


def require_sealed(manifest: Manifest, trust: Trust) -> Identity | None:
    """The merger that signed a manifest; None in tasks whose manifests nobody signs.

    Raises ``IntegrityProblem`` FLV-4104 where it is of another format than the task's, or no merger of the task signed
    these very keys. Nothing is said of when the certificate was valid, nor whether it is of the format of its policy.
    """
    formats = manifest_formats(trust.domain)
    if manifest.format not in formats:
        raise _unsealed(manifest, f"it is a {manifest.format}, the task's are {' or '.join(formats)}")
    if manifest.format == manifest_v1.FORMAT:
        return None
    assert manifest.merger is not None, "its format says so"
    certificate, signature = _bytes_in(manifest.merger.certificate), _bytes_in(manifest.merger.signature)
    if certificate is None or signature is None:
        raise _unsealed(manifest, "its certificate or signature is not in base64")
    try:
        signer = trust.identify(certificate)
    except BadCertificateError as error:
        raise _unsealed(manifest, str(error)) from error
    if signer.role is not Role.MERGER:
        raise _unsealed(manifest, f"{signer.name}, who signed it, is a {signer.role.value}")
    try:
        signer.public_key.verify(signature, _signed_bytes(manifest, trust.domain))
    except InvalidSignature as error:
        raise _unsealed(manifest, f"the signature is not {signer.name}'s over it, for this task") from error
    return signer


def _signed_bytes(manifest: Manifest, domain: SignatureDomain) -> bytes:
    return _DOMAIN + domain.genesis + hashlib.sha256(manifest.unsigned()).digest()


def _bytes_in(text: str) -> bytes | None:
    """Base64 in its one form; None for anything else."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return data if base64.b64encode(data).decode() == text else None


def _unsealed(manifest: Manifest, why: str) -> IntegrityProblem:
    return IntegrityProblem(
        "FLV-4104",
        f"the manifest of version {manifest.version} is signed by no merger of this task: {why}",
        hint="somebody who may write the store put it there: see docs/runbooks/planted-version.md",
    )
