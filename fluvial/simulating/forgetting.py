"""Letting go of what nobody asks for again, so that a long simulation is no larger than a short one.

Of the logs: what is folded, taken and heard. Of the store: the objects of windows that a version holds, and versions
that are ``VERSIONS_KEPT`` old. What devices under way began with, they hold. Where versions mix in what updates
answered, models stay as long as their version may be answered.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Final

from schemas.objects import facts_key, manifest_key, model_key, object_key, optimizer_key
from schemas.topics import aggregates_topic, models_topic, updates_topic, verdicts_topic

if TYPE_CHECKING:
    from aggregation.server.aggregates import Aggregate, Slot
    from fluvial.session.engine import Engine
    from schemas.manifests import Manifest

VERSIONS_KEPT: Final = 4


class Forgetting:
    """Of one engine. ``published`` tells it of every window, ``sweep`` of every version."""

    def __init__(self) -> None:
        self._windows: dict[Slot, deque[Aggregate]] = {}
        self._named: Counter[str] = Counter()
        self._references: dict[int, str] = {}
        self._next = 1

    def published(self, slot: Slot, aggregate: Aggregate) -> None:
        """A window's objects are in the store."""
        self._windows.setdefault(slot, deque()).append(aggregate)
        self._named.update((aggregate.sum_sha256, aggregate.state_sha256))

    def sweep_logs(self, engine: Engine) -> None:
        """Forget the records that everybody has read who reads them."""
        task, log, federation = engine.genesis.task, engine.log, engine.federation
        taken = federation.taken
        for slot, offset in federation.folded.items():
            region, partition = slot
            log.forget_before(updates_topic(task, region), partition, offset)
            verdicts = verdicts_topic(task, region)
            log.forget_before(verdicts, partition, log.end(verdicts, partition))
            log.forget_before(aggregates_topic(task, region), partition, taken[slot])
        log.forget_before(models_topic(task), 0, engine.heard)

    def sweep_store(self, engine: Engine, manifest: Manifest) -> None:
        """There is a new version: forget its windows' objects, and the versions before those that are kept."""
        task, objects = engine.genesis.task, engine.objects
        for slot, cursor in manifest.slot_cursors.items():
            windows = self._windows.get(slot, deque())
            while windows and windows[0].sequence < cursor:
                gone = windows.popleft()
                for sha256 in (gone.sum_sha256, gone.state_sha256):
                    self._named[sha256] -= 1
                    if not self._named[sha256]:  # equal sums are one object
                        del self._named[sha256]
                        objects.forget(object_key(task, sha256))
        self._references[manifest.version] = manifest.reference_sha256
        old = manifest.version - VERSIONS_KEPT
        reference = self._references.pop(old, "")
        if reference and reference not in self._references.values():
            objects.forget(object_key(task, reference))
        if old > 0:
            for key in (optimizer_key, facts_key):
                objects.forget(key(task, old))
        for number in range(self._next, min(old, self._oldest_mixed(engine)) + 1):
            for key in (manifest_key, model_key):
                objects.forget(key(task, number))
            self._next = number + 1

    def _oldest_mixed(self, engine: Engine) -> int:
        """The newest version that no version to come mixes in."""
        federation, policy = engine.federation, engine.bases.at(0).policy
        if not policy.server.mixing:
            return engine.head
        waiting = federation.merger.pending.waiting()
        named = [one.bases[0].base for one in waiting if one.bases]
        live = [
            partition.state.oldest_base
            for worker in federation.workers.values()
            for partition in worker.partitions.values()
        ]
        return min([*named, *live]) - 1 - VERSIONS_KEPT
