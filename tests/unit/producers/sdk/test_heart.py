"""A device beats at its pace, says a change at once, and bears that nobody takes it."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from aggregation.errors import ConnectionProblem, FluvialError, UsageProblem
from producers.sdk.heart import Heart
from producers.sdk.updates import Author
from schemas.topics import heartbeats_topic
from tests import factories
from tests.factories import TASK
from tests.unit.producers.sdk.test_device_turns import Hours


class Writer:
    def __init__(self, error: Exception | None = None) -> None:
        self.written: list[tuple[str, dict[str, Any]]] = []
        self.error = error

    def append(self, topic: str, value: bytes, *, key: bytes, partition: int) -> Future[Any]:
        assert (key, partition) == (b"d-1", 0)
        self.written.append((topic, msgspec.json.decode(value)["heartbeat"]))
        if isinstance(self.error, UsageProblem):
            raise self.error
        done: Future[Any] = Future()
        if self.error is None:
            done.set_result(None)
        else:
            done.set_exception(self.error)
        return done

    def flush(self, timeout_s: float) -> None:
        assert timeout_s <= 5.0
        if self.error is not None:
            raise self.error


def heart(every_s: float, error: Exception | None = None) -> tuple[Heart, Writer, Hours]:
    writer, clock = Writer(error), Hours()
    author = Author(cast("Any", SimpleNamespace(task=TASK)), "eu", "d-1", factories.device_signer("d-1"))
    return Heart(author, cast("Any", writer), clock, every_s), writer, clock


def test_it_beats_at_its_pace_and_says_a_change_at_once() -> None:
    one, writer, clock = heart(60.0)
    said = []
    for state, base, wait_s in [
        ("waiting", -1, 30.0),
        ("waiting", -1, 29.0),
        ("waiting", -1, 1.0),
        ("waiting", -1, 1.0),
        ("training", 0, 1.0),
        ("waiting", 0, 0.0),
    ]:
        said.append(one.beat(cast("Any", state), base))
        clock.sleep(wait_s)
    assert said == [True, False, False, True, True, True]
    assert {topic for topic, _ in writer.written} == {heartbeats_topic(TASK)}
    assert [beat["state"] for _, beat in writer.written] == ["waiting", "waiting", "training", "waiting"]
    assert writer.written[0][1]["sent_ms"] == 1_000_000


@pytest.mark.parametrize("every_s", [0.0, -1.0])
def test_without_a_pace_it_never_beats(every_s: float) -> None:
    one, writer, _ = heart(every_s)
    assert not one.beat("waiting", 0)
    assert writer.written == []


def test_no_pace_is_a_flood() -> None:
    one, writer, clock = heart(0.001)
    for _ in range(100):
        one.beat("waiting", 0)
        clock.sleep(0.01)
    assert len(writer.written) == 1


def test_a_long_reason_is_cut_off_to_what_a_heartbeat_may_have() -> None:
    one, writer, _ = heart(60.0)
    one.beat("declined", 0, "no " * 200)
    assert len(writer.written[0][1]["reason"]) == 200


@pytest.mark.parametrize(
    "error", [ConnectionProblem("FLV-3100", "no broker"), UsageProblem("FLV-3103", "no such topic")]
)
def test_one_that_nobody_takes_is_a_warning_once(
    caplog: pytest.LogCaptureFixture, error: FluvialError
) -> None:
    one, writer, _ = heart(60.0, error)
    with caplog.at_level(logging.WARNING, "fluvial.device"):
        assert one.beat("waiting", 0) and one.beat("training", 0)
        one.stop()
    assert len(writer.written) == 2
    assert [record.levelname for record in caplog.records] == ["WARNING"]
