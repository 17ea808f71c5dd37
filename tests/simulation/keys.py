"""Signatures that are verified once. Many simulated readers look at each record, and Ed25519 is a function.

What a signer has just made is genuine under its own key and over exactly these bytes, so it is remembered as such. All
else, such as what an intruder forges, is verified for real by every reader, again and again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from fluvial.proof.checker import wire
from schemas.certificates import Identity, Trust

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    from schemas.envelope import Signer

REMEMBERED_MAX = 10_000
"""Signatures; a schedule makes about a hundred."""

_genuine: set[tuple[bytes, bytes, bytes]] = set()
"""(public key, signature, signed bytes)."""


def _remember(known: tuple[bytes, bytes, bytes]) -> None:
    if len(_genuine) >= REMEMBERED_MAX:
        _genuine.clear()
    _genuine.add(known)


class RememberingKey:
    """An Ed25519 public key that knows again what was signed or verified."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key
        self._raw = key.public_bytes_raw()

    def verify(self, signature: bytes, data: bytes) -> None:
        known = (self._raw, signature, data)
        if known not in _genuine:
            self._key.verify(signature, data)
            _remember(known)


class _SigningKey:
    """An Ed25519 private key that remembers what it signs."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._raw = key.public_key().public_bytes_raw()

    def sign(self, data: bytes) -> bytes:
        signature = self._key.sign(data)
        _remember((self._raw, signature, data))
        return signature


def remembering(signer: Signer) -> Signer:
    """``signer``, whose signatures are remembered."""
    return replace(signer, key=cast("Any", _SigningKey(signer.key)))


class RememberingTrust(Trust):
    """Trust whose keys remember, in all processes of all federations."""

    def identify(
        self, der: bytes, *, guardians: bool = True, cohorts: bool = True, edges: bool | None = None
    ) -> Identity:
        identity = _identities.get(der)
        if identity is None or not guardians or not cohorts or edges:
            verified = super().identify(der, guardians=guardians, cohorts=cohorts, edges=edges)
            identity = _identities[der] = replace(
                verified, public_key=cast("Any", RememberingKey(verified.public_key))
            )
        return identity


_identities: dict[bytes, Identity] = {}


class _RememberingNotary(wire.Notary):
    """The checker's notary. It decides by itself which key and which bytes count: only the arithmetic is shared."""

    def signer_of(self, der: bytes) -> wire.Signer | None:
        found = super().signer_of(der)
        return found and replace(found, key=cast("Any", RememberingKey(found.key)))


def remember_in_checker() -> None:
    """From now on the checker of this process uses keys that remember."""
    wire.Notary = _RememberingNotary  # type: ignore[misc]
