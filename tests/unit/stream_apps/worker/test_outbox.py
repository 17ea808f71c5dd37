"""What the fold decided becomes true: in order, once, whoever is cancelled and whatever the broker refuses."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

from aggregation.errors import ConnectionProblem, UsageProblem
from aggregation.fold.events import Verdict, WindowClosed
from aggregation.reasons import Reason, because
from schemas.verdicts import decode_verdict
from stream_apps.worker import outbox as module
from stream_apps.worker.outbox import Outbox
from tests import factories
from tests.factories import verdict_bytes
from tests.unit.stream_apps.worker.worker_site import AGGREGATES, RULES, VERDICTS, WorkerSite, away

if TYPE_CHECKING:
    from pathlib import Path

    from aggregation.fold.state import PartitionState

ACCEPTED = Verdict(0, "accepted", device_id="d-1")


@pytest.fixture
def site(tmp_path: Path) -> WorkerSite:
    return WorkerSite(tmp_path)


@pytest.fixture
def outbox(site: WorkerSite) -> Outbox:
    return Outbox(site.place)


class Fold:
    """A fold whose windows and verdicts go to an outbox."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.site = factories.Site(factories.state_of(RULES))
        self.devices = iter(factories.devices(50))

    @property
    def state(self) -> PartitionState:
        return self.site.state

    def until_a_window_closes(self) -> None:
        closed = len(self.site.closed)
        while len(self.site.closed) == closed:
            before = len(self.site.effects)
            self.site.append(factories.update_bytes(next(self.devices)))
            for effect in self.site.effects[before:]:
                if isinstance(effect, WindowClosed):
                    self.outbox.add_window(effect, (("h", b"window"),), self.state)
                else:
                    self.outbox.add_verdict(effect, (("h", b"verdict"),), self.state)


def judged(site: WorkerSite) -> list[int]:
    return [decode_verdict(value).offset for value in site.written(VERDICTS)]


def test_a_windows_effects_become_true_in_order(site: WorkerSite, outbox: Outbox) -> None:
    fold = Fold(outbox)
    fold.until_a_window_closes()
    fold.until_a_window_closes()
    asyncio.run(outbox.drain())
    window = ["verdicts"] * 3 + ["object", "object", "aggregates"]
    # All verdicts were on their way when the first window began.
    assert site.broker.happened == ["verdicts"] * 3 + window + window[3:]
    assert judged(site) == [0, 1, 2, 3, 4, 5]
    assert [record.headers for record in site.broker.records[AGGREGATES]] == [(("h", b"window"),)] * 2
    assert {record.headers[0] for record in site.broker.records[VERDICTS]} == {("h", b"verdict")}
    assert outbox.unacknowledged == 0


def test_a_verdict_that_stands_from_before_a_restart_is_not_written_again(
    site: WorkerSite, outbox: Outbox
) -> None:
    outbox.published = {0: verdict_bytes(ACCEPTED)}
    outbox.add_verdict(ACCEPTED, (), factories.state_of())
    asyncio.run(outbox.flush_verdicts())
    assert judged(site) == []


