"""A document as YAML.

It has an emitter of its own because the command has no YAML library where it is installed, and because the same
document has to be the same text under every version of one: block style, keys in their order, every text in JSON's
quotes (which YAML reads alike). The tests read it back with PyYAML.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

_PLAIN: Final = re.compile(r"[A-Za-z$][A-Za-z0-9_$./-]*")
_RESERVED: Final = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


def yaml_text(document: dict[str, Any]) -> str:
    """The text, with a newline at its end. Takes what JSON can say."""
    return "\n".join(_lines(document, "")) + "\n"


def _lines(value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _entry(f"{indent}{_key(key)}:", one, indent + "  ")
    else:
        for one in value:
            if isinstance(one, dict) and one:
                first, *rest = _lines(one, indent + "  ")
                yield f"{indent}- {first.lstrip(' ')}"
                yield from rest
            else:
                yield f"{indent}- {_scalar(one)}"


def _entry(head: str, value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, dict | list) and value:
        yield head
        yield from _lines(value, indent)
    else:
        yield f"{head} {_scalar(value)}"


def _key(key: str) -> str:
    return key if _PLAIN.fullmatch(key) and key.lower() not in _RESERVED else json.dumps(key)


def _scalar(value: Any) -> str:
    text = json.dumps(value)  # of a list in a list: flow style, which is JSON
    if isinstance(value, float) and "." not in text:
        return text.replace("e", ".0e")  # YAML 1.1 takes 1e-07 for a text
    return text
