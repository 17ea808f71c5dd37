"""Devices of every region that publish all the time, and what has to be true of their updates afterwards."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Self

from aggregation.errors import ConnectionProblem
from aggregation.fold.rejections import ACCEPTED
from backends.kafka.consumer_groups import describe_groups
from backends.kafka.writing import LogWriter
from backends.log import Position
from fluvial.proof.audit import audit_task
from schemas.envelope import open_envelope
from schemas.objects import sha256_hex
from schemas.topics import models_topic, updates_topic
from tests.integration.pipeline import Federation
from tests.recorded_order import RecordedOrder, made_again
from tests.waiting import until

if TYPE_CHECKING:
    from concurrent.futures import Future

    from aggregation.server.aggregates import Slot

AT_ONCE = 2
IN_FLIGHT_MAX = 32


class Traffic:
    """Devices, each of which publishes one update on the newest version told to its region. A context manager."""

    def __init__(self, federation: Federation) -> None:
        self.federation = federation
        self.acknowledged: dict[tuple[Slot, int], str] = {}
        self._newest: dict[str, int] = {}
        self._enough = threading.Event()
        self._failed: list[BaseException] = []
        self._thread = threading.Thread(target=self._guarded, name="traffic", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()

    def more(self, updates: int) -> None:
        """Wait until the broker has so many more than now."""
        wanted = len(self.acknowledged) + updates
        until(
            lambda: self._failed or len(self.acknowledged) >= wanted,
            f"{wanted} acknowledged updates\n{self.federation.logs()}",
        )
        assert not self._failed, self._failed

    def end(self) -> None:
        """Publish nothing more; all that was published is acknowledged."""
        self._enough.set()
        self._thread.join()
        assert not self._failed, self._failed

    def _guarded(self) -> None:
        try:
            self._publish()
        except BaseException as error:  # noqa: BLE001 - shown by whoever waits for us
            self._failed.append(error)

    def _publish(self) -> None:
        federation = self.federation
        writer = LogWriter(federation.settings, f"traffic-{federation.task}")
        waiting: list[tuple[Future[Position], str, str]] = []
        regions = itertools.cycle(federation.partitions)
        numbers = itertools.count()
        with federation.reader() as reader:
            # Without an announcement it turns about four times a second.
            for record in reader.follow({(models_topic(federation.task), 0): 0}):
                if record is not None:
                    # A region is told when its barriers stand; another region's news would be too early.
                    told = open_envelope(record.value or b"").record
                    self._newest[told["region"]] = max(self._newest.get(told["region"], 0), told["version"])
                known = len(self._newest) == len(federation.partitions)
                publishing = known and len(waiting) < IN_FLIGHT_MAX and not self._enough.is_set()
                for number in itertools.islice(numbers, AT_ONCE if publishing else 0):
                    region, device = next(regions), f"d-{number:05d}"
                    value = federation.update(device, base=self._newest[region], seed=number, region=region)
                    topic = updates_topic(federation.task, region)
                    waiting.append((writer.append(topic, value, key=device.encode()), region, device))
                writer.poll()
                for future, region, device in [one for one in waiting if one[0].done()]:
                    position = future.result()
                    self.acknowledged[(region, position.partition), position.offset] = device
                    waiting.remove((future, region, device))
                if self._enough.is_set() and not waiting:
                    return


def await_group(federation: Federation, region: str, workers: int) -> None:
    """Wait until so many workers share a region's partitions, and all of them are given out."""
    name = f"fluvial-{federation.task}-{region}"
    everything = list(range(federation.partitions[region]))

    def stable() -> bool:
        try:
            group = describe_groups(federation.settings, [name])[0]
        except ConnectionProblem:
            return False  # the broker did not answer in time; `until` bounds how often
        given = sorted(p for member in group.members for p in member.partitions)
        return (group.state, len(group.members), given) == ("stable", workers, everything)

    until(stable, f"{workers} workers share the partitions of {region}\n{federation.logs()}")


