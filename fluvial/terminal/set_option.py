"""``--set KEY=VALUE``: settings of a task, from the command line into its CONFIG."""

from __future__ import annotations

import ast
import math
import re
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from aggregation.errors import UsageProblem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_Function = TypeVar("_Function", bound="Callable[..., Any] | click.Command")
_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_WORDS: Final[dict[str, Any]] = {"true": True, "false": False, "null": None, "none": None}
"""As JSON and shells write them; Python's own spellings are literals."""
_INTEGER_MAX: Final = 2**63 - 1
_DEPTH_MAX: Final = 16


def set_option(function: _Function) -> _Function:
    """Add ``--set KEY=VALUE``, repeatable: the command gets ``given``, what ``parse_settings`` makes of it."""
    option = click.option(
        "--set",
        "given",
        multiple=True,
        metavar="KEY=VALUE",
        callback=lambda _context, _parameter, value: parse_settings(value),
        help="A key of the task's CONFIG, such as learning_rate=0.05 or a key of its own. May be repeated.",
    )
    return option(function)


def parse_settings(texts: Sequence[str]) -> dict[str, Any]:
    """``KEY=VALUE`` each, the last of a key wins; a value is a literal of Python or JSON, else a text as it stands.

    UsageProblem FLV-2246: no key, or a value that task.json could not hold.
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not _KEY.fullmatch(key.strip()):
            raise _refused(text, "expected KEY=VALUE, with a key as in Python")
        found[key.strip()] = _plain(_value(value.strip()), text)
    return found


def words_of(given: Mapping[str, Any]) -> list[str]:
    """The words that say ``given`` again: ``--set``, ``key=value``, ..."""
    return [word for key, value in given.items() for word in ("--set", f"{key}={_text(value)}")]


def _text(value: Any) -> str:
    return value if isinstance(value, str) and _value(value.strip()) == value else repr(value)


def _value(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _plain(value: Any, text: str, depth: int = 0) -> Any:
    """``value`` as JSON holds it: tuples are lists, numbers are finite, keys are texts."""
    if depth > _DEPTH_MAX:
        raise _refused(text, f"it is nested more than {_DEPTH_MAX} deep")
    if isinstance(value, list | tuple):
        return [_plain(one, text, depth + 1) for one in value]
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise _refused(text, "the keys of a dict have to be texts")
        return {key: _plain(one, text, depth + 1) for key, one in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        raise _refused(text, "a number has to be finite")
    if isinstance(value, int) and abs(value) > _INTEGER_MAX:
        raise _refused(text, "an integer has to fit into 64 bits")
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise _refused(text, f"a {type(value).__name__} cannot be recorded: numbers, texts, lists and dicts can")


def _refused(text: str, reason: str) -> UsageProblem:
    return UsageProblem(
        "FLV-2246",
        f"--set {text!r}: {reason}",
        hint="for example `--set learning_rate=0.05`, or `--set layers=[64,32]`; quote what your shell would read",
    )
