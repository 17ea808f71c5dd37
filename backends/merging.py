"""Merging settings: values by name, each with its source, and what is said of a wrong one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from aggregation.errors import UsageProblem
from backends.folders import expanded
from backends.settings import KAFKA_SECRETS, KEY_SECRETS
from backends.text_files import plain_utf8

_ADDRESS: Final = re.compile(r"^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})$")
SECRET_BYTES_MAX: Final = 65_536
"""Of a file that holds a secret."""
_AROUND_VALUES: Final = "\ufeff \t\r\n"
_SECRETS: Final = ("secret_key", "session_token", *KAFKA_SECRETS, *KEY_SECRETS)


class Merge:
    """Values by dotted name, each with the source that it came from; a later source wins."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.values: dict[str, Any] = {}
        self.sources: dict[str, str] = {}

    def put(self, name: str, value: object, source: str) -> None:
        """What a source says."""
        self.values[name] = value
        self.sources[name] = source

    def default(self, name: str, value: object) -> None:
        """Where no source has said anything."""
        if name not in self.values:
            self.put(name, value, "default")

    def from_variable(self, name: str, variable: str) -> bool:
        """What a variable says; whether it says anything."""
        # A secret out of a file often brings the end of its line along, and what an editor put before its beginning.
        value = self.environ.get(variable, "").strip(_AROUND_VALUES)
        if value:
            self.put(name, value, variable)
        return bool(value)

    def secret_from(self, name: str, variable: str) -> None:
        """A secret, or the file that holds it; the variable itself goes before.

        FLV-1002: there is no such file, or it holds no secret.
        """
        if self.from_variable(name, variable):
            return
        path = self.environ.get(f"{variable}_FILE", "")
        if path:
            try:
                self.put(name, _secret_in(expanded(Path(path))), f"{variable}_FILE")
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                raise UsageProblem(
                    "FLV-1002",
                    f"setting {name}: the file that holds it cannot be read: {reason}",
                    where=f"{variable}_FILE={path}",
                    hint="name a file that this user may read, with nothing in it but the secret",
                ) from None


def _secret_in(path: Path) -> str:
    """OSError; ValueError with a reason, which shows nothing of what stands there."""
    with path.open("rb") as file:
        data = file.read(SECRET_BYTES_MAX + 1)
    if len(data) > SECRET_BYTES_MAX:
        message = f"longer than {SECRET_BYTES_MAX} bytes"
        raise ValueError(message)
    try:
        secret = plain_utf8(data).decode().strip(_AROUND_VALUES)
    except UnicodeDecodeError:
        message = "not UTF-8"
        raise ValueError(message) from None
    if not secret:
        message = "empty"
        raise ValueError(message)
    return secret


def is_collector(value: str) -> bool:
    """Whether it is a URL for traces: without a user or a query."""
    try:
        url = urlsplit(value)
        port = url.port
    except ValueError:
        return False
    plain = not (url.query or url.fragment or "@" in url.netloc)
    return url.scheme in {"http", "https"} and bool(url.hostname) and plain and port != 0


def is_address(value: str) -> bool:
    """Whether it is host:port."""
    match = _ADDRESS.match(value)
    return match is not None and 0 < int(match.group(2)) < 2**16


def wrong(name: str, value: object, expected: str, merge: Merge) -> UsageProblem:
    """FLV-1002: a setting, what was expected, and what came, unless it is a secret."""
    shown = "***" if name.endswith(_SECRETS) and value else repr(value)
    source = merge.sources.get(name, "default")
    return UsageProblem(
        "FLV-1002",
        f"setting {name}: expected {expected}, got {shown}",
        where=f"from {source}",
        hint=_correction(name, source),
    )


def _correction(name: str, source: str) -> str:
    """Where the right value goes. ``config show`` would not help: it stops at the same value."""
    variable = f"FLUVIAL_{name.upper().replace('.', '_')}"
    if source.isupper() or source.endswith("_proxy"):
        return f"set {source} to such a value, or unset it"
    if source.endswith(".json"):
        return f"{source} is written by `fluvial up`: start it again, or set {variable}"
    return f"set {variable}"
