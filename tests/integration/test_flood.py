"""A certified device that publishes a thousand times a second counts once for each version, and costs only itself."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil
import pytest

from aggregation.fold.rejections import ACCEPTED
from fluvial.proof.audit import audit_task
from producers.sdk.announcements import Announcements
from schemas.topics import updates_topic, verdicts_topic
from tests import factories
from tests.fuzz.memory import MemorySamples
from tests.integration.pipeline import Federation
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from aggregation.fold.events import Verdict
    from backends.settings import Settings

PARTITIONS = {"eu": 2}
FLOODED, QUIET = ("eu", 0), ("eu", 1)
FLOODER = factories.devices(1, partition=0, partitions=2, start=9000)[0]
FLOOD_PER_S = 1000
FLOOD_S = 6.0
VERSIONS_MIN, SLOW_S = 3, 30.0
HONEST_PER_S = 40
HELD_BYTES_MAX = 128 << 20
REPEATS_OF_TEN = 5
"""Of ten records of the flood so many repeat the bytes of one before; the others are all different."""
HONEST_DEVICES = 2000
POLICY = factories.policy(
    staleness={"versions_max": 50},
    window={"updates_max": 16, "seconds_max": 1.0, "records_max": 2000},
    buffer={"updates": 20, "seconds_max": 5.0},
    anomaly={"norm_deviations_max": 1000.0, "cosine_min": -1.0},
)


@dataclass
class Flood:
    """What was published, and what became of it."""

    federation: Federation
    flooded: set[int]
    honest: dict[tuple[str, int], set[int]]
    seconds: float
    worker_cpu_s: float
    memory: MemorySamples

    def verdicts(self, slot: tuple[str, int]) -> list[Verdict]:
        return self.federation.verdicts(slot)


@pytest.fixture(scope="module")
def flood(stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flood]:
    folder: Path = tmp_path_factory.mktemp("flood")
    federation = Federation(stack, folder, PARTITIONS, POLICY)
    try:
        yield publish(federation)
    finally:
        federation.end()


def publish(federation: Federation) -> Flood:
    worker, merger = federation.start("worker", "worker"), federation.start("merger", "merger")
    honest = {
        slot: iter(factories.devices(HONEST_DEVICES, partition=slot[1], partitions=2))
        for slot in (FLOODED, QUIET)
    }
    for slot, devices in honest.items():
        for device in itertools.islice(devices, POLICY.buffer.updates // len(honest)):
            federation.append(slot, federation.update(device))
    federation.await_version(1)  # all have loaded what they work with: memory is compared from here on
    sent: list[tuple[str, tuple[str, int], object]] = []
    topic = updates_topic(federation.task, "eu")
    tensors = factories.encoded(factories.delta(1), "int8", 1)
    process = psutil.Process(worker.process.pid)
    before = process.cpu_times()
    pids = {"worker": worker.process.pid, "merger": merger.process.pid}
    with (
        Announcements(federation.settings, federation.genesis) as news,
        MemorySamples(pids, HELD_BYTES_MAX) as memory,
    ):
        began_s = time.monotonic()
        kept: list[bytes] = []
        number = 0
        while number < FLOOD_PER_S * FLOOD_S or federation_is_slow(news, began_s):
            latest = news.latest("eu")
            base, sha256 = (
                (latest.version, latest.model_sha256) if latest else (0, federation.model_sha256(0))
            )
            if number % (FLOOD_PER_S // HONEST_PER_S) == 0:
                slot = (FLOODED, QUIET)[number // (FLOOD_PER_S // HONEST_PER_S) % 2]
                value = federation.update(next(honest[slot]), base=base, base_sha256=sha256, tensors=tensors)
                sent.append(("honest", slot, federation.writer.append(topic, value, partition=slot[1])))
            if number % 10 < REPEATS_OF_TEN and kept:
                value = kept[number % len(kept)]
            else:
                value = federation.update(
                    FLOODER, base=base, base_sha256=sha256, tensors=tensors, update_id=f"u-{number}"
                )
                kept = [*kept[-50:], value]
            sent.append(("flood", FLOODED, federation.writer.append(topic, value, partition=0)))
            number += 1
            time.sleep(max(0.0, began_s + number / FLOOD_PER_S - time.monotonic()))
        seconds = time.monotonic() - began_s
        federation.writer.flush()
        for slot in (FLOODED, QUIET):
            await_all_verdicts(federation, slot)
        after = process.cpu_times()
    places = [(kind, slot, future.result(timeout=0).offset) for kind, slot, future in sent]  # type: ignore[attr-defined]
    return Flood(
        federation,
        flooded={offset for kind, _, offset in places if kind == "flood"},
        honest={
            slot: {offset for kind, at, offset in places if (kind, at) == ("honest", slot)}
            for slot in (FLOODED, QUIET)
        },
        seconds=seconds,
        worker_cpu_s=after.user + after.system - before.user - before.system,
        memory=memory,
    )


def federation_is_slow(news: Announcements, began_s: float) -> bool:
    """Whether to flood on, because the versions that are to be flooded have not come yet."""
    latest = news.latest("eu")
    return (latest is None or latest.version < VERSIONS_MIN) and time.monotonic() - began_s < SLOW_S


def await_all_verdicts(federation: Federation, slot: tuple[str, int]) -> None:
    with federation.reader() as reader:
        end = reader.bounds(updates_topic(federation.task, slot[0]), slot[1])[1]
        verdicts = verdicts_topic(federation.task, slot[0])
        until(lambda: reader.bounds(verdicts, slot[1])[1] >= end, f"{end} verdicts\n{federation.logs()}")


def test_it_counts_once_for_each_version(flood: Flood) -> None:
    mine = [verdict for verdict in flood.verdicts(FLOODED) if verdict.offset in flood.flooded]
    accepted = Counter(verdict.base_version for verdict in mine if verdict.outcome == ACCEPTED)
    assert len(accepted) > 1, "versions went on during the flood, so it counted more than once in all"
    assert set(accepted.values()) == {1}
    assert {verdict.outcome for verdict in mine} == {ACCEPTED, "duplicate"}
    assert len(mine) == len(flood.flooded) >= FLOOD_PER_S * FLOOD_S


@pytest.mark.parametrize("slot", [FLOODED, QUIET], ids=["its own partition", "another partition"])
def test_honest_updates_beside_it_are_accepted(
    flood: Flood, slot: tuple[str, int], record_testsuite_property: Callable[[str, object], None]
) -> None:
    federation = flood.federation
    appended_ms = [record.timestamp_ms for record in federation.log(slot)]
    waits_s = []
    for record, verdict in federation.verdict_records(slot):
        if verdict.offset in flood.honest[slot]:
            assert verdict.outcome == ACCEPTED, verdict.detail
            waits_s.append((record.timestamp_ms - appended_ms[verdict.offset]) / 1000)
    assert len(waits_s) == len(flood.honest[slot]) > 0
    record_testsuite_property(f"wait_p50_s {slot}", sorted(waits_s)[len(waits_s) // 2])
    record_testsuite_property(f"wait_max_s {slot}", max(waits_s))


def test_windows_do_not_grow_with_the_flood_but_by_their_bound(flood: Flood) -> None:
    """A window closes at a version, at a second, at 16 accepted updates or at 2,000 records of any verdict."""
    federation = flood.federation
    windows = federation.aggregates(FLOODED)
    end = windows[-1].next_offset
    accepted = sum(window.accepted for window in windows)
    span_s = (federation.log(FLOODED)[end - 1].timestamp_ms - federation.log(FLOODED)[0].timestamp_ms) / 1000
    limits = POLICY.window
    allowed = federation.head + span_s / limits.seconds_max + accepted / limits.updates_max
    assert len(windows) <= allowed + end / limits.records_max + 1


def test_memory_stays_flat(flood: Flood) -> None:
    assert flood.memory.findings() == []


def test_what_it_costs(flood: Flood, record_testsuite_property: Callable[[str, object], None]) -> None:
    """The worker's processor time for one record of the flood, with all else that it did meanwhile."""
    each_ms = 1000 * flood.worker_cpu_s / len(flood.flooded)
    record_testsuite_property("worker_ms_each", each_ms)
    record_testsuite_property("published_per_s", len(flood.flooded) / flood.seconds)
    record_testsuite_property("memory", str(flood.memory.summary()))


def test_the_audit_agrees(flood: Flood) -> None:
    for one in flood.federation.running:
        assert one.stop() == 0, one.log
    report = audit_task(flood.federation.settings, flood.federation.task_file, jobs=1)
    assert report.identical, list(report.findings)
