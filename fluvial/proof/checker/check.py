"""The whole check, over a broker and a store or over plain data in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from fluvial.proof.checker.announced import CLOCK_SKEW_MS, check_announcements, revoked_at
from fluvial.proof.checker.arithmetic import sha256
from fluvial.proof.checker.below import check_edges
from fluvial.proof.checker.chain import (
    check_barriers,
    check_models,
    read_chain,
)
from fluvial.proof.checker.derived import Logs
from fluvial.proof.checker.guides import check_guides
from fluvial.proof.checker.inputs import check_inputs
from fluvial.proof.checker.partitions import check_partition
from fluvial.proof.checker.reading import KafkaLogs, StoreAddress, open_objects
from fluvial.proof.checker.report import Acknowledged, CheckReport, Findings, Progress, Slot
from fluvial.proof.checker.task import Damaged, Objects, Shelf, task_of, version_key
from fluvial.proof.checker.vouched import Heads

NO_HEADS: Final[Heads] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """What to check: where the logs and objects are, which task, and what its publishers were told.

    ``kafka`` is how a client reaches the broker: ``bootstrap.servers``, and for one that is secured, under
    ``aiokafka``, what aiokafka's connections are made with. Whoever asks has the place that makes them.

    ``drained`` says that the caller has waited until nothing moved any more: then every offset has to have a verdict,
    and every window that closed its aggregate. ``strangers``: whether others than the task's workers may have written
    to the verdicts topics; without them, two different verdicts of one offset are a worker's fault.
    """

    kafka: Mapping[str, Any]
    store: StoreAddress
    task: str
    genesis_sha256: str
    acknowledged: tuple[Acknowledged, ...] = ()
    drained: bool = True
    strangers: bool = True


def _silent(_what: str, _done: int, _total: int) -> None:
    """Nobody follows."""


def check(request: CheckRequest, *, on_progress: Progress = _silent) -> CheckReport:
    """Check a task on its broker and store, from offset 0.

    The logs are read as far as they reach when the check begins. Raises ``ReadingFailed`` (FLV-6421 to FLV-6423) where
    broker or store cannot be read; what is wrong in what was read is in the report.
    """
    objects = open_objects(request.store)
    with KafkaLogs(request.kafka, request.task) as logs:
        return check_logs(
            logs,
            objects,
            request.task,
            request.genesis_sha256,
            request.acknowledged,
            drained=request.drained,
            heads=logs.heads,
            strangers=request.strangers,
            on_progress=on_progress,
        )


def check_logs(
    logs: Logs,
    objects: Objects | Mapping[str, bytes],
    task: str,
    genesis_sha256: str,
    acknowledged: Iterable[Acknowledged] = (),
    *,
    drained: bool,
    heads: Heads = NO_HEADS,
    strangers: bool = True,
    clock_skew_ms: int | None = CLOCK_SKEW_MS,
    on_progress: Progress = _silent,
) -> CheckReport:
    """Check a task whose records and objects (by key) are at hand. Pure but for what ``logs`` and ``objects`` do.

    ``heads`` are those of the verdicts topics, ``strangers`` as in ``CheckRequest``. ``clock_skew_ms``: by how much an
    announcement's LogAppendTime may lie before its barriers'; None does not compare times, for a simulation whose
    broker's clock jumps.
    """
    store = _InMemory(objects) if isinstance(objects, Mapping) else objects
    findings = Findings()
    genesis = store.get(version_key(task, 0, "manifest.json"))
    if genesis is None or sha256(genesis) != genesis_sha256:
        got = "missing" if genesis is None else sha256(genesis)
        findings.violate(2, f"the genesis document of {task} is {got}, expected {genesis_sha256}")
        return findings.report()
    try:
        shelf = Shelf(store, task_of(genesis))
    except Damaged as damage:
        findings.violate(2, f"nothing of {task} can be checked: {damage}")
        return findings.report()
    chain = read_chain(shelf, findings)
    by_slot: dict[Slot, list[Acknowledged]] = {slot: [] for slot in shelf.task.slots}
    for one in acknowledged:
        by_slot.setdefault((one.region, one.partition), []).append(one)
    for region, partition in sorted(by_slot.keys() - set(shelf.task.slots)):
        findings.acknowledged += len(by_slot[region, partition])
        findings.lost += len(by_slot[region, partition])
        findings.violate(
            1, f"updates were acknowledged in {region}[{partition}], which the task does not have"
        )
    revoked = revoked_at(logs, shelf.task)
    partitions = {}
    for done, slot in enumerate(shelf.task.slots):
        on_progress(f"partition {slot[0]}[{slot[1]}]", done, len(shelf.task.slots))
        partitions[slot] = check_partition(
            logs,
            shelf,
            slot,
            by_slot[slot],
            findings,
            keep_sums=chain.keep_sums,
            drained=drained,
            heads=heads,
            strangers=strangers,
            revoked=revoked,
        )
    check_edges(logs, shelf, partitions, findings, heads=heads, revoked=revoked)
    on_progress("versions", 0, len(chain.versions))
    check_inputs(chain, partitions)
    check_models(chain, complete=all(one.complete for one in partitions.values()), drained=drained)
    check_guides(chain)
    check_barriers(chain, partitions)
    check_announcements(chain, logs, partitions, clock_skew_ms=clock_skew_ms)
    on_progress("versions", len(chain.versions), len(chain.versions))
    return findings.report()


class _InMemory:
    """Objects that are a mapping."""

    def __init__(self, objects: Mapping[str, bytes]) -> None:
        self._objects = objects

    def get(self, key: str, /) -> bytes | None:
        return self._objects.get(key)

    def keys(self, prefix: str, /) -> Iterable[str]:
        return (key for key in self._objects if key.startswith(prefix))
