"""A producer that is refused, or ends: what waited for it is told once, with the right reason, and kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException

from aggregation.errors import AccessProblem, EnvironmentProblem
from backends.kafka import writing
from backends.kafka.writing import FATAL, LogWriter
from backends.log import Outgoing, Together
from backends.outages import OUTAGES
from backends.settings import Settings, StoreSettings
from tests.small_federation import on_mock_cluster
from tests.waiting import WAIT_S

REFUSED = AccessProblem("FLV-3113", "Kafka refuses who we say we are", hint="look")
RECORDS = [Outgoing(b"a", b"1"), Outgoing(b"b", b"2", (("h", b"x"),)), Outgoing(b"c", b"3")]


def ends() -> int:
    """As confluent-kafka tells of a fatal error."""
    raise KafkaException(KafkaError(FATAL, "out of sequence"))


def test_a_producer_that_ended_is_no_outage_and_keeps_what_waited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "writer_refusal", lambda _: None)
    store = StoreSettings(kind="file", path=tmp_path)
    writer = LogWriter(Settings(home=tmp_path, bootstrap_servers="127.0.0.1:1", store=store), "test")
    one = writer.append("topic", b"0")
    together = writer.append_together("topic", RECORDS, partition=0)
    assert writer._serve(ends) == 0
    problem = one.exception(timeout=0)
    assert isinstance(problem, EnvironmentProblem)
    assert not isinstance(problem, OUTAGES)
    assert problem.error_id == "FLV-3120"
    assert together.refused == [(record, problem) for record in RECORDS]
    assert not together.unanswered


def test_a_refusal_is_over_when_a_record_is_taken(tmp_path: Path) -> None:
    with on_mock_cluster(tmp_path) as settings:
        writer = LogWriter(settings, "test")
        writer._producer.list_topics("topic", timeout=WAIT_S)
        writer._refuse(REFUSED)
        late = KafkaError(KafkaError._MSG_TIMED_OUT)
        assert writer._told(late, "append") is REFUSED
        writer.append("topic", b"1", partition=0)
        writer.flush(WAIT_S)
        assert isinstance(writer._told(late, "append"), OUTAGES)


def test_the_last_records_are_those_without_an_answer() -> None:
    together = Together(RECORDS)
    assert not together.answer()
    assert not together.answer(Outgoing(b"b", b"2"), REFUSED)
    together.fail(REFUSED)
    assert together.refused == [(Outgoing(b"b", b"2"), REFUSED), (RECORDS[2], REFUSED)]
    assert not together.answer(), "it came too late"
    assert together.unsafe == 2
