"""One partition's worker against librdkafka's test cluster and a file store: cancelled, outrun, stopped, cut off."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from aggregation.errors import ConnectionProblem
from aggregation.fold.events import Verdict
from aggregation.reasons import Reason, because
from aggregation.server.aggregates import Aggregate
from backends.kafka.reading import LogReader
from backends.kafka.writing import LogWriter
from backends.log import LogRecord, Outgoing, Together
from schemas.records import aggregate_in
from schemas.topics import aggregates_topic, updates_topic, verdicts_topic
from schemas.verdicts import decode_verdict
from stream_apps.process_context import ProcessContext
from stream_apps.worker.partition import PartitionWorker
from tests import factories
from tests.factories import verdict_bytes
from tests.small_federation import SmallFederation, on_mock_cluster
from tests.unit.stream_apps.worker.worker_site import process

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


SLOT = ("eu", 0)
POLICY = factories.policy(window={"updates_max": 3, "seconds_max": 0.01}, anomaly={"enabled": False})


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[SmallFederation]:
    with on_mock_cluster(tmp_path) as settings:
        yield SmallFederation(settings, policy=POLICY, partitions={"eu": 1})


def worker(federation: SmallFederation, name: str = "w-1") -> PartitionWorker:
    settings = federation.settings
    context = ProcessContext.of(
        genesis=federation.genesis,
        store=federation.objects,
        writer=LogWriter(settings, name, give_up=False),
        key_pair=factories.worker_signer(name),
        name=name,
        open_reader=lambda purpose: LogReader(settings, f"{name}-{purpose}"),
    )
    return PartitionWorker(context, *SLOT)


def send(federation: SmallFederation, count: int) -> None:
    """Updates of devices that have not sent any yet."""
    first = len(log(federation))
    for device in factories.devices(count, start=first):
        federation.append(*SLOT, federation.update("eu", device, seed=int(device[2:])))


def records(federation: SmallFederation, topic: str) -> list[LogRecord]:
    with LogReader(federation.settings, "test-records") as reader:
        return list(reader.read(topic, 0, *reader.bounds(topic, 0)))


def log(federation: SmallFederation) -> list[LogRecord]:
    return records(federation, updates_topic(federation.task, "eu"))


def sequences(federation: SmallFederation) -> list[int]:
    """The windows in the aggregates topic, in the order in which they stand there."""
    found = [
        aggregate_in(record.value, record.timestamp_ms, federation.trust, federation.task, ("eu", 0))
        for record in records(federation, aggregates_topic(federation.task, "eu"))
    ]
    return [one.sequence for one in found if isinstance(one, Aggregate)]


def judged(federation: SmallFederation) -> list[int]:
    """The offsets in the verdicts topic, in the order in which they stand there."""
    values = records(federation, verdicts_topic(federation.task, "eu"))
    return [decode_verdict(record.value or b"").offset for record in values]


def test_a_cancelled_call_loses_no_effect(federation: SmallFederation) -> None:
    """Faust cancels agents when partitions move, in the middle of whatever they do."""
    send(federation, 9)

    async def run() -> None:
        one = worker(federation)
        await one.resume()
        for record in log(federation):
            call = asyncio.create_task(one.process(record))
            await asyncio.sleep(0.0005 * record.offset)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        # The next record is the first one that comes whole; it finds all before it by itself.
        send(federation, 3)
        await one.process(log(federation)[-1])

    asyncio.run(run())
    assert sequences(federation) == [0, 1, 2, 3]
    assert judged(federation) == list(range(12))


def test_a_worker_that_was_outrun_changes_nothing(federation: SmallFederation) -> None:
    async def run() -> None:
        zombie, other = worker(federation, "w-1"), worker(federation, "w-2")
        send(federation, 5)
        await zombie.resume()
        await process(zombie, log(federation))
        zombie.context.writer.flush()
        await other.resume()
        send(federation, 4)
        await process(other, log(federation))
        await process(zombie, log(federation)[:8])  # what it had buffered
        assert await zombie.resume() == 8  # what others signed it folds again
        send(federation, 3)
        await process(zombie, log(federation))

    asyncio.run(run())
    assert set(sequences(federation)) == {0, 1, 2, 3}
    assert set(judged(federation)) == set(range(12))


def test_a_log_that_is_shorter_than_what_was_folded_stops_its_partition(federation: SmallFederation) -> None:
    """Made anew, say: Kafka then reads from its beginning, and offsets that were folded would pass for old."""

    async def run() -> None:
        send(federation, 3)
        one = worker(federation)
        await one.resume()
        await process(one, log(federation))
        assert one.stopped is None
        one.context.writer.flush()
        late = worker(federation, "w-2")
        bounds = LogReader.bounds
        with pytest.MonkeyPatch.context() as patch:
            cut = updates_topic(federation.task, "eu")
            patch.setattr(
                LogReader, "bounds", lambda self, topic, p: (0, 2) if topic == cut else bounds(self, topic, p)
            )
            await late.resume()
        assert late.stopped is not None and late.stopped.error_id == "FLV-3204"
        assert "ends at offset 2" in late.stopped.message

    asyncio.run(run())


def test_memory_that_runs_out_stops_the_partition_and_judges_nothing(
    federation: SmallFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether reading the record or folding it: a Skip parks nothing, and started again the record counts."""

    def exhausted(*_: object) -> None:
        raise MemoryError

    async def run() -> None:
        one = worker(federation)
        await one.resume()
        send(federation, 1)
        for place in ("stream_apps.worker.folding.decode_record", "aggregation.fold.transition.admit"):
            with monkeypatch.context() as broken:
                broken.setattr(place, exhausted)
                await process(one, log(federation))
            problem = one.stopped
            assert problem is not None and problem.error_id == "FLV-1031"
            skip = {
                "task": federation.task,
                "region": "eu",
                "partition": 0,
                "offset": 0,
                "reason": "it raises",
            }
            federation.append(*SLOT, federation.signer(factories.operator_signer()).sign("Skip", skip))
            await process(one, log(federation)[1:])
            assert one.stopped is problem and one.state.next_offset == 0
            await one.resume()
            assert one.stopped is None
        await process(one, log(federation))
        assert one.state.window.accepted == 1

    asyncio.run(run())


