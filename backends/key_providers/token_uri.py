"""``pkcs11:`` URIs (RFC 7512): which key of which token is meant, and through which library."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote, unquote_to_bytes

from aggregation.errors import UsageProblem

SCHEME: Final = "pkcs11:"
URI_CHARACTERS_MAX: Final = 1024

_OF_TOKEN: Final = ("token", "serial", "manufacturer", "model")
_NAMES: Final = {**{name: name for name in (*_OF_TOKEN, "object", "id")}, "slot-id": "slot"}
"""Attributes of a path, and the fields that hold them."""
_SECRETS: Final = ("pin-value", "pin-source")
_ESCAPES: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_UNESCAPED: Final = re.compile(r"[A-Za-z0-9_.~:\[\]@!$'()*+,=&/%-]*")


def is_uri(place: object) -> bool:
    """Whether a key's place is such a URI and not a file. A scheme may be written in any case (RFC 3986)."""
    return str(place)[: len(SCHEME)].lower() == SCHEME


@dataclass(frozen=True, slots=True)
class TokenUri:
    """A key, by the label (``object``) or the id of its object, or both; the rest says which token holds it.

    "", None and b"" are any. ``module`` is the file of the PKCS#11 library; None where the settings say it.
    """

    token: str = ""
    serial: str = ""
    manufacturer: str = ""
    model: str = ""
    slot: int | None = None
    object: str = ""
    id: bytes = b""
    module: Path | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Of what ``is_uri`` knows. UsageProblem FLV-2310, which names the attribute that is wrong, and no value."""
        if len(text) > URI_CHARACTERS_MAX:
            raise _refused(f"it is longer than {URI_CHARACTERS_MAX} characters")
        path, question, query = text[len(SCHEME) :].partition("?")
        found: dict[str, Any] = {}
        for name, value in _attributes(path, ";", (*_NAMES, "type")):
            if name == "type":
                if value != b"private":
                    raise _refused("its type has to be private")
            elif name == "id":
                found[name] = value
            elif name == "slot-id":
                found["slot"] = _number(value)
            else:
                found[name] = _text(name, value)
        for name, value in _attributes(query, "&", ("module-path",)) if question else ():
            found["module"] = Path(_text(name, value))
        uri = cls(**found)
        if not uri.object and not uri.id:
            raise _refused("it names no key: `object` (its label) or `id` has to say which")
        return uri

    @property
    def plain(self) -> Self:
        """The same without the library's place, which is each machine's own."""
        return replace(self, module=None)

    def __str__(self) -> str:
        said = {name: getattr(self, field) for name, field in _NAMES.items()}
        parts = [f"{name}={_quoted(value)}" for name, value in said.items() if value not in {"", None, b""}]
        library = f"?module-path={_quoted(str(self.module))}" if self.module else ""
        return SCHEME + ";".join(parts) + library

    @property
    def token_in_words(self) -> str:
        """Which token, for people."""
        said = [
            f"{field.name} {getattr(self, field.name)!r}"
            for field in fields(self)
            if field.name in {*_OF_TOKEN, "slot"} and getattr(self, field.name) not in {"", None}
        ]
        return ", ".join(said) or "any"

    @property
    def key_in_words(self) -> str:
        """Which key, for people."""
        said = [f"the label {self.object!r}"] if self.object else []
        return " and ".join([*said, *([f"the id {self.id.hex()}"] if self.id else [])])


def _attributes(text: str, separator: str, known: tuple[str, ...]) -> list[tuple[str, bytes]]:
    found: dict[str, bytes] = {}
    for part in text.split(separator) if text else ():
        name, equals, value = part.partition("=")
        if name in _SECRETS:
            raise _refused(
                f"{name} may not stand in it: command lines and logs would show it. "
                "The PIN is FLUVIAL_KEY_PIN, or in the file that FLUVIAL_KEY_PIN_FILE names"
            )
        if name not in known:
            raise _refused(f"{name[:40]!r} is none of {', '.join(known)}")
        if not equals or name in found:
            raise _refused(f"{name} has to stand there once, with a value")
        if _ESCAPES.search(value) or not _UNESCAPED.fullmatch(value):
            raise _refused(f"the value of {name} has a character that has to be written as %XX")
        found[name] = unquote_to_bytes(value)
        if not found[name]:
            raise _refused(f"{name} is empty")
    return list(found.items())


def _text(name: str, value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise _refused(f"the value of {name} is not UTF-8") from None
    if not text.isprintable():
        raise _refused(f"the value of {name} has a character that cannot be printed")
    return text


def _number(value: bytes) -> int:
    if not re.fullmatch(rb"[0-9]{1,19}", value):
        raise _refused("slot-id has to be a number")
    return int(value)


def _quoted(value: str | bytes | int) -> str:
    if isinstance(value, bytes):
        return "".join(f"%{byte:02x}" for byte in value)
    return quote(str(value), safe="/:@")


def _refused(reason: str) -> UsageProblem:
    return UsageProblem(
        "FLV-2310",
        f"the URI of the key is refused: {reason}",
        hint="write it as `--key 'pkcs11:token=NAME;object=LABEL'`",
    )
