"""Values in addresses, read strictly: what is not as it has to be is FLV-6505, and nothing else happens."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from fluvial.console.limits import TEXT_CHARACTERS_MAX
from fluvial.console.problems import wrong_query

_DIGITS: Final = re.compile(r"[0-9]{1,18}")

Query = Mapping[str, str]


def number(query: Query, name: str, default: int | None, *, low: int = 0, high: int = 10**18) -> int | None:
    """A whole number between ``low`` and ``high``, or the default where the name is not there."""
    text = query.get(name)
    return default if text is None else number_in(name, text, low=low, high=high)


def number_in(name: str, text: str, *, low: int = 0, high: int = 10**18) -> int:
    """A whole number between ``low`` and ``high``."""
    if not _DIGITS.fullmatch(text) or not low <= int(text) <= high:
        raise wrong_query(name, text, f"a whole number from {low} to {high}")
    return int(text)


def word(query: Query, name: str, choices: tuple[str, ...], default: str) -> str:
    """One of some words."""
    text = query.get(name, default)
    if text not in choices:
        raise wrong_query(name, text, f"one of {', '.join(choices)}")
    return text


def text_of(query: Query, name: str) -> str | None:
    """A name or an id, as it stands; None where it was not given."""
    text = query.get(name)
    return None if text is None or not text else bounded(name, text)


def bounded(name: str, text: str) -> str:
    """The text, unless it is too long or has characters that cannot be printed."""
    if len(text) > TEXT_CHARACTERS_MAX or "\x00" in text:
        raise wrong_query(name, text, f"at most {TEXT_CHARACTERS_MAX} characters")
    return text


def cursor(query: Query, name: str, parts: int) -> tuple[int, ...] | None:
    """A place that an answer gave as ``next``: whole numbers with dots between them."""
    text = query.get(name)
    if text is None:
        return None
    pieces = text.split(".")
    if len(pieces) != parts or not all(_DIGITS.fullmatch(piece) for piece in pieces):
        raise wrong_query(name, text, "a place that an answer gave as `next`")
    return tuple(int(piece) for piece in pieces)