def await_verdict_everywhere(federation: Federation, region: str) -> None:
    """Append a record to each of a region's partitions now, and wait for the verdicts on them."""
    slots = [slot for slot in federation.slots if slot[0] == region]
    probes = {slot: federation.append(slot, b"not an update") for slot in slots}
    for slot, offset in probes.items():
        federation.await_verdicts(slot, offset)


def await_all_merged(federation: Federation) -> None:
    """Wait until every accepted update is in a version, and every version's barriers have been folded."""
    until(lambda: _merged(federation) == _accepted(federation), f"all are merged\n{federation.logs()}")
    head = federation.head
    until(
        lambda: all(_knows(federation, slot, head) for slot in federation.slots),
        f"barriers of version {head} everywhere\n{federation.logs()}",
    )


def require_nothing_lost(federation: Federation, traffic: Traffic) -> None:
    """One verdict an offset, windows that tile, one chain in which every window stands once, an identical audit.

    And the order in which everything arrived gives the same versions once more, in this process.
    """
    outcomes: Counter[str] = Counter()
    for slot in federation.slots:
        outcomes += _require_one_verdict_each(federation, traffic, slot)
        _require_tiles(federation, slot)
    assert outcomes[ACCEPTED] > len(traffic.acknowledged) // 2, outcomes
    assert outcomes["future_base"] == outcomes["unknown_base"] == 0, outcomes
    _require_one_chain(federation)
    report = audit_task(federation.settings, federation.task_file, jobs=1)
    assert report.identical, [str(one) for one in report.findings]
    assert (report.versions, report.updates) == (federation.head, _merged(federation))
    _require_same_versions_again(federation)


def _require_one_verdict_each(federation: Federation, traffic: Traffic, slot: Slot) -> Counter[str]:
    found: dict[int, bytes | None] = {}
    verdicts = federation.verdict_records(slot)
    for record, verdict in verdicts:
        assert found.setdefault(verdict.offset, record.value) == record.value, "written twice, and it differs"
    assert sorted(found) == list(range(len(federation.log(slot)))), "every offset has a verdict"
    by_offset = {verdict.offset: verdict for _, verdict in verdicts}
    ours = {offset: device for (at, offset), device in traffic.acknowledged.items() if at == slot}
    assert ours, f"nothing was published to {slot}"
    assert {offset: by_offset[offset].device_id for offset in ours} == ours
    return Counter(by_offset[offset].outcome for offset in ours)


def _require_tiles(federation: Federation, slot: Slot) -> None:
    windows = federation.aggregates(slot)
    assert windows and windows[0].first_offset == 0
    assert [window.sequence for window in windows] == list(range(len(windows)))
    for before, window in pairwise(windows):
        assert (window.first_offset, window.previous_sha256) == (before.next_offset, before.sha256)


def _require_one_chain(federation: Federation) -> None:
    parent = federation.store.manifest_bytes(0)
    merged: list[tuple[Slot, int]] = []
    for version in range(1, federation.head + 1):
        manifest = federation.store.manifest(version)
        assert manifest.parent_sha256 == sha256_hex(parent)
        merged += [((one.region, one.partition), one.sequence) for one in manifest.inputs]
        parent = federation.store.manifest_bytes(version)
    assert len(merged) == len(set(merged)), "a window was merged twice"


def _require_same_versions_again(federation: Federation) -> None:
    recorded = RecordedOrder(federation.genesis, federation.store, federation.records)
    workers = {region: federation.worker_signer(region) for region in federation.partitions}
    assert made_again(recorded, workers=workers, merger=federation.merger_signer) == recorded.manifests


def _knows(federation: Federation, slot: Slot, version: int) -> bool:
    return any(v.detail.startswith(f"barrier to version {version} ") for v in federation.verdicts(slot))


def _accepted(federation: Federation) -> int:
    return sum(
        sum(
            verdict.outcome == ACCEPTED
            for verdict in {v.offset: v for v in federation.verdicts(slot)}.values()
        )
        for slot in federation.slots
    )


def _merged(federation: Federation) -> int:
    return sum(federation.store.manifest(version).accepted for version in range(1, federation.head + 1))
