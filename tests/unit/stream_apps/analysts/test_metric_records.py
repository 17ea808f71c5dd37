"""Records for analysts: what they hold, that they fit the published schema, and that they never hold anything up."""

from __future__ import annotations

import hashlib
import json
import threading
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from aggregation.errors import ConnectionProblem
from aggregation.fold import state as partition_state
from aggregation.fold.events import Barrier, RejectedRecord, Verdict, WindowClosed
from aggregation.fold.rejections import ACCEPTED, RejectionReason
from aggregation.reasons import NOTHING
from backends.log import LogRecord, Outgoing, Position, Together, append_each
from backends.prices import Prices
from schemas.manifest_inputs import input_of, next_cursors, sum_counts
from schemas.manifests import Manifest
from schemas.records import COHORTS
from stream_apps.analysts.canary_header import NAME as CANARIES
from stream_apps.analysts.canary_header import pack, unpack
from stream_apps.analysts.metric_records import MetricRecords
from tests import factories
from tests.unit.stream_apps.analysts.published_schema import VALID

if TYPE_CHECKING:
    from collections.abc import Sequence

PRICES = Prices("EUR", up_per_gib=1.0, down_per_gib=2.0, device_hour=3.0, storage_per_gib_month=4.0)
SLOT = ("eu", 0)


class MemoryWriter:
    """Keeps what is appended; with ``error`` it refuses, with ``held`` it never answers."""

    def __init__(self, *, error: Exception | None = None, held: bool = False) -> None:
        self.records: list[dict[str, Any]] = []
        self.error = error
        self.held = held

    def append(self, topic: str, value: bytes, **_: object) -> Future[Position]:
        future: Future[Position] = Future()
        if not self.held:
            if self.error:
                future.set_exception(self.error)
            else:
                self.records.append(json.loads(value))
                future.set_result(Position(topic, 0, 0))
        return future

    def append_together(self, topic: str, records: Sequence[Outgoing], *, partition: int) -> Together:
        return append_each(self, topic, records, partition=partition)

    def append_now(self, topic: str, value: bytes, **_: object) -> Position:
        raise AssertionError("records for analysts must hold nothing up, and this waits")

    def poll(self) -> None:
        """Nothing is due."""

    def flush(self, timeout_s: float = 0.0) -> None:
        """Nothing to wait for."""


def state() -> partition_state.PartitionState:
    return partition_state.initial(
        task="t", region="eu", partition=0, partitions=1, layout=factories.LAYOUT,
        policy=factories.policy(), model_sha256="0" * 64,
    )  # fmt: skip


def closed(first: int, following: int, **counts: int) -> WindowClosed:
    return WindowClosed(
        7,
        first,
        following,
        3,
        "a" * 64,
        counts,
        counts.get(ACCEPTED, 0),
        2 * 65536,
        3,
        2,
        100,
        "b" * 64,
        None,
    )


def judge(
    observer: MetricRecords, offset: int, ms: int, device: str, outcome: str, norm: float = 0.0
) -> None:
    record = LogRecord("fl.t.updates.eu", 0, offset, ms, None, b"x" * 50)
    refused = RejectedRecord(RejectionReason.DUPLICATE, NOTHING)
    observer.judged(SLOT, record, refused, Verdict(offset, outcome, device_id=device, norm=norm, clip=0.5))


def a_window() -> list[dict[str, Any]]:
    """A window over two minutes: three accepted, one refused, a canary."""
    writer = MemoryWriter()
    with MetricRecords("t", PRICES, writer) as observer:
        judge(observer, 10, 119_000, "d-1", ACCEPTED, 1.0)
        judge(observer, 11, 119_500, "d-2", ACCEPTED, 2.0)
        judge(observer, 12, 121_000, "d-1", ACCEPTED, 3.0)
        judge(observer, 13, 121_500, "d-1", "duplicate")
        judge(observer, 14, 122_000, "canary-eu", "future_base")
        window = closed(10, 15, accepted=3, duplicate=1, future_base=1)
        observer.window_closed(SLOT, window, state())
        assert writer.records == []  # not before it is published
        observer.window_published(SLOT, window, None)  # type: ignore[arg-type]
    return writer.records


