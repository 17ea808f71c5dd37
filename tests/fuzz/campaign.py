"""A flood of bad records beside honest traffic, through the real pipeline, and what has to be true of it afterwards."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from aggregation.fold.rejections import ACCEPTED, CONTROL
from backends.kafka.faust.our_batches import FETCH_UNPACKED_BYTES_MAX
from backends.kafka.unpacking import BATCH_UNPACKED_BYTES_MAX
from fluvial.proof.audit import audit_task
from producers.sdk.announcements import Announcements
from schemas.topics import updates_topic, verdicts_topic
from schemas.verdicts import decode_verdict
from tests import factories
from tests.fuzz.memory import MemorySamples
from tests.fuzz.mutator import BOMB_BYTES, CODECS, Fuzzed, Moment, Mutator
from tests.fuzz.traffic import (
    EXPIRED_AFTER_DAYS,
    PARTITIONS,
    REGION,
    WARMING_DEVICES,
    HonestTraffic,
    append_through,
    cast_of,
    compressing_producer,
)
from tests.integration.pipeline import Federation
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from aggregation.fold.events import Verdict
    from aggregation.server.aggregates import Slot
    from backends.kafka.reading import LogReader
    from backends.log import Position
    from backends.settings import Settings

HONEST_SHARE: Final = 11
"""One record in so many is honest: ten bad ones beside each."""
BYTES_MAX: Final = 1 << 16
DRAIN_WITHIN_S: Final = 120.0
REPLAYS_KEPT: Final = 200
IN_FLIGHT_MAX: Final = 2000
UNJUDGED_MAX: Final = 1000
"""So many records may wait for their verdicts before the next is published: a slow machine gets a slower flood."""
UNJUDGED_LOOKED_AT_EVERY: Final = 100
STALL_S: Final = 120.0
LATENCY_MAX_S: Final = 60.0
"""No honest update may wait longer for its verdict, or somebody has stalled its partition."""
HELD_BYTES_MAX: Final = PARTITIONS[REGION] * (BATCH_UNPACKED_BYTES_MAX + FETCH_UNPACKED_BYTES_MAX)
"""Of each partition a worker may hold one fetch, unpacked, which a batch as large as may be goes over."""


POLICY: Final = factories.policy(
    updates={"bytes_max": BYTES_MAX},
    staleness={"versions_max": 50},
    window={"updates_max": 32, "seconds_max": 1.0},
    buffer={"updates": 64, "seconds_max": 5.0},
    anomaly={"norm_deviations_max": 1000.0, "cosine_min": -1.0},
)


@dataclass
class Sent:
    """One record on its way or in the log, and which outcomes are right."""

    partition: int
    mutation: str
    outcomes: frozenset[str]
    position: Future[Position]


@dataclass
class Report:
    """What a campaign saw. ``findings`` is empty when every promise held."""

    records: int
    seed: int
    honest: int = 0
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    by_mutation: dict[str, Counter[str]] = field(default_factory=dict)
    latency_p50_s: float = 0.0
    latency_p99_s: float = 0.0
    latency_max_s: float = 0.0
    versions: int = 0
    memory: dict[str, dict[str, float]] = field(default_factory=dict)
    identical: bool = False
    findings: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return vars(self) | {
            "outcomes": dict(self.outcomes),
            "by_mutation": {name: dict(counts) for name, counts in sorted(self.by_mutation.items())},
            "ok": not self.findings,
        }


class Campaign:
    """One run: ``records`` bad records made from ``seed``, ``per_second`` of them, beside a tenth of honest ones."""

    def __init__(
        self, settings: Settings, folder: Path, *, records: int, seed: int, per_second: float
    ) -> None:
        self.report = Report(records, seed)
        self.federation = Federation(settings, folder, PARTITIONS, POLICY)
        self.federation.keep_what_producers_write()  # or the broker would refuse bombs
        self._per_second = per_second
        self._cast = cast_of(self.federation, folder)
        self._mutator = Mutator(
            seed, self.federation.task, REGION, PARTITIONS[REGION], factories.LAYOUT, BYTES_MAX, self._cast
        )
        self._packers = {name: compressing_producer(settings, name) for name in CODECS}
        self._sent: list[Sent] = []
        self._honest: dict[int, list[bytes]] = {partition: [] for partition in range(PARTITIONS[REGION])}
        self._controls: dict[int, list[bytes]] = {partition: [] for partition in range(PARTITIONS[REGION])}

    def run(self, progress: Callable[[int], None] = lambda _: None) -> Report:
        """Publish everything, wait for the verdicts, check. Processes end with it."""
        federation, started_s = self.federation, time.monotonic()
        try:
            processes = {name: federation.start(name, name) for name in ("worker", "merger")}
            self._begin()
            self._first_version()
            self._warm_up()
            pids = {name: one.process.pid for name, one in processes.items()}
            with MemorySamples(pids, HELD_BYTES_MAX) as memory:
                self._publish(progress)
                self._drain()
            self.report.seconds = time.monotonic() - started_s
            self.report.memory = memory.summary()
            self.report.findings += memory.findings()
            self._check_verdicts()
            self._check_processes()
        finally:
            federation.end()
        audited = audit_task(federation.settings, federation.task_file, jobs=1)
        self.report.identical, self.report.versions = audited.identical, audited.versions
        if not audited.identical:
            self.report.findings.append(f"the audit differs: {audited.findings.shown}")
        return self.report

    # -- publishing

    def _begin(self) -> None:
        """Revoke one device, and take down the control records that replays are made of."""
        federation = self.federation
        revoke = {
            "task": federation.task,
            "device_id": self._cast.revoked.device_id,
            "certificate_serial": "",
            "reason": "stolen",
        }
        value = federation.operator_signer.sign("Revoke", revoke)
        for partition in self._controls:
            federation.await_verdicts((REGION, partition), federation.append((REGION, partition), value))
            self._controls[partition].append(value)
        time.sleep(EXPIRED_AFTER_DAYS * 86_400)

    def _first_version(self) -> None:
        """One version, so that worker and merger have loaded what they work with before their memory is looked at."""
        federation, topic = self.federation, updates_topic(self.federation.task, REGION)
        for partition in self._controls:
            devices = factories.devices(
                WARMING_DEVICES, partition=partition, partitions=PARTITIONS[REGION], start=3000
            )
            for device in devices:
                position = federation.writer.append(topic, federation.update(device), partition=partition)
                self._sent.append(Sent(partition, "first version", frozenset({ACCEPTED}), position))
        federation.await_version(1)

    def _warm_up(self) -> None:
        """The largest bombs first, judged before memory is looked at: an allocator keeps what they took."""
        for partition in self._controls:
            for compression in CODECS[1:]:
                bomb = Fuzzed("bomb", bytes(BOMB_BYTES[1]), frozenset({"too_large"}), compression)
                self._send(partition, bomb)
        self._drain()

    def _publish(self, progress: Callable[[int], None]) -> None:
        random = self._mutator.random
        settings, genesis = self.federation.settings, self.federation.genesis
        with Announcements(settings, genesis) as announcements, self.federation.reader() as reader:
            traffic = HonestTraffic(self.federation, announcements)
            began_s = time.monotonic()
            for number in range(self.report.records):
                partition = random.randrange(PARTITIONS[REGION])
                if number % (HONEST_SHARE - 1) == 0:
                    self._send_honest(traffic, partition)
                version, sha256 = traffic.newest()
                moment = Moment(
                    partition, version, sha256, self._honest[partition], self._controls[partition]
                )
                self._send(partition, self._mutator.next(moment))
                self._pace(number, began_s)
                if number % UNJUDGED_LOOKED_AT_EVERY == 0:
                    self._await_verdicts(reader)
                progress(number + 1)

    def _pace(self, number: int, began_s: float) -> None:
        ahead_s = number / self._per_second - (time.monotonic() - began_s)
        if ahead_s > 0:
            time.sleep(ahead_s)
        self._poll()
        if number >= IN_FLIGHT_MAX:
            oldest = self._sent[-IN_FLIGHT_MAX].position

            def acknowledged() -> bool:
                self._poll()
                return oldest.done()

            until(acknowledged, "an acknowledgement from the broker")

    def _await_verdicts(self, reader: LogReader) -> None:
        """Let the pipeline catch up. AssertionError where it does not: something has stalled it."""
        topic = verdicts_topic(self.federation.task, REGION)

        def few() -> bool:
            self._poll()
            judged = sum(reader.bounds(topic, slot[1])[1] for slot in self._slots())
            return len(self._sent) - judged <= UNJUDGED_MAX

        until(few, f"verdicts on all but {UNJUDGED_MAX} records\n{self.federation.logs()}", STALL_S)

    def _poll(self) -> None:
        """Take in what was acknowledged."""
        self.federation.writer.poll()
        for packer in self._packers.values():
            packer.poll(0)

    def _send_honest(self, traffic: HonestTraffic, partition: int) -> None:
        value = traffic.update(partition)
        topic = updates_topic(self.federation.task, REGION)
        position = self.federation.writer.append(topic, value, partition=partition)
        self._sent.append(Sent(partition, "honest", frozenset({ACCEPTED}), position))
        self.report.honest += 1

        def remember(acknowledged: Future[Position]) -> None:
            if acknowledged.exception() is None:
                kept = self._honest[partition]
                kept.append(value)
                del kept[:-REPLAYS_KEPT]

        position.add_done_callback(remember)

    def _send(self, partition: int, fuzzed: Fuzzed) -> None:
        topic = updates_topic(self.federation.task, REGION)
        key = self._mutator.random.choice([None, b"", b"d-0001", self._mutator.noise(64)])
        if not fuzzed.compression:
            position = self.federation.writer.append(topic, fuzzed.value, key=key, partition=partition)  # type: ignore[arg-type]
        else:
            position = append_through(self._packers[fuzzed.compression], topic, partition, key, fuzzed.value)
        self._sent.append(Sent(partition, fuzzed.mutation, fuzzed.outcomes, position))

    def _drain(self) -> None:
        """Wait until everything is acknowledged and judged, behind an honest record in each partition."""
        self.federation.writer.flush(DRAIN_WITHIN_S)
        for packer in self._packers.values():
            assert packer.flush(DRAIN_WITHIN_S) == 0
        for slot in self._slots():
            with self.federation.reader() as reader:
                updates, verdicts = (
                    updates_topic(self.federation.task, REGION),
                    verdicts_topic(self.federation.task, REGION),
                )
                end = reader.bounds(updates, slot[1])[1]
                until(
                    lambda: reader.bounds(verdicts, slot[1])[1] >= end,  # noqa: B023 (awaited here)
                    f"{end} verdicts of {slot}\n{self.federation.logs()}",
                    DRAIN_WITHIN_S,
                )

    def _slots(self) -> Iterator[Slot]:
        return ((REGION, partition) for partition in range(PARTITIONS[REGION]))

    # -- checking

    def _check_verdicts(self) -> None:
        latencies: list[float] = []
        sent = {(one.partition, one.position.result(timeout=0).offset): one for one in self._sent}
        for slot in self._slots():
            appended_ms = self._append_times(slot)
            records = self.federation.records(verdicts_topic(self.federation.task, REGION), slot[1])
            verdicts = [decode_verdict(record.value or b"") for record in records]
            offsets = [verdict.offset for verdict in verdicts]
            if offsets != list(range(len(offsets))) or len(offsets) < len(appended_ms):
                self._find(
                    f"{slot}: {len(appended_ms)} records, {len(offsets)} verdicts, not one each in order"
                )
                continue
            for verdict, record in zip(verdicts, records, strict=True):
                one = sent.pop((slot[1], verdict.offset), None)
                self._check_one(slot, verdict, one)
                if one is not None and one.mutation == "honest":
                    latencies.append((record.timestamp_ms - appended_ms[verdict.offset]) / 1000)
        if sent:
            self._find(f"{len(sent)} records were acknowledged and have no verdict")
        self._check_latencies(sorted(latencies))

    def _append_times(self, slot: Slot) -> list[int]:
        """When each record was appended, milliseconds; without its value, because bombs would fill the memory."""
        topic = updates_topic(self.federation.task, slot[0])
        with self.federation.reader() as reader:
            return [
                record.timestamp_ms for record in reader.read(topic, slot[1], *reader.bounds(topic, slot[1]))
            ]

    def _check_one(self, slot: Slot, verdict: Verdict, one: Sent | None) -> None:
        # Who does not know a record's name here has not sent it: barriers and ticks of the pipeline's own.
        name, outcomes = (one.mutation, one.outcomes) if one else ("control", frozenset({CONTROL}))
        self.report.outcomes[verdict.outcome] += 1
        self.report.by_mutation.setdefault(name, Counter())[verdict.outcome] += 1
        if verdict.outcome not in outcomes:
            self._find(
                f"{name} at {slot[0]}[{slot[1]}]@{verdict.offset}: {verdict.outcome} ({verdict.detail}), "
                f"expected {' or '.join(sorted(outcomes))}"
            )

    def _check_latencies(self, latencies: list[float]) -> None:
        report = self.report
        report.latency_p50_s = latencies[len(latencies) // 2]
        report.latency_p99_s = latencies[len(latencies) * 99 // 100]
        report.latency_max_s = latencies[-1]
        if report.latency_max_s > LATENCY_MAX_S:
            self._find(f"an honest update waited {report.latency_max_s:.1f} s, allowed are {LATENCY_MAX_S:g}")

    def _check_processes(self) -> None:
        for one in self.federation.running:
            if one.process.poll() is not None:
                self._find(f"{one.name} ended with {one.process.returncode}:\n{one.log[-3000:]}")
            if " E fluvial" in one.log or " stops at " in one.log or "Traceback" in one.log:
                self._find(f"{one.name} complained:\n{one.log[-3000:]}")
        if self.federation.head < 2:
            self._find(f"the head is version {self.federation.head}: versions do not go on")

    def _find(self, finding: str) -> None:
        self.report.findings.append(finding)
