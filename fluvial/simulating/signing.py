"""How devices sign that are arithmetic: keys follow from a seed, certificates are made when they are needed.

Signed, a device is as on the real stack. Its private key is a hash of the simulation's seed and its number, so nothing
is kept of it beyond the last ``AUTHORS_KEPT``. Unsigned, its updates carry its name in the place of a certificate, and
the workers of this process believe it: ``Believing`` is the genesis' trust but for that. Nothing else is left out, and
nothing outside of this process takes such a record.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from backends import keys
from producers.sdk.updates import Author, may_answer
from schemas.certificates import Identity, Role, Trust
from schemas.envelope import KeyPair
from schemas.signing import SignatureDomain

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from producers.sdk.bases import Base
    from schemas.manifests import Genesis

AUTHORS_KEPT: Final = 4096
MARK: Final = b"fluvial/unsigned/v1\0"
SERIAL: Final = 1 << 158
"""The serial number of device 0's certificate."""
NO_SIGNATURE: Final = b"\0" * 64
_FOREVER_MS: Final = 1 << 62


class Nobody:
    """In the place of a key, where nothing is signed: it signs without a signature, and verifies anything."""

    def sign(self, _data: bytes) -> bytes:
        """64 zero bytes."""
        return NO_SIGNATURE

    def verify(self, _signature: bytes, _data: bytes) -> None:
        """Whatever it is."""


NOBODY: Final = cast("Any", Nobody())


class UnsignedDomain(SignatureDomain):
    """A task's domain in which nothing is hashed of updates, for their signatures are nobody's."""

    def signed_bytes(self, kind: str, schema_sha256: bytes, payload: bytes) -> bytes:
        """See ``SignatureDomain``."""
        return b"" if kind == "ClientUpdate" else super().signed_bytes(kind, schema_sha256, payload)


class Believing(Trust):
    """The trust of a genesis, which also takes a device's word for its name, for simulations without signatures."""

    @classmethod
    def of(cls, trust: Trust) -> Believing:
        """The same CAs and rules; the domain is the same for all but updates."""
        return cls(trust.authorities, trust.rules, _unsigned(trust.domain))

    def identify(
        self, der: bytes, *, guardians: bool = True, cohorts: bool = True, edges: bool | None = None
    ) -> Identity:
        """See ``Trust``; what begins with ``MARK`` is a device's word."""
        if not der.startswith(MARK):
            return super().identify(der, guardians=guardians, cohorts=cohorts, edges=edges)
        region, cohort, name = der[len(MARK) :].decode().split("/", 2)
        key = cast("Ed25519PublicKey", NOBODY)
        return Identity(region, Role.DEVICE, name, name, 0, _FOREVER_MS, key, cohort)


def _unsigned(domain: SignatureDomain) -> SignatureDomain:
    return UnsignedDomain(domain.version, domain.genesis)


class Authors:
    """The authors of a simulation by number. ``folder`` has the CAs of the regions; ``names``: () for ``d-000017``.

    ``cohorts``: what the certificates name, "" for nothing; () for all of them nothing.
    """

    def __init__(
        self,
        genesis: Genesis,
        folder: Path,
        *,
        seed: int,
        signed: bool,
        names: Sequence[str] = (),
        cohorts: Sequence[str] = (),
    ) -> None:
        self.regions = tuple(sorted(genesis.regions))
        self._genesis = genesis
        domain = genesis.domain  # which takes the whole document to say
        self._domain = domain if signed else _unsigned(domain)
        self._seed = seed
        self._names = names
        self._cohorts = cohorts
        self._issuers = (
            {region: keys.Issuer(folder, region, keys.IN_PLAIN_FILES) for region in self.regions}
            if signed
            else {}
        )
        self._known: OrderedDict[int, Author] = OrderedDict()

    def name(self, device: int) -> str:
        """The device's id."""
        return self._names[device] if self._names else f"d-{device:06d}"

    def cohort(self, device: int) -> str:
        """What the device's certificate names."""
        return self._cohorts[device] if self._cohorts else ""

    def may_answer(self, device: int, base: Base, waited_s: float) -> bool:
        """Whether it may answer ``base``, the newest version for so many seconds; no key is made to know it."""
        return may_answer(self._genesis.task, self.name(device), base, waited_s, self.cohort(device))

    def of(self, device: int) -> Author:
        """The device's author: the same key each time, whether it is remembered or made again."""
        known = self._known.get(device)
        if known is not None:
            self._known.move_to_end(device)
            return known
        region, name = self.regions[device % len(self.regions)], self.name(device)
        pair = self._pair(region, name, device)
        signer = pair.of_task(self._domain)
        made = Author(self._genesis, region, name, signer, self._seed, self.cohort(device))
        self._known[device] = made
        if len(self._known) > AUTHORS_KEPT:
            self._known.popitem(last=False)
        return made

    def _pair(self, region: str, name: str, device: int) -> KeyPair:
        if not self._issuers:
            return KeyPair(MARK + f"{region}/{self.cohort(device)}/{name}".encode(), NOBODY)
        secret = hashlib.sha256(f"fluvial/simulated-device/v1/{self._seed}/{device}".encode()).digest()
        key = Ed25519PrivateKey.from_private_bytes(secret)
        serial = SERIAL + device  # so that every certificate is of the same length each time
        issuer, cohort = self._issuers[region], self.cohort(device)
        return issuer.certify(region, Role.DEVICE, name, key, serial, cohort=cohort)
