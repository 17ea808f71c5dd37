"""What a signature is for: the task. Nothing is signed, and no signature is checked, without saying which.

Every signature is over a *domain*, then hashes of what is signed. The domain of tasks before ``fluvial/genesis/v5``
names only the kind of record. That of later ones names the task's genesis document too, which holds a nonce: so a
record of an earlier task of the same name, or of any other, is worth nothing (``docs/adr/0035-task-identity.md``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from aggregation.fold.rules import RecordRules

SHA256_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class SignatureDomain:
    """For which task something is signed. ``genesis`` is the SHA-256 of its document, 32 bytes; empty in version 1."""

    version: int
    genesis: bytes

    def __post_init__(self) -> None:
        """ValueError for what is no domain."""
        expected = {1: 0, 2: SHA256_BYTES}.get(self.version)
        if expected is None or len(self.genesis) != expected:
            raise ValueError(
                f"no signature domain has the version {self.version} and {len(self.genesis)} bytes of a genesis"
            )

    @classmethod
    def of(cls, rules: RecordRules, genesis_sha256: str) -> SignatureDomain:
        """The domain of a task with these rules, whose genesis document's SHA-256 (hex) this is."""
        return cls(2, bytes.fromhex(genesis_sha256)) if rules.signatures > 1 else FIRST_DOMAIN

    def signed_bytes(self, kind: str, schema_sha256: bytes, payload: bytes) -> bytes:
        """What a signature covers: the domain, the full schema's SHA-256 and the payload's, 32 bytes each.

        Ed25519 hashes its message with SHA-512, which no processor helps with; the payload's own SHA-256 is three
        times cheaper where the processor has the instruction (``docs/adr/0006-signed-digest.md``).
        """
        payload_sha256 = hashlib.sha256(payload).digest()
        begun = f"fluvial/{kind}/v{self.version}\0".encode()
        return b"".join((begun, self.genesis, schema_sha256, payload_sha256))


FIRST_DOMAIN: Final = SignatureDomain(1, b"")
"""That of all tasks before ``fluvial/genesis/v5``."""