def test_a_window_and_its_minutes_stand_in_the_topic_once_it_is_published() -> None:
    window, first, second = a_window()
    assert (window["kind"], window["region"], window["sequence"]) == ("window", "eu", 7)
    assert (window["accepted"], window["refused"], window["verdicts_duplicate"]) == (3, 1, 1)
    assert window["canaries"] == 1 and "verdicts_future_base" not in window
    assert (window["norm_p50"], window["fill_seconds"], window["at_ms"]) == (2.0, 3.0, 122_000)
    assert [one["minute_ms"] for one in (first, second)] == [60_000, 120_000]
    assert [one["records"] for one in (first, second)] == [2, 2]
    assert [one["canaries"] for one in (first, second)] == [0, 1]
    assert [one["devices_contributing"] for one in (first, second)] == [2, 1]
    assert "verdicts_future_base" not in second
    parameters = factories.LAYOUT.parameters
    assert second["bytes_down"] == 4 * parameters
    assert second["storage_bytes"] == 100 + 8 * parameters
    costs = [second[f"cost_{name}"] for name in ("up", "down", "devices", "storage_month")]
    assert second["cost_total"] == pytest.approx(sum(costs))
    assert second["cost_up"] == pytest.approx(100 / 2**30)


def test_every_record_fits_the_published_schema_and_names_no_device() -> None:
    for record in a_window():
        VALID.validate(record)
        assert not any("d-1" in str(value) for value in record.values())


def test_a_version_fits_the_published_schema_and_follows_from_its_manifest() -> None:
    inputs = (factories.aggregate("eu", 0, 0), factories.aggregate("eu", 1, 0))
    manifest = Manifest(
        task="t", version=1, parent_sha256="1" * 64, policy_sha256="2" * 64, inputs=tuple(map(input_of, inputs)),
        cursors=next_cursors({("eu", 0): 0, ("eu", 1): 0, ("us", 0): 0, ("us", 1): 0}, inputs),
        counts={"accepted": 8, "duplicate": 2}, accepted=8, weight_total=4 << 16, staleness_total=12, staleness_max=3,
        update_bytes=4000, model_sha256="3" * 64, optimizer_sha256="4" * 64, reference_sha256="5" * 64, floor=0,
    )  # fmt: skip
    writer = MemoryWriter()
    with MetricRecords("t", PRICES, writer) as observer:
        for _ in range(2):
            observer.committed(manifest, inputs, 999)
    first, second = writer.records
    VALID.validate(first)
    VALID.validate(second)
    assert (first["seconds"], second["seconds"] >= 0) == (None, True)
    assert (first["accepted"], first["refused"], first["verdicts_duplicate"]) == (8, 2, 2)
    assert (first["accept_ratio"], first["participation"], first["staleness_mean"]) == (0.8, 0.5, 1.5)
    assert first["manifest_sha256"] == hashlib.sha256(manifest.canonical()).hexdigest()


def a_version(observer: MetricRecords, *headers: Any) -> None:
    """Two windows of six accepted, a duplicate and two `future_base`, taken with these headers, and their version."""
    counts = {ACCEPTED: 6, "duplicate": 1, "future_base": 2}
    taken = [
        replace(factories.aggregate("eu", 0, one, accepted=6), counts=counts) for one in range(len(headers))
    ]
    for aggregate, header in zip(taken, headers, strict=True):
        record = LogRecord("fl.t.aggregates.eu", 0, aggregate.sequence, 0, None, b"", header)
        observer.window_taken(record, aggregate)
    manifest = Manifest(
        task="t", version=1, parent_sha256="1" * 64, policy_sha256="2" * 64, inputs=tuple(map(input_of, taken)),
        cursors=next_cursors({("eu", 0): 0}, tuple(taken)), counts=sum_counts(tuple(taken)), accepted=12,
        weight_total=4 << 16, staleness_total=12, staleness_max=3, update_bytes=4000, model_sha256="3" * 64,
        optimizer_sha256="4" * 64, reference_sha256="5" * 64, floor=0,
    )  # fmt: skip
    observer.committed(manifest, taken, 999)


