"""What an evaluator that starts again finds in the metrics topic: enough, in few pieces, whatever else is there."""

from __future__ import annotations

from typing import Any

import pytest

from backends.log import LogRecord
from schemas.metrics import encode_metric
from stream_apps.evaluator.published_evaluations import RECALL_RECORDS_MAX, read_evaluations

WINDOW = encode_metric({"kind": "window", "region": "eu"})
TOPIC = "fl.t.metrics"


class MemoryReader:
    """A metrics topic in memory; ``reads`` are the lengths of the pieces that were read of it."""

    def __init__(self, values: list[bytes]) -> None:
        self.values = values
        self.reads: list[int] = []

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        return 0, len(self.values)

    def read(self, topic: str, partition: int, start: int, end: int) -> Any:
        self.reads.append(end - start)
        return (LogRecord(topic, partition, at, 0, None, self.values[at]) for at in range(start, end))


def evaluation(version: object, **fields: object) -> bytes:
    return encode_metric({"kind": "evaluation", "version": version, "created_at_ms": 9, **fields})


def read(values: list[bytes]) -> tuple[list[dict[str, Any]], list[int]]:
    reader: Any = MemoryReader(values)
    return read_evaluations(reader, TOPIC), reader.reads


def test_an_empty_topic_and_one_of_windows_have_none() -> None:
    assert read([])[0] == []
    assert read([WINDOW] * 1000)[0] == []


def test_the_newest_evaluation_is_found_behind_many_windows_in_few_pieces() -> None:
    found, reads = read([WINDOW] * 5000 + [evaluation(4)] + [WINDOW] * 50_000)
    assert found == [{"version": 4, "created_at_ms": 9}]
    assert len(reads) < 13


def test_an_evaluation_of_a_version_that_there_is_not_was_planted_and_is_passed_over() -> None:
    reader: Any = MemoryReader([evaluation(3), evaluation(2**31 - 1), evaluation(5)])
    assert [one["version"] for one in read_evaluations(reader, TOPIC, 4)] == [3]


def test_all_evaluations_are_recalled_back_to_the_first_model() -> None:
    values = [evaluation(0, accuracy=0.1)]
    for version in range(1, 40):
        values += [WINDOW] * 50 + [evaluation(version, accuracy=version / 40, loss=0.5)]
    found, reads = read([WINDOW] * 500_000 + values)
    assert [one["version"] for one in found] == list(range(40))
    assert found[39] == {"version": 39, "created_at_ms": 9, "accuracy": 39 / 40, "loss": 0.5}
    assert sum(reads) < 5000


def test_no_more_is_read_for_the_memory_than_its_bound() -> None:
    found, reads = read([evaluation(1)] + [WINDOW] * 2 * RECALL_RECORDS_MAX + [evaluation(2)])
    assert [one["version"] for one in found] == [2]
    assert sum(reads) <= RECALL_RECORDS_MAX + 64


def test_of_two_evaluations_of_a_version_the_first_counts_across_pieces() -> None:
    values = [evaluation(3, accuracy=0.3), evaluation(3, accuracy=0.9)] + [WINDOW] * 100
    assert read([*values, evaluation(3, accuracy=0.8)])[0] == [
        {"version": 3, "created_at_ms": 9, "accuracy": 0.3}
    ]


@pytest.mark.parametrize(
    "junk",
    [
        b"{",
        b"[" * 100_000 + b'"evaluation"',
        b'["evaluation"]',
        b'{"kind": "evaluation"}',
        b'{"kind": "evaluation", "version": "x"}',
        b'{"kind": "evaluation", "version": true}',
        b'{"kind": "evaluation", "version": -2}',
        b'{"kind": "evaluation", "version": 1e400}',
        b'{"kind": "evaluation", "version": Infinity}',
        b'{"kind": "evaluation", "version": 1' + b"0" * 400 + b"}",
        b'{"kind": "evaluation", "version": 1' + b"0" * 5000 + b"}",
    ],
    ids=lambda junk: junk[:44].decode(),
)
def test_what_is_no_evaluation_is_passed_over(junk: bytes) -> None:
    assert read([evaluation(1), junk])[0] == [{"version": 1, "created_at_ms": 9}]


def test_fields_that_are_no_finite_number_are_left_out() -> None:
    fields = b'"accuracy": 1e999, "loss": 1' + b"0" * 400 + b', "accuracy_worst_decile": "x"'
    found, _ = read([b'{"kind": "evaluation", "version": 1, "created_at_ms": -5, ' + fields + b"}"])
    assert found == [{"version": 1, "created_at_ms": 0}]
