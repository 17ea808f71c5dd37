"""Every `fluvial ...` command that a message, a page or the README names exists, with its options."""

from __future__ import annotations

import ast
import re
import shlex
from functools import cache
from pathlib import Path

import click
import pytest

from fluvial.cli import cli

ROOT = Path(__file__).parents[3]
PACKAGES = ("aggregation", "schemas", "backends", "learning", "producers", "stream_apps", "fluvial")
PAGES = [
    ROOT / "README.md",
    ROOT / "docs" / "architecture.md",
    ROOT / "docs" / "policy.md",
    ROOT / "docs" / "analysts.md",
    ROOT / "docs" / "metrics.md",
    ROOT / "docs" / "traces.md",
    *(ROOT / "docs" / "errors").glob("*.md"),
]
QUOTED = re.compile(r"(?<!`)`(fluvial [^`]+)`(?!`)")
OPTION = re.compile(r"(?<!`)`(--[a-z][a-z-]*)")
PLAIN = re.compile(r"fluvial [^,;:]*(?=,|$)")
"""A hint that begins with a command, and says no more or goes on after a comma."""
OTHER_TOOLS = {"--alter"}


def texts(tree: ast.AST) -> list[str]:
    """Every string in a module; what an f-string puts in is X, and its parts are one string."""
    parts = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            found.append("".join(str(v.value) if isinstance(v, ast.Constant) else "X" for v in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in parts:
            found.append(node.value)
    return found


@cache
def sources() -> list[tuple[str, str]]:
    """(where, text) of everything that people are shown."""
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            where = path.relative_to(ROOT).as_posix()
            found += [(where, text) for text in texts(ast.parse(path.read_text()))]
    return found + [(path.relative_to(ROOT).as_posix(), path.read_text()) for path in PAGES]


def commands() -> list[tuple[str, str]]:
    found = set()
    for where, text in sources():
        found |= {(where, " ".join(command.split())) for command in QUOTED.findall(text)}
        if where.endswith(".py") and "\n" not in text and (plain := PLAIN.fullmatch(text.partition(",")[0])):
            found.add((where, plain[0].strip()))
        if where.endswith(".md"):
            found |= {
                (where, line) for line in re.findall(r"^ *(fluvial .*?)(?:  +#.*)?$", text, re.MULTILINE)
            }
    return sorted(found)


def options_of(command: click.Command) -> dict[str, click.Option]:
    context = click.Context(command)
    return {
        name: option
        for option in command.get_params(context)
        if isinstance(option, click.Option)
        for name in (*option.opts, *option.secondary_opts)
    }


def problem_of(text: str) -> str:
    """Why ``text`` could not be typed; empty when it could. WORDS and … stand for what the reader puts in."""
    words = shlex.split(re.split(r" [|>] ", text.replace("…", "..."))[0])[1:]
    command: click.Command = cli
    arguments = 0
    while words:
        word = words.pop(0)
        name, equals, _ = word.partition("=")
        if name.startswith("-") and name != "-":
            option = options_of(command).get(name)
            if option is None:
                return f"{command.name} has no option {name}"
            if not option.is_flag and not equals and words and not words[0].startswith("--"):
                words.pop(0)
        elif isinstance(command, click.Group):
            if re.fullmatch(r"[A-Z<].*|\.\.\.", word):
                return ""
            found = command.get_command(click.Context(command), word)
            if found is None:
                return f"no command {word!r}"
            command = found
        elif word != "...":
            arguments += 1
    known = sum(isinstance(one, click.Argument) for one in command.params)
    if any(one.nargs < 0 for one in command.params if isinstance(one, click.Argument)):
        return ""  # as many as one likes
    return f"{command.name} takes {known} arguments, not {arguments}" if arguments > known else ""


def test_every_command_exists() -> None:
    problems = {(where, command): problem_of(command) for where, command in commands()}
    assert {place: problem for place, problem in problems.items() if problem} == {}


def all_options(command: click.Command) -> set[str]:
    found = set(options_of(command))
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            found |= all_options(inner)
    return found


def test_options_that_are_named_alone_exist_too() -> None:
    named = {(where, option) for where, text in sources() for option in OPTION.findall(text)}
    known = all_options(cli) | OTHER_TOOLS
    assert sorted((where, option) for where, option in named if option not in known) == []


def test_there_is_something_to_check() -> None:
    assert len(commands()) > 80


@pytest.mark.parametrize(
    "text",
    [
        "fluvial upp",
        "fluvial up --stoer file",
        "fluvial ca isue NAME",
        "fluvial versions 3",
        "fluvial task create a b",
        "fluvial bundle",
    ],
)
def test_a_command_that_does_not_exist_would_be_found(text: str) -> None:
    assert problem_of(text) != ""


@pytest.mark.parametrize(
    "text",
    ["fluvial --home X up", "fluvial COMMAND --help", "fluvial audit --from 3", "fluvial --traceback ..."],
)
def test_a_command_that_exists_is_found(text: str) -> None:
    assert problem_of(text) == ""
