"""The one decision of a version, at the level where the merger makes it: of many commits exactly one counts."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING

import pytest

from aggregation.errors import IntegrityProblem, UsageProblem
from backends.memory.store import MemoryStore
from backends.store.conditional import RACERS, require_conditional_writes, winners_of_a_race
from backends.store.factory import open_object_store
from backends.store.file import FileStore
from backends.store.task_store import Head, TaskStore
from schemas.objects import object_key, sha256_hex
from tests.requirements import require_minio

if TYPE_CHECKING:
    from pathlib import Path

MERGERS = 32


@pytest.fixture(params=["file", "memory", pytest.param("minio", marks=pytest.mark.integration)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> TaskStore:
    task = f"t-{uuid.uuid4().hex[:10]}"
    if request.param == "file":
        return TaskStore(FileStore(tmp_path / "objects"), task)
    if request.param == "memory":
        return TaskStore(MemoryStore(), task)
    settings = request.getfixturevalue("stack")
    require_minio(settings)
    return TaskStore(open_object_store(settings.store), task)


def test_of_32_concurrent_commits_of_a_version_exactly_one_stands(store: TaskStore) -> None:
    assert store.commit(0, b"genesis")
    for version in (1, 2, 3):
        line = Barrier(MERGERS)

        def commit(number: int, version: int = version, line: Barrier = line) -> bool:
            line.wait()
            return store.commit(version, f"manifest {version} of merger {number}".encode())

        with ThreadPoolExecutor(MERGERS) as pool:
            won = list(pool.map(commit, range(MERGERS)))
        assert won.count(True) == 1
        winner = f"manifest {version} of merger {won.index(True)}".encode()
        assert store.manifest_bytes(version) == winner
        assert store.head(version - 1) == store.head() == Head(version, sha256_hex(winner))


def test_a_late_commit_changes_nothing_however_often_it_is_tried(store: TaskStore) -> None:
    assert store.commit(1, b"first") is True
    assert [store.commit(1, data) for data in (b"second", b"first", b"")] == [False] * 3
    assert store.manifest_bytes(1) == b"first"


def test_bytes_that_are_not_what_their_hash_says_are_never_handed_out(store: TaskStore) -> None:
    sha256 = store.put_object(b"a window's sums")
    store.store.put(object_key(store.task, sha256), b"a window's sumz")
    store.write_checkpoint(1, b"model", b"optimizer")
    reads: list[Callable[[], bytes]] = [
        lambda: store.get_object(sha256),
        lambda: store.model_bytes(1, sha256_hex(b"another")),
    ]
    for read in reads:
        with pytest.raises(IntegrityProblem) as caught:
            read()
        assert caught.value.error_id == "FLV-4103"
    store.commit(0, b"some genesis")
    with pytest.raises(IntegrityProblem) as caught:
        store.genesis(sha256_hex(b"the genesis that was pinned"))
    assert caught.value.error_id == "FLV-4103"


def test_every_store_of_ours_passes_what_a_merger_asks_before_it_begins(store: TaskStore) -> None:
    assert store.commit(0, b"genesis")
    require_conditional_writes(store)
    assert store.manifest_bytes(0) == b"genesis"
    assert winners_of_a_race(store.store) == 1


def test_a_store_whose_conditional_write_lies_is_refused_by_name_and_nothing_is_changed(
    tmp_path: Path,
) -> None:
    class Lying(FileStore):
        """A server that does not know If-None-Match."""

        def create(self, key: str, data: bytes) -> bool:
            self.put(key, data)
            return True

    store = TaskStore(Lying(tmp_path / "objects"), "t")
    assert store.commit(0, b"genesis")
    with pytest.raises(UsageProblem) as raised:
        require_conditional_writes(store)
    assert raised.value.error_id == "FLV-4008"
    assert store.manifest_bytes(0) == b"genesis"
    assert winners_of_a_race(store.store) == RACERS