def version_of(*headers: Any) -> dict[str, Any]:
    writer = MemoryWriter()
    with MetricRecords("t", PRICES, writer) as observer:
        a_version(observer, *headers)
    (record,) = writer.records
    VALID.validate(record)
    return record


def test_canaries_are_in_no_number_of_a_version_but_their_own() -> None:
    record = version_of(pack({"future_base": 2}), pack({"future_base": 1}))
    assert (record["canaries"], record["refused"], record["accept_ratio"]) == (3, 3, 12 / 15)
    assert (record["verdicts_duplicate"], record["verdicts_future_base"]) == (2, 1)


def test_a_version_of_which_one_window_does_not_say_its_canaries_has_them_among_the_refused() -> None:
    record = version_of(pack({"future_base": 2}), ())
    assert (record["canaries"], record["refused"], record["verdicts_future_base"]) == (None, 6, 4)


def test_what_the_worker_counts_of_a_canary_is_what_the_merger_reads() -> None:
    with MetricRecords("t", PRICES, MemoryWriter()) as observer:
        judge(observer, 10, 119_000, "canary-eu", "future_base")
        judge(observer, 11, 119_000, "canary-eu", "bad_signature")
        judge(observer, 12, 119_000, "canary-us", "future_base")
        judge(observer, 13, 119_000, "d-1", ACCEPTED)
        counts = {"accepted": 1, "future_base": 2, "bad_signature": 1}
        headers = observer.window_closed(SLOT, closed(10, 14, **counts), state())
    assert unpack(headers, counts) == {"future_base": 1, "bad_signature": 1}


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"{}", {}),
        (b'{"future_base":9,"accepted":3,"made_up":1,"duplicate":-4}', {"future_base": 2}),
        (b'{"future_base":1e400}', None),
        (b'{"future_base":true}', None),
        (b"[1]", None),
        (b"\xff", None),
        (b"[" * 2000, None),
        (b'{"future_base":1,"' + b"x" * 3000 + b'":1}', None),
    ],
    ids=lambda one: str(one)[:24],
)
def test_a_header_that_nobody_signed_takes_no_more_out_than_was_refused(value: bytes, found: object) -> None:
    assert unpack(((CANARIES, value),), {"accepted": 5, "future_base": 2, "duplicate": 1}) == found
    assert unpack((("other", value),), {"future_base": 2}) is None


def test_the_first_record_is_sent_before_all_others() -> None:
    writer = MemoryWriter()
    with MetricRecords("t", PRICES, writer, first=lambda: {"kind": "version", "at_ms": 5}) as observer:
        assert observer.dropped == 0
    assert [record["kind"] for record in writer.records] == ["version"]


def test_a_window_that_was_not_seen_from_its_beginning_gives_no_record() -> None:
    writer = MemoryWriter()
    with MetricRecords("t", PRICES, writer) as observer:
        judge(observer, 12, 119_000, "d-1", ACCEPTED)
        observer.window_closed(SLOT, closed(10, 13, accepted=3), state())
        observer.window_published(SLOT, closed(10, 13, accepted=3), None)  # type: ignore[arg-type]
    assert writer.records == []


