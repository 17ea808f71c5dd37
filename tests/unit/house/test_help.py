"""Every `--help` is whole: no sentence cut short, and examples that the command's own parser takes."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import click
import pytest

from fluvial.cli import COMMANDS, OVERVIEW, cli
from fluvial.examples import EXAMPLES, first_sentence
from fluvial.terminal.invocation import Invocation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILES = ("mine.py", "policy.toml", "model.safetensors")
"""What examples name and a parser wants to be there."""


def walk(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """(path, command) of every command, groups included."""
    yield " ".join(path), command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from walk(inner, (*path, name))


def help_of(command: click.Command, path: str) -> str:
    parent = click.Context(cli, info_name="fluvial", max_content_width=110, terminal_width=110)
    return command.get_help(click.Context(command, info_name=path, parent=parent, terminal_width=110))


def parse(words: list[str]) -> None:
    """As the command line would, without running it: click.UsageError for what it would refuse."""
    command: click.Command = cli
    context = cli.make_context("fluvial", list(words), obj=Invocation())
    while isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None
        command, context = found, found.make_context(name, rest, parent=context)


def lines() -> list[str]:
    return [line for examples in EXAMPLES.values() for line, _ in examples] + [
        line.removeprefix("fluvial ") for line, _ in OVERVIEW
    ]


@pytest.mark.parametrize("line", lines())
def test_every_example_is_what_its_command_takes(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in FILES:
        (tmp_path / name).touch()
    parse(shlex.split(line))


@pytest.mark.parametrize("line", ["run mine.py --devices none", "task create", "statu", "versions --limit 0"])
def test_an_example_that_a_parser_refuses_would_be_found(line: str) -> None:
    with pytest.raises(click.UsageError):
        parse(shlex.split(line))


def test_every_command_has_examples_of_its_own() -> None:
    leaves = {path for path, command in walk(cli) if not isinstance(command, click.Group)}
    assert leaves == EXAMPLES.keys(), "add the command to fluvial/examples.py"
    for path, examples in EXAMPLES.items():
        assert examples and all(f"{line} ".startswith(f"{path} ") for line, _ in examples), path


def test_every_help_shows_its_examples_and_cuts_no_sentence() -> None:
    for path, command in walk(cli):
        text = help_of(command, path)
        assert "Examples:" in text, path
        assert "…" not in text, path
        # click's usage line has dots of its own
        assert re.findall(r"\w\.\.\.", text.replace("[ARGS]...", "")) == [], path


def test_the_overview_names_every_command_that_exists() -> None:
    assert list(COMMANDS) == cli.list_commands(click.Context(cli))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("One. Two.", "One."),
        (
            "One that goes on\nover a line: and ends (such as eu:2, us:2).\n\nMore.",
            "One that goes on over a line: and ends (such as eu:2, us:2).",
        ),
        ("", ""),
    ],
)
def test_a_summary_is_the_first_sentence_whole(text: str, sentence: str) -> None:
    assert first_sentence(text) == sentence
