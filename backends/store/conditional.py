"""Whether a store keeps the promise that the chain of versions rests on: of two writers of one key, one wins."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from aggregation.errors import UsageProblem
from backends.object_store import ObjectStore
from backends.store.task_store import TaskStore

RACERS: Final = 8


def winners_of_a_race(store: ObjectStore) -> int:
    """How many of ``RACERS`` writers of one new key were told that they made it: 1, unless the store lies.

    One key for each race: an object store's interface has no delete, and what stays is a byte.
    """
    key = f"doctor/race-{secrets.token_hex(8)}"
    with ThreadPoolExecutor(RACERS) as pool:
        return sum(pool.map(lambda number: store.create(key, str(number).encode()), range(RACERS)))


def require_conditional_writes(store: TaskStore) -> None:
    """UsageProblem FLV-4008 where the task's genesis could be made a second time, and so any version.

    Asked with the very bytes that stand there: a store that takes them has changed nothing, and leaves nothing behind.
    """
    if not store.commit(0, store.manifest_bytes(0)):
        return
    raise UsageProblem(
        "FLV-4008",
        "the store lets a second writer make an object that is there: two mergers could both make a version",
        where=store.store.describe(),
        hint="use a store that honours If-None-Match: * on PUT, such as MinIO; `fluvial doctor` tries it in a race",
    )
