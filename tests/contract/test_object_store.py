"""What every object store promises, run against the folder store, the real MinIO through both clients, and moto."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING

import pytest

from aggregation.errors import UsageProblem
from backends.memory.store import MemoryStore
from backends.object_limits import FACTS_BYTES_MAX, ObjectTooLarge
from backends.object_store import ObjectNotFound, ObjectStore
from backends.settings import StoreSettings
from backends.store.factory import open_object_store
from backends.store.removing import remove_objects
from tests.contract.s3_servers import settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator

RACERS = 32


@pytest.fixture(
    scope="module",
    params=[
        "file",
        "memory",
        "moto",
        pytest.param("versitygw", marks=pytest.mark.long),
        pytest.param("minio", marks=pytest.mark.integration),
        pytest.param("s3", marks=pytest.mark.integration),
    ],
)
def settings(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StoreSettings | None]:
    """Where a store is; None for one in memory."""
    if request.param == "memory":
        yield None
        return
    with settings_of(request.param, request, tmp_path_factory.mktemp("objects")) as settings:
        yield settings


@pytest.fixture
def store(settings: StoreSettings | None) -> ObjectStore:
    return MemoryStore() if settings is None else open_object_store(settings)


@pytest.fixture
def folder() -> str:
    """A prefix of the test's own: MinIO is shared by the session."""
    return f"contract-{uuid.uuid4().hex}"


def test_what_was_put_is_read_back(store: ObjectStore, folder: str) -> None:
    store.put(f"{folder}/a.bin", b"\x00one")
    assert store.get(f"{folder}/a.bin") == b"\x00one"


def test_put_replaces(store: ObjectStore, folder: str) -> None:
    store.put(f"{folder}/a", b"one")
    store.put(f"{folder}/a", b"two")
    assert store.get(f"{folder}/a") == b"two"


def test_an_empty_object_is_an_object(store: ObjectStore, folder: str) -> None:
    store.put(f"{folder}/empty", b"")
    assert store.create(f"{folder}/created", b"") is True
    assert store.get(f"{folder}/empty") == store.get(f"{folder}/created") == b""


def test_a_large_object_is_whole(store: ObjectStore, folder: str) -> None:
    data = bytes(range(256)) * (20 * 4096)
    store.put(f"{folder}/large", data)
    assert store.get(f"{folder}/large") == data


def test_create_gives_the_key_to_the_first_and_leaves_it_alone_afterwards(
    store: ObjectStore, folder: str
) -> None:
    assert store.create(f"{folder}/manifest.json", b"first") is True
    assert store.create(f"{folder}/manifest.json", b"second") is False
    assert store.get(f"{folder}/manifest.json") == b"first"


def test_create_respects_what_was_put(store: ObjectStore, folder: str) -> None:
    store.put(f"{folder}/a", b"put")
    assert store.create(f"{folder}/a", b"created") is False
    assert store.get(f"{folder}/a") == b"put"


def test_of_32_concurrent_creates_exactly_one_wins_and_its_bytes_stand(
    store: ObjectStore, folder: str
) -> None:
    for round_number in range(3):
        key = f"{folder}/race-{round_number}"
        line = Barrier(RACERS)

        def race(number: int, key: str = key, line: Barrier = line) -> bool:
            line.wait()
            return store.create(key, f"racer {number}".encode())

        with ThreadPoolExecutor(RACERS) as pool:
            won = list(pool.map(race, range(RACERS)))
        assert won.count(True) == 1
        assert store.get(key) == f"racer {won.index(True)}".encode()


def test_of_racers_through_two_clients_one_wins(settings: StoreSettings | None, folder: str) -> None:
    """Two mergers have nothing in common but the server: each has a client, or a handle of the folder, of its own."""
    if settings is None:
        pytest.skip("a store in memory is of one process")
    two = [open_object_store(settings) for _ in range(2)]
    for round_number in range(5):
        line = Barrier(RACERS)

        def race(number: int, key: str = f"{folder}/race-{round_number}", line: Barrier = line) -> bool:
            line.wait()
            return two[number % 2].create(key, str(number).encode())

        with ThreadPoolExecutor(RACERS) as pool:
            won = list(pool.map(race, range(RACERS)))
        assert won.count(True) == 1
        assert two[0].get(f"{folder}/race-{round_number}") == str(won.index(True)).encode()


def test_what_is_not_there_is_not_found_by_name(store: ObjectStore, folder: str) -> None:
    with pytest.raises(ObjectNotFound) as caught:
        store.get(f"{folder}/nothing")
    assert caught.value.key == f"{folder}/nothing"
    assert caught.value.error_id == "FLV-4001"
    assert store.exists(f"{folder}/nothing") is False


