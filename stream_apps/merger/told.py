"""Barriers of versions as workers were told of them: a merger may have died before it announced the version.

A version's barriers are signed as its announcement is, and workers have folded them: whoever takes no notice makes
another version of that number. They stand behind the windows that the version before holds, so few records are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Final

from aggregation.errors import IntegrityProblem
from aggregation.fold.events import Barrier
from aggregation.server.aggregates import Slot
from backends.log import RecordReader
from schemas.certificates import Trust
from schemas.manifests import Manifest
from schemas.records import barrier_in
from schemas.topics import updates_topic

RECORDS_MAX: Final = 4096
"""So many records of a partition behind what versions hold, and so many of the newest, are looked at by a merger.

The barrier stands where a merger died: soon behind the windows of its version or, where it was far behind, at the end.
"""
MANIFESTS_MAX: Final = 64
"""Manifests that are read to find how far versions hold each partition."""

Revoked = Callable[[str, int], bool]
"""Whether a certificate, by name, was revoked at a LogAppendTime in ms."""


def held_until(version: int, slots: Iterable[Slot], manifest: Callable[[int], Manifest]) -> dict[Slot, int]:
    """Up to which offset (exclusive) versions to ``version`` hold each partition, of those that are found.

    ``manifest`` reads one; what it cannot read (IntegrityProblem) ends the search.
    """
    missing, found = set(slots), dict[Slot, int]()
    for number in range(version, max(0, version - MANIFESTS_MAX), -1):
        if not missing:
            break
        try:
            inputs = manifest(number).inputs
        except IntegrityProblem:
            break
        for one in inputs:
            slot = (one.region, one.partition)
            if slot in missing:
                found[slot] = max(found.get(slot, 0), one.next_offset)
        missing -= found.keys()
    return found


def told_by_barriers(
    reader: RecordReader,
    trust: Trust,
    task: str,
    slots: Iterable[Slot],
    *,
    starts: dict[Slot, int],
    revoked: Revoked,
    records_max: int | None = RECORDS_MAX,
) -> dict[int, str]:
    """SHA-256 of manifests by version, as mergers' barriers in the partitions say from ``starts`` on.

    ``records_max``: of each partition at the beginning and at the end; None: all between.
    """
    found: dict[int, str] = {}
    for region, partition in slots:
        topic = updates_topic(task, region)
        low, end = reader.bounds(topic, partition)
        start = max(low, starts.get((region, partition), end - RECORDS_MAX))
        for record in chain.from_iterable(
            reader.read(topic, partition, *part) for part in _parts(start, end, records_max)
        ):
            said = barrier_in(record.value, record.timestamp_ms, trust)
            if not isinstance(said, Barrier) or (said.task, said.region) != (task, region):
                continue
            if not revoked(said.signer, record.timestamp_ms):
                found.setdefault(said.version, said.manifest_sha256)
    return found


def _parts(start: int, end: int, records_max: int | None) -> list[tuple[int, int]]:
    if start >= end:
        return []
    if records_max is None or end - start <= 2 * records_max:
        return [(start, end)]
    return [(start, start + records_max), (end - records_max, end)]
