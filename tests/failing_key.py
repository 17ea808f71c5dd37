"""A private key that signs so many times and no more, as one does whose token is pulled."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aggregation.errors import AccessProblem

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from schemas.envelope import KeyPair


class FailingKey:
    """Signs ``good`` times as the key that it has, and never again."""

    def __init__(self, key: Ed25519PrivateKey, good: int) -> None:
        self._key = key
        self.left = good

    def sign(self, data: bytes) -> bytes:
        if self.left <= 0:
            raise AccessProblem("FLV-2318", "the token does not sign any more: it was pulled")
        self.left -= 1
        return self._key.sign(data)


def failing(key_pair: KeyPair, good: int) -> tuple[KeyPair, FailingKey]:
    """``key_pair`` with such a key, and the key."""
    key: Any = FailingKey(key_pair.key, good)
    return replace(key_pair, key=key), key