def test_another_verdict_that_stands_does_not_hide_ours_and_is_said_aloud(
    site: WorkerSite, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    outbox.published = {0: verdict_bytes(Verdict(0, "duplicate", because(Reason.CONTRIBUTED, "planted", 1)))}
    with caplog.at_level(logging.WARNING):
        outbox.add_verdict(ACCEPTED, (), factories.state_of())
    asyncio.run(outbox.flush_verdicts())
    assert [decode_verdict(value).outcome for value in site.written(VERDICTS)] == ["accepted"]
    assert "another verdict stands for offset 0; it is not ours" in caplog.text
    assert outbox.published == {}


def test_verdicts_that_the_broker_refused_are_sent_again_before_the_window_is_published(
    site: WorkerSite, outbox: Outbox
) -> None:
    site.broker.refusing[VERDICTS] = [away(), away()]
    Fold(outbox).until_a_window_closes()
    asyncio.run(outbox.drain())
    assert site.broker.happened == [
        *["verdicts refused", "verdicts refused", "verdicts"],
        *["verdicts", "verdicts"],
        *["object", "object", "aggregates"],
    ]
    assert sorted(judged(site)) == [0, 1, 2]


def test_a_broker_that_refuses_a_verdict_again_and_again_is_waited_for(
    site: WorkerSite, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    site.broker.refusing[VERDICTS] = [away() for _ in range(7)]
    Fold(outbox).until_a_window_closes()
    asyncio.run(outbox.drain())
    assert site.broker.happened.index("aggregates") > max(
        at for at, what in enumerate(site.broker.happened) if what.startswith("verdicts")
    )
    assert sorted(judged(site)) == [0, 1, 2]
    assert f"waiting to publish the verdicts of {site.place}" in caplog.text


def test_a_verdict_that_no_waiting_makes_fit_is_an_error(site: WorkerSite, outbox: Outbox) -> None:
    too_large = UsageProblem("FLV-3105", "the record is larger than the broker takes")
    site.broker.refusing[VERDICTS] = [too_large, too_large]
    outbox.add_verdict(ACCEPTED, (), factories.state_of())
    with pytest.raises(UsageProblem):
        asyncio.run(outbox.flush_verdicts())


def test_an_aggregate_that_the_broker_refused_is_an_error_and_no_published_window(
    site: WorkerSite, outbox: Outbox
) -> None:
    site.broker.refusing[AGGREGATES] = [away()]
    Fold(outbox).until_a_window_closes()
    with pytest.raises(ConnectionProblem, match="the broker refused the record"):
        asyncio.run(outbox.drain())
    assert site.written(AGGREGATES) == []
    asyncio.run(outbox.drain())  # it is still there, and is published the next time
    assert len(site.written(AGGREGATES)) == 1
    assert len(judged(site)) == 3


def test_as_many_verdicts_as_the_limit_are_on_their_way_and_no_more(
    site: WorkerSite, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "VERDICTS_UNACKNOWLEDGED_MAX", 4)

    async def run() -> list[int]:
        waited = []
        for offset in range(9):
            outbox.add_verdict(Verdict(offset, "accepted"), (), factories.state_of())
            await outbox.make_room()
            waited.append(outbox.unacknowledged)
        return waited

    assert asyncio.run(run()) == [1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert site.broker.flushes == 2


def test_verdicts_wait_for_each_other_up_to_their_number(
    site: WorkerSite, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "VERDICTS_TOGETHER_MAX", 3)
    handed_over = []
    for offset in range(7):
        outbox.add_verdict(Verdict(offset, "accepted"), (), factories.state_of())
        handed_over.append(len(site.broker.pending))
    assert handed_over == [0, 0, 3, 3, 3, 6, 6]
    outbox.send()
    site.broker.flush()
    assert judged(site) == list(range(7))


def test_what_the_producer_refuses_at_once_is_raised_and_not_lost(site: WorkerSite, outbox: Outbox) -> None:
    site.broker.refusing_at_once[VERDICTS] = [away()]
    for offset in range(3):
        outbox.add_verdict(Verdict(offset, "accepted"), (), factories.state_of())
    with pytest.raises(ConnectionProblem):
        outbox.send()
    assert outbox.unacknowledged == 3
    asyncio.run(outbox.flush_verdicts())
    assert sorted(judged(site)) == [0, 1, 2]


def test_acknowledged_verdicts_take_no_room(site: WorkerSite, outbox: Outbox) -> None:
    for offset in range(3):
        outbox.add_verdict(Verdict(offset, "accepted"), (), factories.state_of())
    outbox.send()
    assert outbox.unacknowledged == 3
    site.broker.flush()
    outbox.add_verdict(Verdict(3, "accepted"), (), factories.state_of())
    assert outbox.unacknowledged == 1


def test_a_refused_verdict_takes_room_until_it_is_sent_again(site: WorkerSite, outbox: Outbox) -> None:
    site.broker.refusing[VERDICTS] = [away()]
    for offset in range(3):
        outbox.add_verdict(Verdict(offset, "accepted"), (), factories.state_of())
    outbox.send()
    site.broker.flush()
    outbox.add_verdict(Verdict(3, "accepted"), (), factories.state_of())
    assert outbox.unacknowledged == 2
    asyncio.run(outbox.flush_verdicts())
    assert sorted(judged(site)) == [0, 1, 2, 3]


class Gate:
    """Holds the broker's answers back."""

    def __init__(self, site: WorkerSite) -> None:
        self.entered, self.open = threading.Event(), threading.Event()
        site.broker.before_flush = self._wait

    def _wait(self) -> None:
        self.entered.set()
        assert self.open.wait(20), "nobody opened the gate"

    async def cancelled_inside(self, call: Any) -> None:
        """Begin a call and cancel it while it waits for the broker."""
        task = asyncio.create_task(call)
        await asyncio.to_thread(self.entered.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def test_what_a_cancelled_caller_waited_for_is_finished_by_the_next_call(
    site: WorkerSite, outbox: Outbox
) -> None:
    async def run() -> None:
        gate = Gate(site)
        fold = Fold(outbox)
        fold.until_a_window_closes()
        await gate.cancelled_inside(outbox.drain())
        assert site.written(AGGREGATES) == []
        gate.open.set()
        await outbox.drain()
        assert len(site.written(AGGREGATES)) == 1
        fold.until_a_window_closes()
        await outbox.drain()

    asyncio.run(run())
    assert len(site.written(AGGREGATES)) == 2
    assert judged(site) == [0, 1, 2, 3, 4, 5]
    assert site.broker.happened.count("aggregates") == 2


def test_verdicts_are_waited_for_once_though_the_caller_is_cancelled(
    site: WorkerSite, outbox: Outbox
) -> None:
    async def run() -> None:
        gate = Gate(site)
        outbox.add_verdict(ACCEPTED, (), factories.state_of())
        await gate.cancelled_inside(outbox.flush_verdicts())
        gate.open.set()
        await outbox.drain()  # nobody may add a verdict while those before are counted
        assert outbox.unacknowledged == 0

    asyncio.run(run())
    assert judged(site) == [0]


def test_a_window_is_published_though_verdicts_were_waited_for_when_the_caller_was_cancelled(
    site: WorkerSite, outbox: Outbox
) -> None:
    async def run() -> None:
        gate = Gate(site)
        Fold(outbox).until_a_window_closes()
        await gate.cancelled_inside(outbox.flush_verdicts())
        gate.open.set()
        await outbox.drain()

    asyncio.run(run())
    assert len(site.written(AGGREGATES)) == 1


def test_what_is_cleared_is_forgotten(site: WorkerSite, outbox: Outbox) -> None:
    outbox.published = {9: verdict_bytes(ACCEPTED)}
    Fold(outbox).until_a_window_closes()
    outbox.clear()
    site.broker.flush()
    asyncio.run(outbox.drain())
    assert site.written(AGGREGATES) == []
    assert (outbox.unacknowledged, outbox.published) == (0, {})


def test_windows_that_are_forgotten_while_one_is_under_way_end_with_that_one(
    site: WorkerSite, outbox: Outbox
) -> None:
    async def run() -> None:
        gate = Gate(site)
        fold = Fold(outbox)
        fold.until_a_window_closes()
        fold.until_a_window_closes()
        await gate.cancelled_inside(outbox.drain())
        under_way = outbox._under_way
        outbox.clear()
        gate.open.set()
        assert under_way is not None
        await under_way

    asyncio.run(run())
    assert len(site.written(AGGREGATES)) == 1