def test_exists_sees_objects_and_not_prefixes(store: ObjectStore, folder: str) -> None:
    store.put(f"{folder}/versions/1/manifest.json", b"x")
    assert store.exists(f"{folder}/versions/1/manifest.json") is True
    assert store.exists(f"{folder}/versions/1") is False
    with pytest.raises(ObjectNotFound):
        store.get(f"{folder}/versions/1")


def test_list_gives_every_key_of_a_prefix_in_order(store: ObjectStore, folder: str) -> None:
    names = ["a-b", "a/1", "a/10", "a/2/x", "ab", "b"]
    for name in reversed(names):
        store.put(f"{folder}/{name}", b"x")
    listed = [key.removeprefix(f"{folder}/") for key in store.list(f"{folder}/")]
    assert listed == sorted(names)
    assert [key.removeprefix(f"{folder}/") for key in store.list(f"{folder}/a/1")] == ["a/1", "a/10"]
    assert [key.removeprefix(f"{folder}/") for key in store.list(f"{folder}/a/")] == ["a/1", "a/10", "a/2/x"]
    assert [key.removeprefix(f"{folder}/") for key in store.list(f"{folder}/a")] == names[:-1]


def test_list_of_an_unknown_prefix_is_empty(store: ObjectStore, folder: str) -> None:
    assert list(store.list(f"{folder}/nothing/")) == []


def test_list_reads_more_than_one_page(store: ObjectStore, folder: str) -> None:
    names = [f"{folder}/{number:05}" for number in range(1050)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put(key, b"x"), names))
    assert list(store.list(f"{folder}/")) == names


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", ".hidden", "a b", "ä", "a" * 1025]
)
def test_a_key_that_a_store_would_bend_is_refused(store: ObjectStore, key: str) -> None:
    for call in (
        store.get,
        store.exists,
        lambda key: store.put(key, b""),
        lambda key: store.create(key, b""),
    ):
        with pytest.raises(UsageProblem) as caught:
            call(key)
        assert caught.value.error_id == "FLV-4005"


def test_describe_is_one_line_without_secrets(store: ObjectStore, settings: StoreSettings | None) -> None:
    text = store.describe()
    assert text and "\n" not in text
    if settings is not None and settings.secret_key:
        assert settings.secret_key not in text


def test_removing_a_folder_takes_what_is_in_it_and_nothing_that_begins_like_it(
    store: ObjectStore, settings: StoreSettings | None, folder: str
) -> None:
    if settings is None:
        pytest.skip("a store in memory ends with its process")
    for name in ("a/1", "a/objects/ab/2", "ab", "a-2/1"):
        store.put(f"{folder}/{name}", b"x")
    assert remove_objects(settings, f"{folder}/a/") == 2
    assert list(store.list(f"{folder}/")) == [f"{folder}/a-2/1", f"{folder}/ab"]
    assert remove_objects(settings, f"{folder}/a/") == 0
    with pytest.raises(ValueError, match="no folder"):
        remove_objects(settings, f"{folder}/a")
    assert remove_objects(settings, f"{folder}/") == 2
    if settings.path is not None:
        assert not (settings.path / folder).exists()


def test_an_object_larger_than_any_of_its_kind_is_not_held(store: ObjectStore, folder: str) -> None:
    """Whoever may write the store must not fill a reader's memory: what is too large is damage before it is hashed."""
    key = f"{folder}/versions/1/facts.json"
    store.put(key, b"x" * FACTS_BYTES_MAX)
    assert len(store.get(key)) == FACTS_BYTES_MAX
    store.put(key, b"x" * (FACTS_BYTES_MAX + 1))
    with pytest.raises(ObjectTooLarge, match="FLV-4105"):
        store.get(key)
    store.put(key, b"{}")
    assert store.get(key) == b"{}"


def test_who_knows_how_long_an_object_is_asks_for_no_more(store: ObjectStore, folder: str) -> None:
    key = f"{folder}/objects/{'0' * 64}"
    store.put(key, b"x" * 1001)
    assert len(store.get(key)) == len(store.get(key, bytes_max=1001)) == 1001
    with pytest.raises(ObjectTooLarge, match="more than 1000 bytes"):
        store.get(key, bytes_max=1000)
    facts = f"{folder}/versions/1/facts.json"
    store.put(facts, b"x" * (FACTS_BYTES_MAX + 1))
    with pytest.raises(ObjectTooLarge, match=f"more than {FACTS_BYTES_MAX} bytes"):
        store.get(facts, bytes_max=2 * FACTS_BYTES_MAX)  # nor more than its kind may have
