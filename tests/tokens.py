"""PKCS#11 tokens for tests: real ones, of SoftHSM."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives import serialization

from tests import requirements

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

PIN: Final = "a pin of 27 µ"
_PLACES: Final = ("softhsm", "x86_64-linux-gnu/softhsm", "aarch64-linux-gnu/softhsm")
TOKENS: Final = 28
"""That a process of tests has: SoftHSM finds those only that are there when it is loaded."""


def module() -> Path:
    """SoftHSM's library; the test is skipped, or fails in CI, where there is none."""
    requirements.require("softhsm2-util")
    found = (Path("/usr/lib", place, "libsofthsm2.so") for place in _PLACES)
    return next(path for path in found if path.exists())


@dataclass
class SoftToken:
    """One token, in a folder that SoftHSM made for it."""

    label: str
    folder: Path
    scratch: Path
    ids: Iterator[int] = field(default_factory=lambda: count(1))

    def hold(self, key: PrivateKeyTypes, label: str, *, public: bool = True, key_id: str = "") -> None:
        """Put a private key there, and its public one unless that is left out."""
        pem = self.scratch / "key.pem"
        pem.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        key_id = key_id or f"{next(self.ids):04x}"
        known = ["--token", self.label, "--label", label, "--id", key_id, "--pin", PIN, "--force"]
        softhsm("--import", str(pem), *known, *([] if public else ["--no-public-key"]))
        pem.unlink()

    def uri(self, label: str) -> str:
        """Which key of it."""
        return f"pkcs11:token={quote(self.label)};object={quote(label)}"

    def pull(self) -> None:
        """Take it away, as one pulls a card."""
        shutil.move(self.folder, self.scratch / self.label)

    def push(self) -> None:
        """Put it back."""
        shutil.move(self.scratch / self.label, self.folder)


@dataclass
class SoftTokens:
    """The tokens of a process of tests, each given away once."""

    scratch: Path
    store: Path

    def __post_init__(self) -> None:
        for folder in (self.scratch, self.store):
            folder.mkdir()
        self.configuration.write_text(
            f"directories.tokendir = {self.store}\nobjectstore.backend = file\nlog.level = ERROR\n"
        )
        self._fresh: list[SoftToken] = []

    @property
    def configuration(self) -> Path:
        """What SOFTHSM2_CONF names."""
        return self.scratch / "softhsm2.conf"

    def fill(self, tokens: int) -> None:
        """Make so many."""
        for number in range(tokens):
            before, label = set(self.store.iterdir()), f"token {number}"
            softhsm("--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "12345678")
            (folder,) = set(self.store.iterdir()) - before
            self._fresh.append(SoftToken(label, folder, self.scratch))

    def take(self) -> SoftToken:
        """One that nobody has had."""
        assert self._fresh, "the tests of one process take more: raise TOKENS"
        return self._fresh.pop()


def softhsm(*arguments: str) -> None:
    """SoftHSM's own tool."""
    done = subprocess.run(
        ["softhsm2-util", *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def soft_tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftTokens]:
    """Tokens that this process and those that it starts find."""
    module()
    folder = tmp_path_factory.mktemp("tokens")
    tokens = SoftTokens(folder / "scratch", folder / "store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(tokens.configuration))
        tokens.fill(TOKENS)
        yield tokens


@pytest.fixture
def token(soft_tokens: SoftTokens) -> SoftToken:
    """A token of the test's own."""
    return soft_tokens.take()
