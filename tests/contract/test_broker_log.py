"""What is asked of a broker's log only, be it the mock cluster's or the real one's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aggregation.errors import FluvialError
from backends.kafka import configuration, writing
from backends.kafka.admin import reachable
from backends.kafka.writing import LogWriter
from backends.log import Outgoing
from backends.observer import Observer
from backends.settings import Settings, StoreSettings
from tests.contract.logs import PARTITIONS, WAIT_S, reader_of

if TYPE_CHECKING:
    from pathlib import Path


def test_follow_gives_what_is_there_and_then_what_comes(broker: Settings, topic: str) -> None:
    writer = LogWriter(broker, "writer")
    writer.append_now(topic, b"0", partition=0)
    writer.append_now(topic, b"1", partition=0)
    with reader_of(broker) as reader:
        got = []
        for record in reader.follow({(topic, 0): 1, (topic, 3): 0}, timeout_s=WAIT_S):
            if record is None:
                continue
            got.append((record.partition, record.value))
            if len(got) == 1:
                writer.append_now(topic, b"later", partition=3)
            else:
                break
        assert got == [(0, b"1"), (3, b"later")]


def test_follow_ends_after_its_limit_without_a_record(broker: Settings, topic: str) -> None:
    with reader_of(broker) as reader:
        assert [r for r in reader.follow({(topic, 0): 0}, timeout_s=0.3) if r is not None] == []


def test_a_topic_tells_its_partitions(broker: Settings, topic: str) -> None:
    with reader_of(broker) as reader:
        assert reader.partitions(topic) == list(range(PARTITIONS))


def test_a_record_beyond_the_one_limit_is_refused_with_its_name(broker: Settings, topic: str) -> None:
    writer = LogWriter(broker, "writer")
    with pytest.raises(FluvialError) as caught:
        writer.append_now(topic, bytes(broker.message_bytes_max + 1), partition=0)
    assert caught.value.error_id == "FLV-3105"


def test_of_what_is_appended_together_the_refused_are_told_and_the_others_stand(
    broker: Settings, topic: str
) -> None:
    told: list[tuple[str, int]] = []

    class Told(Observer):
        def produced(self, topic: str, seconds: float, error: FluvialError | None, records: int = 1) -> None:
            told.append(("" if error is None else error.error_id, records))

    writer = LogWriter(broker, "writer", observer=Told())
    large = Outgoing(b"", bytes(broker.message_bytes_max + 1))
    together = writer.append_together(
        topic, [Outgoing(b"k", b"0"), large, Outgoing(b"k", b"1"), large], partition=0
    )
    assert [(record, problem.error_id) for record, problem in together.refused] == [(large, "FLV-3105")] * 2
    writer.flush(WAIT_S)
    assert (together.unanswered, together.unsafe) == (0, 2)
    assert sorted(told) == [("", 2), ("FLV-3105", 1), ("FLV-3105", 1)]
    with reader_of(broker) as reader:
        assert [one.value for one in reader.read(topic, 0, *reader.bounds(topic, 0))] == [b"0", b"1"]


def test_more_than_the_producer_holds_waits_for_room_and_keeps_its_order(
    broker: Settings, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = configuration.producer_configuration
    small = {"queue.buffering.max.messages": 7}
    monkeypatch.setattr(writing, "producer_configuration", lambda *a, **k: made(*a, **k) | small)
    writer = LogWriter(broker, "writer")
    together = writer.append_together(topic, [Outgoing(None, b"%d" % i) for i in range(40)], partition=1)
    writer.flush(WAIT_S)
    assert together.unsafe == 0
    with reader_of(broker) as reader:
        assert [one.value for one in reader.read(topic, 1, 0, 40)] == [b"%d" % i for i in range(40)]


def test_what_the_broker_never_answers_for_comes_back_as_it_was_handed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = configuration.producer_configuration
    soon = {"delivery.timeout.ms": 100}
    monkeypatch.setattr(writing, "producer_configuration", lambda *a, **k: made(*a, **k) | soon)
    nowhere = Settings(
        home=tmp_path, bootstrap_servers="127.0.0.1:9", store=StoreSettings(kind="file", path=tmp_path)
    )
    writer = LogWriter(nowhere, "writer")
    records = [Outgoing(b"", b"0"), Outgoing(None, b"1"), Outgoing(b"k", b"2", (("h", b"1"),))]
    together = writer.append_together("t", records, partition=0)
    assert together.unanswered == 3
    writer.flush(WAIT_S)
    assert [record for record, _ in together.refused] == records
    assert {problem.error_id for _, problem in together.refused} == {"FLV-3100"}


def test_a_broker_that_is_away_is_a_connection_problem_and_not_a_hang(tmp_path: Path) -> None:
    store = StoreSettings(kind="file", path=tmp_path)
    nowhere = Settings(home=tmp_path, bootstrap_servers="127.0.0.1:9", store=store)
    assert reachable(nowhere, timeout_s=1.0) is False
    writer = LogWriter(nowhere, "writer")
    writer.append("t", b"x")
    with pytest.raises(FluvialError) as caught:
        writer.flush(0.5)
    assert caught.value.error_id == "FLV-3102"
