"""What errors say, over all places that raise one: nothing twice, and no error inside an error's text."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path

import aggregation.errors

ROOT = Path(__file__).parents[3]
PACKAGES = ("aggregation", "schemas", "backends", "learning", "producers", "stream_apps", "fluvial")
FAMILY = {name for name, kind in vars(aggregation.errors).items() if isinstance(kind, type)} | {
    *("ObjectNotFound", "StoreFull", "StoreRefused", "StoreUnavailable", "OUTAGES", "UNREADABLE"),
}
ALIKE_MAX = 0.6


@cache
def trees() -> list[tuple[str, ast.Module]]:
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [(path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())) for path in paths]


def plain(node: ast.expr | None) -> str:
    """The constant words of a string; what is put in is left out."""
    if node is None:
        return ""
    return "X".join(
        str(part.value)
        for part in ast.walk(node)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    )


def sites() -> Iterator[tuple[str, str, str]]:
    """(where, message, hint) of every error that is made with an id written out."""
    for where, tree in trees():
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and len(node.args) > 1
                and re.fullmatch(r"FLV-\d{4}", plain(node.args[0]))
            ):
                hint = next((word.value for word in node.keywords if word.arg == "hint"), None)
                yield f"{where}:{node.lineno}", plain(node.args[1]), plain(hint)


def likeness(one: str, other: str) -> float:
    return SequenceMatcher(None, one.lower(), other.lower(), autojunk=False).ratio()


def test_there_is_something_to_check() -> None:
    assert len(list(sites())) > 200


def test_no_hint_repeats_its_message() -> None:
    alike = [
        (where, message, hint)
        for where, message, hint in sites()
        if message and hint and likeness(message, hint) > ALIKE_MAX
    ]
    assert alike == []


def test_no_text_says_that_it_is_an_error_or_a_hint() -> None:
    """``error[FLV-…]:`` and ``hint:`` are written by whoever shows it, once."""
    marked = re.compile(r"^\s*(error|hint|warning|problem)\b[\[:]|error\[FLV|\bhint: ", re.IGNORECASE)
    assert [place for place, message, hint in sites() if marked.search(message) or marked.search(hint)] == []


def test_no_text_has_a_word_twice_in_a_row() -> None:
    twice = re.compile(r"\b([a-z]{2,}) +\1\b")
    quoted = re.compile(r"`[^`]*`")
    assert [
        (where, text) for where, *texts in sites() for text in texts if twice.search(quoted.sub("", text))
    ] == []


def handlers() -> Iterator[tuple[str, ast.ExceptHandler]]:
    """Those that catch errors of ours only, under a name."""
    for where, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and node.name and node.type is not None:
                caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
                if all(isinstance(one, ast.Name) and one.id in FAMILY for one in caught):
                    yield where, node


def test_no_error_is_put_whole_into_the_text_of_another() -> None:
    """``str(error)`` has the id, the place and the hint: within another's message all three would stand twice."""
    wrong = []
    for where, handler in handlers():
        for node in ast.walk(handler):
            if isinstance(node, ast.Call) and node.args and re.fullmatch(r"FLV-\d{4}", plain(node.args[0])):
                inner = [*node.args[1:], *(word.value for word in node.keywords)]
                shown = [part for text in inner for part in ast.walk(text)]
                whole = [part.value for part in shown if isinstance(part, ast.FormattedValue)]
                whole += [part.args[0] for part in shown if isinstance(part, ast.Call) and is_str(part)]
                wrong += [f"{where}:{node.lineno}" for one in whole if is_named(one, handler.name)]
    assert wrong == []


def is_str(node: ast.Call) -> bool:
    return isinstance(node.func, ast.Name) and node.func.id == "str" and bool(node.args)


def is_named(node: ast.AST, name: str | None) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def test_the_check_would_see_one() -> None:
    assert likeness("the broker does not answer", "see why the broker does not answer") > ALIKE_MAX
    assert {"FluvialError", "UsageProblem", "ConnectionProblem"} <= FAMILY
    assert len(list(handlers())) > 20
