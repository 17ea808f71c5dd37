"""What `make fold-again` runs on other interpreters: it finds all as it was recorded, and says what is not."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from backends.memory.log import MemoryLog
from schemas.checkpoints import encode_model
from schemas.topics import aggregates_topic, verdicts_topic
from schemas.verdicts import encode_verdict
from tests import interpreters
from tests.golden.fold_again import Again, all_again, recorded_log
from tests.golden.recorded import EXPECTED, TASK, genesis, objects, partitions, records

if TYPE_CHECKING:
    from collections.abc import Callable

VERDICTS = sum(len(records(verdicts_topic(TASK, region), partition)) for region, partition in genesis().slots)


def log_without(topic: str, offset: int) -> MemoryLog:
    """The recorded log with one record of partition 0 emptied."""
    log = MemoryLog(dict(partitions()))
    for name, count in partitions():
        for partition in range(count):
            for record in records(name, partition):
                emptied = (name, partition, record.offset) == (topic, 0, offset)
                log.load(replace(record, value=b"") if emptied else record)
    return log


def longer(encode: Callable[..., bytes], *given: Any) -> bytes:
    return encode(*given) + b"\0"


def test_all_is_as_it_was_recorded() -> None:
    again = all_again(recorded_log(), objects())
    assert again.differences == []
    assert again.verdicts == sum(len(one["verdicts"]) for one in EXPECTED["partitions"]) <= VERDICTS
    assert again.versions == len(EXPECTED["versions"]) - 1


def test_a_window_that_was_not_recorded_is_said() -> None:
    again = all_again(log_without(aggregates_topic(TASK, "eu"), 1), objects())
    assert [one.split(":")[0] for one in again.differences] == ["aggregate 1 of eu[0]"]


def test_other_bits_of_a_verdict_and_of_a_model_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for encode in (encode_verdict, encode_model):
        monkeypatch.setattr(f"tests.golden.fold_again.{encode.__name__}", partial(longer, encode))
    again = all_again(recorded_log(), objects())
    said = [one.split(":")[0] for one in again.differences]
    assert sum(one.startswith("verdict ") for one in said) == again.verdicts
    assert sum(one.startswith("model of version ") for one in said) == again.versions
    assert len(said) == again.verdicts + again.versions


def test_other_interpreters_are_others_and_start() -> None:
    own = "{}.{}".format(*sys.version_info[:2])
    assert own not in interpreters.others()


def test_a_difference_is_named_with_both_sides() -> None:
    again = Again()
    again.hold("this", b"a", b"a")
    again.hold("that", b"a", b"b")
    assert again.differences == ["that: recorded b'a', got b'b'"]
