"""What every place to keep a private key can do.

Who holds a key is an ``Ed25519PrivateKey``, the interface of ``cryptography``: it signs, and says its public key.
Records and certificates are signed through it alone: nobody else sees whether the key is in this process or a token.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aggregation.errors import UsageProblem
from backends.settings import KeySettings


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A key file that was read: PEM, with a certificate, and beside it what one provider says of its key."""

    path: Path
    text: bytes
    certificate: x509.Certificate

    def damaged(self, reason: str) -> UsageProblem:
        """FLV-2303, with what is wrong with it."""
        return UsageProblem("FLV-2303", f"{self.path} {reason}", hint="issue it again")


class KeyProvider(Protocol):
    """One way to keep private keys."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    def is_in(self, file: KeyFile) -> bool:
        """Whether it keeps the key of this file."""
        ...

    def key_of(self, file: KeyFile, settings: KeySettings) -> Ed25519PrivateKey:
        """The key that belongs to the file's certificate. UsageProblem FLV-2303; what the provider raises."""
        ...

    def written(self, key: Ed25519PrivateKey, settings: KeySettings) -> bytes:
        """What stands in a key file for ``key``, beside its certificate: lines of text."""
        ...
