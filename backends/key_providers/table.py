"""The ways to keep a private key. A key file says by what it holds which of them it is of."""

from __future__ import annotations

from typing import Final

from backends.key_providers.files import EncryptedFiles, PlainFiles
from backends.key_providers.provider import KeyFile, KeyProvider
from backends.key_providers.token import Tokens

PLAIN: Final = PlainFiles()
ENCRYPTED: Final = EncryptedFiles()
TOKENS: Final = Tokens()

PROVIDERS: Final[tuple[KeyProvider, ...]] = (TOKENS, ENCRYPTED, PLAIN)
"""The first that knows a file keeps its key; plain files come last, and say what is wrong with one."""


def provider_of(file: KeyFile) -> KeyProvider:
    """Who keeps the key of a file."""
    return next(provider for provider in PROVIDERS if provider.is_in(file))
