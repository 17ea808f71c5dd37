"""What a Flower reply says of its examples, wherever it says it."""

from __future__ import annotations

from typing import Any

import pytest

from fluvial.flower.records import weighed

NAMES = ("weight", "num-examples", "num_examples")
FOUND: dict[str, tuple[list[dict[str, Any]], dict[str, float]]] = {
    "a message's": ([{"train_loss": 0.2, "num-examples": 120}], {"num_examples": 120.0}),
    "a fit result's": ([{"num_examples": 7}], {"num_examples": 7.0}),
    "by the strategy's own name first": ([{"num-examples": 1, "weight": 2.5}], {"num_examples": 2.5}),
    "in the second record": ([{"loss": 1.0}, {"num-examples": 3}], {"num_examples": 3.0}),
    "none at all": ([{"loss": 1.0}], {}),
    "no examples": ([{"num-examples": 0}], {}),
    "a truth value": ([{"num-examples": True}], {}),
    "a text": ([{"num-examples": "many"}], {}),
    "a list": ([{"num-examples": [3]}], {}),
}


@pytest.mark.parametrize(("records", "expected"), FOUND.values(), ids=FOUND)
def test_a_reply_says_how_many_examples_its_round_was_on(
    records: list[dict[str, Any]], expected: dict[str, float]
) -> None:
    assert weighed(records, NAMES) == expected
