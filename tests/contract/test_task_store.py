"""The one decision of a version, at the level where the merger makes it: of many commits exactly one counts."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING

import pytest

from adapters.file_store import FileStore
from adapters.object_store import open_object_store
from adapters.task_store import Head, TaskStore
from schemas.objects import sha256_hex

if TYPE_CHECKING:
    from pathlib import Path

MERGERS = 32


@pytest.fixture(params=["file", pytest.param("minio", marks=pytest.mark.integration)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> TaskStore:
    task = f"t-{uuid.uuid4().hex[:10]}"
    if request.param == "file":
        return TaskStore(FileStore(tmp_path / "objects"), task)
    settings = request.getfixturevalue("stack")
    if settings.store.kind != "minio":
        pytest.skip("no Go on this machine, so the stack has no MinIO")
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
