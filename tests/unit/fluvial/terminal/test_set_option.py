"""`--set KEY=VALUE`: what a shell's word becomes, and what task.json could not hold."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aggregation.errors import UsageProblem
from fluvial.terminal.set_option import parse_settings, words_of


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("k=1", 1),
        ("k=-2.5e-3", -2.5e-3),
        ("k=adam", "adam"),
        ("k='1'", "1"),
        ("k=true", True),
        ("k=False", False),
        ("k=none", None),
        ("k=null", None),
        ("k=[64, 32]", [64, 32]),
        ("k=(64, 32)", [64, 32]),
        ("k={'a': [1, None]}", {"a": [1, None]}),
        ("k=a=b", "a=b"),
        ("k=", ""),
        (" k = 1 ", 1),
        ("k=1.5x", "1.5x"),
        ("k=__import__('os')", "__import__('os')"),
    ],
)
def test_a_value_is_a_literal_else_a_text(text: str, value: Any) -> None:
    found = parse_settings([text])
    assert found == {"k": value} and type(found["k"]) is type(value)
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    "text",
    ["k", "=1", "a b=1", "1a=1", "a-b=1", "k={1, 2}", "k=b'x'", "k=1e999", "k=2j",
      f"k={2**63}", "k={1: 2}", f"k={'[' * 30 + ']' * 30}"],
)  # fmt: skip
def test_what_cannot_be_recorded_is_refused_by_its_text(text: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        parse_settings([text])
    assert caught.value.error_id == "FLV-2246" and text in caught.value.message


def test_the_last_of_a_key_wins_and_a_text_may_be_as_deep_as_it_likes() -> None:
    assert parse_settings(["k=1", "other=2", "k=3"]) == {"k": 3, "other": 2}
    assert parse_settings([f"k={'(' * 5000}"])["k"] == "(" * 5000


def test_settings_can_be_said_again() -> None:
    given = {"a": 1, "b": "adam", "c": "1", "d": [1, 2.5], "e": None, "f": True, "g": "", "h": " x"}
    words = words_of(given)
    assert words[::2] == ["--set"] * len(given)
    assert parse_settings(words[1::2]) == given
