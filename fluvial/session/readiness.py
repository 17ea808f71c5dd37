"""What a starting run still waits for: which of its processes have not shown yet that they are at work.

A process that runs is not ready: it imports, joins its consumer group, reads the past. Each part is ready when
others can see its work: a worker in its region's group with partitions or a verdict, the merger's first
announcement, the evaluation of the first model, the fleet's first acknowledged update.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final, Self

from aggregation.errors import FluvialError
from backends.kafka.consumer_groups import describe_groups

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from backends.settings import Settings
    from fluvial.reading.progress import RunFacts

LOOK_EVERY_S: Final = 1.0
_LEAVE_S: Final = 1.0
log = logging.getLogger("fluvial.readiness")


def waits(
    facts: RunFacts, *, workers: Mapping[str, int], partitions: Mapping[str, int], joined: Mapping[str, int]
) -> list[str]:
    """What a run waits for before its first version, in the order in which it comes; empty once there is one.

    ``workers`` and ``joined`` count the workers wanted and at work by region. More workers than ``partitions`` have
    nothing to do, and nobody waits for them.
    """
    if facts.version() > 0:
        return []
    with facts.lock:
        judged = {region for region, _ in facts.counts}
        evaluated, announced = bool(facts.evaluations), facts.announced
        updates = any(outcome != "control" for _, outcome in facts.counts)
    found = []
    wanted = {region: min(count, partitions[region]) for region, count in workers.items()}
    here = {
        region: count if region in judged else min(count, joined.get(region, 0))
        for region, count in wanted.items()
    }
    missing = [region for region in sorted(wanted) if here[region] < wanted[region]]
    if missing:
        found.append(
            f"workers in {', '.join(missing)} ({sum(here.values())} of {sum(wanted.values())} have joined)"
        )
    if not announced:
        found.append("the merger")
    if not evaluated:
        found.append("the evaluator")
    if not updates:
        found.append("the fleet's first update")
    return found or ["enough updates for the first version"]


class Readiness:
    """A thread that asks the broker who has joined, until ``missing`` was empty once or the context ends."""

    def __init__(
        self, settings: Settings, task: str, *, workers: int, partitions: Mapping[str, int], facts: RunFacts
    ) -> None:
        """A run of ``task`` with so many ``workers`` in each region of ``partitions``."""
        self._settings = settings
        self._groups = {f"fluvial-{task}-{region}": region for region in partitions}
        self._workers = dict.fromkeys(partitions, workers)
        self._partitions = partitions
        self._facts = facts
        self._joined: dict[str, int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="readiness", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(_LEAVE_S)

    def missing(self) -> Sequence[str]:
        """See ``waits``. Cheap: call it as often as a screen is drawn."""
        if self._ended.is_set():
            return ()
        found = waits(self._facts, workers=self._workers, partitions=self._partitions, joined=self._joined)
        if not found:
            self._ended.set()
        return found

    def _look(self) -> None:
        while not self._ended.is_set():
            try:
                groups = describe_groups(self._settings, list(self._groups))
            except FluvialError as error:
                # Only the progress line is the poorer for it: an outage is told by the processes that it stops.
                log.info("cannot look who has joined: %s", error)
            else:
                self._joined = {
                    self._groups[group.name]: sum(bool(member.partitions) for member in group.members)
                    for group in groups
                }
            self._ended.wait(LOOK_EVERY_S)
