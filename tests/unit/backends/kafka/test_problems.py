"""What the broker's refusals are called."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from backends.kafka.problems import problem_of


@pytest.mark.parametrize(
    ("code", "error_id", "hint"),
    [
        (KafkaError.INVALID_RECORD, "FLV-1024", "`fluvial doctor` says which topic differs"),
        (KafkaError.MSG_SIZE_TOO_LARGE, "FLV-3105", "`fluvial config show`"),
        (KafkaError.LEADER_NOT_AVAILABLE, "FLV-3100", "`fluvial up`"),
    ],
)
def test_each_has_an_id_and_a_hint_of_its_own(code: int, error_id: str, hint: str) -> None:
    problem = problem_of(KafkaError(code), "append to fl.t.updates.eu", "kafka:9092")
    assert problem.error_id == error_id
    assert hint in problem.hint
