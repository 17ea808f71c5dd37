"""Keys that remember what is genuine forget nothing else: what was not signed so is refused, each time."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidSignature

from tests import factories
from tests.simulation.keys import RememberingKey, remembering


def test_what_a_signer_made_is_genuine_under_its_key_and_for_its_bytes_only() -> None:
    signer = remembering(factories.device_signer("d-1"))
    signature = signer.key.sign(b"said")
    mine, other = (RememberingKey(factories.device_signer(name).key.public_key()) for name in ("d-1", "d-2"))
    mine.verify(signature, b"said")
    for key, data, forged in (
        (other, b"said", signature),
        (mine, b"not said", signature),
        (mine, b"said", bytes(64)),
    ):
        for _ in range(2):
            with pytest.raises(InvalidSignature):
                key.verify(forged, data)


def test_a_real_signature_that_was_not_remembered_is_verified() -> None:
    signer = factories.device_signer("d-3")
    RememberingKey(signer.key.public_key()).verify(signer.key.sign(b"said"), b"said")