@pytest.mark.parametrize(
    "writer",
    [MemoryWriter(error=ConnectionProblem("FLV-3100", "away")), MemoryWriter(held=True)],
    ids=["refused", "silent"],
)
def test_a_broker_that_is_away_drops_records_and_holds_nothing_up(
    writer: MemoryWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_apps.analysts.metric_records.UNACKNOWLEDGED_MAX", 5)
    with MetricRecords("t", PRICES, writer, queue_records_max=10) as observer:
        for number in range(1000):
            observer.emit({"kind": "window", "number": number})
    assert observer.dropped >= 900
    assert not any(thread.name == "metric records" for thread in threading.enumerate())


def test_a_barrier_gives_an_upper_bound_of_the_devices_time() -> None:
    writer = MemoryWriter()
    with MetricRecords("t", PRICES, writer) as observer:
        barrier = Barrier("t", "eu", 4, "", "", "", "", 0, "version")
        record = LogRecord("fl.t.updates.eu", 0, 20, 60_000, None, b"x")
        observer.judged(SLOT, record, barrier, Verdict(20, "control"))
        update = factories.update("d-1", base=4)
        record = LogRecord("fl.t.updates.eu", 0, 21, 61_500, None, b"x")
        observer.judged(SLOT, record, update, Verdict(21, ACCEPTED, device_id="d-1"))
        observer.window_closed(SLOT, closed(20, 22, accepted=1), state())
        observer.window_published(SLOT, closed(20, 22, accepted=1), None)  # type: ignore[arg-type]
    minute = writer.records[1]
    assert (minute["device_seconds"], minute["device_seconds_updates"]) == (1.5, 1)
    assert minute["cost_devices"] == pytest.approx(1.5 / 3600 * 3.0)


def cohort_minute(*said: int | None) -> dict[str, Any]:
    """The minute of one window of updates whose devices say these cohorts, a second after their base came."""
    writer = MemoryWriter()
    with MetricRecords("t", PRICES, writer) as observer:
        barrier = Barrier("t", "eu", 4, "", "", "", "", 0, "version")
        observer.judged(
            SLOT, LogRecord("fl.t.updates.eu", 0, 20, 60_000, None, b"x"), barrier, Verdict(20, "control")
        )
        for offset, cohort in enumerate(said, 21):
            update = factories.update(f"d-{offset}", base=4, cohort=cohort)
            record = LogRecord("fl.t.updates.eu", 0, offset, 61_000, None, b"x" * 50)
            observer.judged(SLOT, record, update, Verdict(offset, ACCEPTED, device_id=f"d-{offset}"))
        refused = LogRecord("fl.t.updates.eu", 0, 21 + len(said), 61_000, None, b"x" * 50)
        update = factories.update("d-99", base=4, cohort=3)
        observer.judged(
            SLOT,
            refused,
            update,
            Verdict(refused.offset, RejectionReason.ANOMALOUS.outcome, device_id="d-99"),
        )
        window = closed(20, refused.offset + 1, accepted=len(said), anomalous=1)
        observer.window_closed(SLOT, window, state())
        observer.window_published(SLOT, window, None)  # type: ignore[arg-type]
    VALID.validate(writer.records[1])
    return writer.records[1]


def test_a_minute_adds_up_what_accepted_updates_of_each_cohort_bring_and_cost() -> None:
    minute = cohort_minute(3, 3, 0, None)
    parameters = factories.LAYOUT.parameters
    assert {name: value for name, value in minute.items() if name.startswith("cohort_3")} == {
        "cohort_3_accepted": 2,
        "cohort_3_bytes_up": 100,
        "cohort_3_bytes_down": 2 * 4 * parameters,
        "cohort_3_device_seconds": 2.0,
        "cohort_3_cost_total": pytest.approx(
            100 / 2**30 * (PRICES.up_per_gib + PRICES.storage_per_gib_month)
            + 8 * parameters / 2**30 * PRICES.down_per_gib
            + 2.0 / 3600 * PRICES.device_hour
        ),
    }
    assert (minute["cohort_0_accepted"], minute["accepted"], minute["device_seconds"]) == (1, 4, 4.0)
    assert minute["cohort_0_cost_total"] + minute["cohort_3_cost_total"] < minute["cost_total"]
    assert not any(name.startswith("cohort_") for name in cohort_minute(None))


def test_a_minute_of_every_cohort_there_may_be_fits_the_schema() -> None:
    minute = cohort_minute(*COHORTS.values())
    assert sum(name.endswith("_accepted") and name.startswith("cohort_") for name in minute) == 100
    assert not VALID.is_valid(minute | {"cohort_7_accepted": "1"})
    assert len(json.dumps(minute)) < 50_000
