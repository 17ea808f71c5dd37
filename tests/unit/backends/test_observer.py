from __future__ import annotations

import inspect
import logging
from pathlib import Path

import pytest

from aggregation.errors import FluvialError
from backends.log import Headers
from backends.object_store import ObjectNotFound, ObjectStore, StoreUnavailable
from backends.observer import UNOBSERVED, Observer, Observers
from backends.store.file import FileStore
from backends.store.observed import ObservedStore

HOOKS = [name for name, value in vars(Observer).items() if inspect.isfunction(value)]


class Tagging(Observer):
    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.seen: list[tuple[str, int]] = []

    def publishing(self, region: str, codec: str, value_bytes: int) -> Headers:
        self.seen.append((region, value_bytes))
        return ((self.tag, codec.encode()),)


class Defective(Observer):
    calls = 0

    def publishing(self, region: str, codec: str, value_bytes: int) -> Headers:
        Defective.calls += 1
        raise ZeroDivisionError


class Timing(Observer):
    def __init__(self) -> None:
        self.answers: list[tuple[str, str]] = []

    def stored(self, operation: str, seconds: float, error: FluvialError | None) -> None:
        assert seconds >= 0
        self.answers.append((operation, error.error_id if error else ""))


class DeadStore:
    def get(self, key: str, *, bytes_max: int | None = None) -> bytes:
        raise StoreUnavailable("FLV-4002", f"no answer for {key}, {bytes_max}")


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_reaches_every_observer(name: str) -> None:
    called: list[str] = []
    count = len(inspect.signature(getattr(Observer, name)).parameters) - 1

    def hook(_: Observer, *arguments: object) -> None:
        assert len(arguments) == count
        called.append(name)

    kind = type("Watching", (Observer,), {name: hook})
    getattr(Observers([kind(), kind()]), name)(*range(count))
    assert called == [name, name]


@pytest.mark.parametrize("name", HOOKS)
def test_nobody_watching_adds_no_headers(name: str) -> None:
    count = len(inspect.signature(getattr(Observer, name)).parameters) - 1
    assert not getattr(UNOBSERVED, name)(*range(count))


def test_headers_of_all_come_in_order() -> None:
    assert Observers([Tagging("a"), Observer(), Tagging("b")]).publishing("eu", "int8", 9) == (
        ("a", b"int8"),
        ("b", b"int8"),
    )


def test_one_that_raises_is_said_once_and_called_no_more(caplog: pytest.LogCaptureFixture) -> None:
    Defective.calls = 0
    other = Tagging("t")
    observers = Observers([Defective(), other])
    with caplog.at_level(logging.ERROR, "fluvial"):
        for _ in range(3):
            assert observers.publishing("eu", "int8", 1) == (("t", b"int8"),)
    assert Defective.calls == 1
    assert other.seen == [("eu", 1)] * 3
    assert [record.exc_info is not None for record in caplog.records] == [True]


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return FileStore(tmp_path)


def test_a_store_that_is_watched_answers_as_before_and_every_answer_is_timed(store: ObjectStore) -> None:
    timing = Timing()
    watched = ObservedStore(store, timing)
    watched.put("a/b", b"1")
    assert watched.create("a/c", b"2") and not watched.create("a/c", b"3")
    assert watched.get("a/c") == b"2" and watched.exists("a/b") and list(watched.list("a/")) == ["a/b", "a/c"]
    with pytest.raises(ObjectNotFound):
        watched.get("a/z")
    assert watched.describe() == store.describe()
    assert timing.answers == [
        ("put", ""),
        ("create", ""),
        ("create", ""),
        ("get", ""),
        ("exists", ""),
        ("list", ""),
        ("get", ""),
    ]


def test_an_outage_is_passed_on_and_told() -> None:
    timing = Timing()
    with pytest.raises(StoreUnavailable):
        ObservedStore(DeadStore(), timing).get("k")  # type: ignore[arg-type]
    assert timing.answers == [("get", "FLV-4002")]
