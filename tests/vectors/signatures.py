"""Vectors of Ed25519 signatures, among them those in which libraries differ: the rule is in ``schemas/README.md``."""

from __future__ import annotations

from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.factories import key
from tests.vectors.writing import document

ORDER: Final = 2**252 + 27742317777372353535851937790883648493
PRIME: Final = 2**255 - 19
SIGN: Final = 1 << 255


def _le(number: int) -> bytes:
    return number.to_bytes(32, "little")


ORDER_8: Final = bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")
SMALL: Final = {
    "the identity": _le(1),
    "the identity, y above the prime": _le(PRIME + 1),
    "the identity, with a sign": _le(1 | SIGN),
    "order 2": _le(PRIME - 1),
    "order 2, with a sign": _le((PRIME - 1) | SIGN),
    "order 4": _le(0),
    "order 4, y above the prime": _le(PRIME),
    "order 8": ORDER_8,
}
"""Points of small order, and other encodings of them."""


def _odd() -> dict[str, tuple[bytes, bytes, bytes]]:
    honest = key("eu/device/d-0001")
    public, message = honest.public_key().public_bytes_raw(), b"a message"
    good = honest.sign(message)
    r, s = good[:32], int.from_bytes(good[32:], "little")
    identity = SMALL["the identity"]
    return {
        "good": (public, message, good),
        "of another message": (public, b"another", good),
        "S and the order": (public, message, r + _le(s + ORDER)),
        "S is the order": (identity, message, identity + _le(ORDER)),
        "63 bytes": (public, message, good[:63]),
        "65 bytes": (public, message, good + b"\0"),
        "no bytes": (public, message, b""),
        "a key that is no point": (_le(2), message, identity + bytes(32)),
        "R is the identity, y above the prime": (
            identity,
            message,
            SMALL["the identity, y above the prime"] + bytes(32),
        ),
        "R is the identity, with a sign": (identity, message, SMALL["the identity, with a sign"] + bytes(32)),
    }


def signatures() -> dict[str, Any]:
    """S is 0 where the key is of small order: then R is one of few points, and which depends on the message."""
    rows = _odd()
    for name, point in SMALL.items():
        for r in ("the identity", "order 2", "order 4"):
            for message in (b"m", b"n"):
                rows[f"key {name}, R {r}, {message.decode()}"] = (point, message, SMALL[r] + bytes(32))
    cases = [
        {
            "name": name,
            "public_key": public.hex(),
            "message": message.hex(),
            "signature": signature.hex(),
            "valid": _valid(public, message, signature),
        }
        for name, (public, message, signature) in rows.items()
    ]
    return document("Ed25519 signatures, honest and odd ones, and whether they are valid", cases)


def _valid(public: bytes, message: bytes, signature: bytes) -> bool:
    """As ``ClosedEnvelope.signed_by`` asks."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except InvalidSignature:
        return False
    return True
