"""Private keys in files: PKCS#8 in PEM, as it is or encrypted with a passphrase."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aggregation.errors import UsageProblem
from backends.key_providers.provider import KeyFile
from backends.settings import KeySettings

PASSPHRASE_CHARACTERS_MIN: Final = 16
"""Of a new encrypted key. The key derivation of PKCS#8 is cheap to try, so a passphrase has to be long."""
PASSPHRASE_BYTES_MAX: Final = 1023
"""What OpenSSL takes."""
_ENCRYPTED: Final = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"


class PlainFiles:
    """The key stands in the file as it is; who may read the file may sign."""

    name: Final = "file"

    def is_in(self, file: KeyFile) -> bool:
        """Whatever no other provider knows: what it is, the attempt to read it says."""
        return _ENCRYPTED not in file.text

    def key_of(self, file: KeyFile, settings: KeySettings) -> Ed25519PrivateKey:  # noqa: ARG002
        """The key. UsageProblem FLV-2303."""
        try:
            key = serialization.load_pem_private_key(file.text, password=None)
        except (ValueError, TypeError) as error:
            raise file.damaged(f"does not hold a certificate and its private key: {error}") from error
        return _fitting(key, file)

    def written(self, key: Ed25519PrivateKey, settings: KeySettings) -> bytes:  # noqa: ARG002
        """The key's PEM."""
        return _pem(key, serialization.NoEncryption())


class EncryptedFiles:
    """The key stands in the file encrypted with a passphrase, which comes from the settings."""

    name: Final = "encrypted file"

    def is_in(self, file: KeyFile) -> bool:
        """Whether the file holds an encrypted key."""
        return _ENCRYPTED in file.text

    def key_of(self, file: KeyFile, settings: KeySettings) -> Ed25519PrivateKey:
        """The key. UsageProblem FLV-2303, FLV-2311 (no passphrase), FLV-2312 (a wrong one)."""
        if not settings.passphrase:
            raise UsageProblem(
                "FLV-2311",
                f"{file.path} is encrypted, and there is no passphrase for it",
                hint="set FLUVIAL_KEY_PASSPHRASE_FILE to a file that holds it (of a CA: "
                "FLUVIAL_KEY_CA_PASSPHRASE_FILE)",
            )
        try:
            key = serialization.load_pem_private_key(file.text, _bytes_of(settings.passphrase))
        except ValueError as error:
            raise UsageProblem(
                "FLV-2312",
                f"{file.path} cannot be decrypted: the passphrase is wrong, or the file is damaged",
                hint="FLUVIAL_KEY_PASSPHRASE or its file has to hold the one with which the key was encrypted (of a "
                "CA: FLUVIAL_KEY_CA_PASSPHRASE)",
            ) from error
        return _fitting(key, file)

    def written(self, key: Ed25519PrivateKey, settings: KeySettings) -> bytes:
        """The encrypted key's PEM. UsageProblem FLV-2311: no passphrase, or one that could be guessed."""
        if not len(settings.passphrase) >= PASSPHRASE_CHARACTERS_MIN:
            raise UsageProblem(
                "FLV-2311",
                f"to encrypt a key takes a passphrase of {PASSPHRASE_CHARACTERS_MIN} characters or more, and there "
                f"{'is none' if not settings.passphrase else 'is a shorter one'}",
                hint="make one with `openssl rand -base64 32`, and name its file in FLUVIAL_KEY_PASSPHRASE_FILE (of a "
                "CA: FLUVIAL_KEY_CA_PASSPHRASE_FILE)",
            )
        return _pem(key, serialization.BestAvailableEncryption(_bytes_of(settings.passphrase)))


def _bytes_of(passphrase: str) -> bytes:
    data = passphrase.encode()
    if len(data) > PASSPHRASE_BYTES_MAX:
        raise UsageProblem(
            "FLV-2312",
            f"a passphrase of {len(data)} bytes is longer than OpenSSL takes, {PASSPHRASE_BYTES_MAX}",
            hint="does FLUVIAL_KEY_PASSPHRASE_FILE name the right file?",
        )
    return data


def _pem(key: Ed25519PrivateKey, encryption: serialization.KeySerializationEncryption) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def _fitting(key: object, file: KeyFile) -> Ed25519PrivateKey:
    if not isinstance(key, Ed25519PrivateKey):
        raise file.damaged("holds a key that is not Ed25519")
    if file.certificate.public_key() != key.public_key():
        raise file.damaged("holds a certificate and the private key of another")
    return key
