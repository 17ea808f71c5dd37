"""A number that is typed is a finite one, of every option of every command."""

from __future__ import annotations

import click
import pytest

from fluvial.cli import cli
from fluvial.terminal.numbers import Number
from tests.unit.house.test_help import walk

FLOATS = [
    (path, option)
    for path, command in walk(cli)
    for option in command.params
    if isinstance(option.type, (click.types.FloatParamType, click.FloatRange))
]


def test_there_are_some() -> None:
    assert len(FLOATS) > 10


@pytest.mark.parametrize(("path", "option"), FLOATS, ids=[f"{path} {option.name}" for path, option in FLOATS])
@pytest.mark.parametrize("word", ["nan", "inf", "-inf", "1e999", "much", ""])
def test_what_is_no_finite_number_is_refused(path: str, option: click.Parameter, word: str) -> None:
    assert isinstance(option.type, Number), path
    with pytest.raises(click.BadParameter):
        option.type.convert(word, option, None)


@pytest.mark.parametrize(
    "name", ["alpha", "speed_spread", "round_s", "seconds_max", "days", "every_s", "timeout_s"]
)
def test_what_cannot_be_below_nothing_is_not(name: str) -> None:
    found = [option for _, option in FLOATS if option.name == name]
    for option in found:
        with pytest.raises(click.BadParameter):
            option.type.convert("-1", option, None)