def test_a_stopped_partition_is_tried_again_when_it_is_assigned_again(
    federation: SmallFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        one = worker(federation)
        await one.resume()
        send(federation, 4)
        with monkeypatch.context() as broken:
            broken.setattr("stream_apps.worker.outbox.seal_window", lambda *_: 1 / 0)
            await process(one, log(federation))
        problem = one.stopped
        assert problem is not None and problem.error_id == "FLV-3202"
        assert sequences(federation) == []
        assert await one.resume() == 0
        assert one.stopped is None
        send(federation, 2)
        await process(one, log(federation))

    asyncio.run(run())
    assert sequences(federation) == [0, 1]
    assert set(judged(federation)) == set(range(6))


def test_a_producer_that_has_failed_for_good_ends_the_worker_and_not_only_the_partition(
    federation: SmallFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that stays in its group with a dead producer would keep its partitions from everybody."""
    gone = ConnectionProblem("FLV-3100", "the producer has failed for good")

    def fail(_: str, records: Sequence[Outgoing], **__: object) -> Together:
        together = Together(records)
        for record in records:
            together.answer(record, gone)
        return together

    async def run() -> None:
        one = worker(federation)
        await one.resume()
        send(federation, 3)
        monkeypatch.setattr(one.context.writer, "append_together", fail)
        with pytest.raises(ConnectionProblem):
            await one.process(log(federation)[0])
        await process(one, log(federation)[1:])  # whatever Faust delivers before the end
        monkeypatch.undo()
        await worker(federation, "w-2").resume()

    asyncio.run(run())
    assert sequences(federation) == []


def test_one_tick_is_under_way_at_a_time(
    federation: SmallFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage must not pile ticks up that are all written when it ends."""
    monkeypatch.setattr("stream_apps.worker.ticking.TICK_REPEAT_S", 0.0)

    async def run() -> None:
        one = worker(federation)
        await one.resume()
        send(federation, 1)
        await process(one, log(federation))
        asked: list[Future[object]] = []

        def never(*_: object, **__: object) -> Future[object]:
            asked.append(Future())
            return asked[-1]

        monkeypatch.setattr(one.context.writer, "append", never)
        for _ in range(5):
            await asyncio.sleep(0.02)
            await one.tick()
        assert len(asked) == 1
        asked[0].set_result(None)
        await one.tick()
        assert len(asked) == 2

    asyncio.run(run())


def test_a_record_that_was_replaced_under_a_running_worker_stops_its_partition(
    federation: SmallFederation,
) -> None:
    send(federation, 2)

    async def run() -> None:
        one = worker(federation)
        await one.resume()
        first, second = log(federation)
        await process(one, [first, second])
        await one.process(replace(first, timestamp_ms=first.timestamp_ms + 1))
        assert one.stopped is not None
        assert one.stopped.error_id == "FLV-3204"

    asyncio.run(run())


def test_a_verdict_that_stands_and_is_not_ours_does_not_hide_ours(federation: SmallFederation) -> None:
    send(federation, 2)
    planted = verdict_bytes(Verdict(1, "duplicate", because(Reason.CONTRIBUTED, "planted", 1)))
    federation.writer.append_now(verdicts_topic(federation.task, "eu"), planted, partition=0)

    async def run() -> None:
        one = worker(federation)
        await one.resume()
        await process(one, log(federation))
        one.context.writer.flush()

    asyncio.run(run())
    assert judged(federation) == [1, 0, 1]
