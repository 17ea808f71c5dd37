"""Who may ask: the host's name, the operator's token, and the headers that every answer has."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hmac
import ipaddress
import os
import secrets
import stat
from typing import TYPE_CHECKING, Final

from aggregation.errors import EnvironmentProblem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

TOKEN_BYTES: Final = 24
TOKEN_FILE: Final = "console-token"  # a file's name, no secret  # noqa: S105
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_OWN_HOSTS: Final = ("localhost", "127.0.0.1", "[::1]")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Hosts:
    """The names under which the console may be opened."""

    def __init__(self, host: str, allowed: Iterable[str]) -> None:
        own = f"[{host}]" if ":" in host and not host.startswith("[") else host
        self._names = frozenset(name.lower() for name in (*_OWN_HOSTS, own, *allowed) if name)

    def allows(self, header: str) -> bool:
        """Whether a Host header names us, whatever its port."""
        return self.name_of(header) in self._names

    @staticmethod
    def name_of(header: str) -> str:
        """The name in a Host header, without its port; "" for what is none."""
        name, colon, port = header.strip().lower().rpartition(":")
        if not colon or (name.startswith("[") and not name.endswith("]")):
            return header.strip().lower()
        return name if port.isdigit() and (":" not in name or name.endswith("]")) else ""


class Token:
    """The operator's token. Compared in a time that says nothing of it."""

    def __init__(self, text: str) -> None:
        self._text = text.encode()

    def opens(self, header: str, *, basic: bool) -> bool:
        """Whether an Authorization header has it: as Bearer, or with ``basic`` also as Basic's password."""
        scheme, _, value = header.partition(" ")
        given = value.strip().encode(errors="surrogateescape")  # a header may be any bytes
        if basic and scheme.lower() == "basic":
            with contextlib.suppress(binascii.Error):
                return self._same(base64.b64decode(given, validate=True).partition(b":")[2])
            return False
        return scheme.lower() == "bearer" and self._same(given)

    def _same(self, given: bytes) -> bool:
        return hmac.compare_digest(given, self._text)


def token_path(home: Path) -> Path:
    """Where a home's token is."""
    return home / TOKEN_FILE


def read_or_make_token(home: Path) -> str:
    """The home's token, random and made at the first start, for its owner's eyes only (mode 0600).

    Raises EnvironmentProblem FLV-6502 where it can neither be read nor made.
    """
    path = token_path(home)
    try:
        home.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(TOKEN_BYTES) + "\n")
        if stat.S_IMODE(path.stat().st_mode) != 0o600:  # noqa: PLR2004 (for its owner only)
            path.chmod(0o600)
        text = path.read_text(encoding="utf-8-sig").strip()
        if not text:  # a start before this one was cut off between making and writing it
            path.write_text((text := secrets.token_urlsafe(TOKEN_BYTES)) + "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise EnvironmentProblem(
            "FLV-6502",
            f"the console's token cannot be read or made: {error}",
            where=str(path),
            hint="see the home folder with `fluvial doctor`, or give `--token`",
        ) from error
    return text


def header_of(headers: Mapping[str, str], name: str) -> str:
    """A header's value, "" where it is not there."""
    return headers.get(name, "")
