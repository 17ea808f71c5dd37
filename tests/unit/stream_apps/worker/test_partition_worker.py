"""One partition's worker against librdkafka's test cluster and a file store: cancelled, outrun, stopped, cut off."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from aggregation.errors import ConnectionProblem, FluvialError
from aggregation.fold.events import Tick, Verdict
from aggregation.reasons import Reason, because
from aggregation.server.aggregates import Aggregate
from backends.kafka.reading import LogReader
from backends.kafka.writing import LogWriter
from backends.log import LogRecord, Outgoing, Together
from schemas.certificates import Role
from schemas.records import aggregate_in
from schemas.topics import aggregates_topic, updates_topic, verdicts_topic
from schemas.verdicts import decode_verdict
from stream_apps.credentials import own_identity, require_valid
from stream_apps.process_context import ProcessContext
from stream_apps.worker.partition import PartitionWorker
from tests import factories
from tests.factories import verdict_bytes
from tests.small_federation import SmallFederation, on_mock_cluster
from tests.unit.stream_apps.worker.worker_site import AGGREGATES, UPDATES, VERDICTS, WorkerSite, away

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from schemas.envelope import Signer

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


async def process(one: PartitionWorker, what: list[LogRecord]) -> None:
    for record in what:
        await one.process(record)


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


# -- the clock of a window, in memory


def ticks(site: WorkerSite) -> list[int]:
    """The first offsets of the windows that were asked to close."""
    site.broker.flush()
    found = [site.event(record) for record in site.broker.records[UPDATES]]
    return [event.window_first_offset for event in found if isinstance(event, Tick)]


def test_a_windows_clock_starts_with_its_first_record_and_no_other(tmp_path: Path) -> None:
    site = WorkerSite(tmp_path)  # windows of three updates, two seconds

    async def run() -> None:
        one = site.worker()
        await one.resume()
        site.clock.now_s = 100.0
        await one.process(site.update(0))
        site.clock.now_s = 101.0
        await one.process(site.update(1))
        for now_s, expected in ((101.875, []), (102.0, [0]), (102.125, [0])):
            site.clock.now_s = now_s
            await one.tick()
            assert ticks(site) == expected, now_s

    asyncio.run(run())


def test_the_next_windows_clock_starts_with_its_own_first_record(tmp_path: Path) -> None:
    site = WorkerSite(tmp_path)

    async def run() -> None:
        one = site.worker()
        await one.resume()
        for number in range(3):
            await one.process(site.update(number))
        assert one.state.window.first_offset == 3
        site.clock.now_s = 50.0
        await one.tick()
        assert ticks(site) == []  # an empty window has no age
        await one.process(site.update(3))
        for now_s, expected in ((51.875, []), (52.0, [3])):
            site.clock.now_s = now_s
            await one.tick()
            assert ticks(site) == expected, now_s

    asyncio.run(run())


def test_a_tick_that_came_to_nothing_is_written_again(tmp_path: Path) -> None:
    site = WorkerSite(tmp_path)

    async def run() -> None:
        one = site.worker()
        await one.resume()
        await one.process(site.update(0))
        site.broker.refusing[UPDATES] = [away()]
        written = []
        for now_s in (10.0, 11.875, 12.0, 13.0):
            site.clock.now_s = now_s
            await one.tick()
            written.append(len(ticks(site)))
        assert written == [0, 0, 1, 1]

    asyncio.run(run())


def test_a_stopped_partition_asks_for_nothing(tmp_path: Path) -> None:
    site = WorkerSite(tmp_path)

    async def run() -> None:
        one = site.worker()
        await one.resume()
        await one.process(site.update(0))
        beyond = site.update(1)
        await one.process(replace(beyond, offset=beyond.offset + 5))  # a real gap
        assert one.stopped is not None and one.stopped.error_id == "FLV-3001"
        site.clock.now_s = 1000.0
        await one.tick()
        assert ticks(site) == []

    asyncio.run(run())


def test_a_worker_waits_for_the_broker_when_too_many_verdicts_are_on_their_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_apps.worker.outbox.VERDICTS_UNACKNOWLEDGED_MAX", 4)
    site = WorkerSite(tmp_path, factories.policy(anomaly={"enabled": False}))

    async def run() -> None:
        one = site.worker()
        await one.resume()
        standing = []
        for number in range(6):
            await one.process(site.update(number))
            standing.append(len(site.written(VERDICTS)))
        assert standing == [0, 0, 0, 4, 4, 4]

    asyncio.run(run())


def test_a_refused_verdict_is_sent_again_though_no_record_comes_any_more(tmp_path: Path) -> None:
    site = WorkerSite(tmp_path)

    async def run() -> None:
        one = site.worker()
        await one.resume()
        await one.process(site.update(0))
        site.broker.refusing[VERDICTS] = [away()]
        site.broker.flush()
        assert site.written(VERDICTS) == []
        await one.tick()
        await one.process(site.update(1))  # waits for what the tick began
        assert len(site.written(VERDICTS)) == 1
        flushes = site.broker.flushes
        site.broker.flush()
        await one.tick()
        await one.resume()
        assert site.broker.flushes == flushes + 1  # our own: what is acknowledged is not waited for again
        assert len(site.written(VERDICTS)) == 2

    asyncio.run(run())


def test_a_refused_aggregate_ends_the_worker_and_a_fresh_one_publishes_the_window(tmp_path: Path) -> None:
    site = WorkerSite(tmp_path)

    async def run() -> None:
        one = site.worker()
        await one.resume()
        site.broker.refusing[AGGREGATES] = [away()]
        updates = [site.update(number) for number in range(3)]
        with pytest.raises(ConnectionProblem):
            await process(one, updates)
        assert one.stopped is not None
        fresh = site.worker()
        assert await fresh.resume() == 0
        await process(fresh, updates)
        assert site.newest().next_offset == 3

    asyncio.run(run())


# -- whose records count


@pytest.mark.parametrize(
    "signer",
    [
        factories.device_signer("d-0001"),
        factories.merger_signer(),
        factories.worker_signer("w-1", "us"),
        factories.signer("eu", Role.WORKER, "w-1", secret="another CA"),
    ],
    ids=["a device", "a merger", "another region", "another CA"],
)
def test_a_process_whose_records_nobody_would_believe_does_not_start(signer: Signer) -> None:
    with pytest.raises(FluvialError) as caught:
        own_identity(signer, factories.trust(), region="eu", role=Role.WORKER)
    assert (caught.value.error_id, caught.value.exit_code) == ("FLV-3203", 4)


def test_a_process_ends_when_its_certificate_does() -> None:
    old = factories.signer("eu", Role.WORKER, "w-1", not_after=factories.NOT_BEFORE.replace(year=2026, day=2))
    identity = own_identity(old, factories.trust(), region="eu", role=Role.WORKER)
    with pytest.raises(FluvialError) as caught:
        require_valid(identity)
    assert caught.value.error_id == "FLV-3203"
    assert "has expired" in caught.value.message


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
