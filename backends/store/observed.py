"""An object store whose every answer is timed for an observer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

from aggregation.errors import FluvialError
from backends.object_limits import ObjectLimits
from backends.object_store import ObjectNotFound, ObjectStore
from backends.observer import Observer

Result = TypeVar("Result")


class ObservedStore:
    """``ObjectStore`` around another one. An object that is not there is an answer, not an error."""

    def __init__(self, store: ObjectStore, observer: Observer) -> None:
        self._store = store
        self._observer = observer

    @property
    def limits(self) -> ObjectLimits | None:
        """Those of the store below."""
        return getattr(self._store, "limits", None)

    def get(self, key: str, *, bytes_max: int | None = None) -> bytes:
        """As the store below."""
        return self._timed("get", partial(self._store.get, key, bytes_max=bytes_max))

    def put(self, key: str, data: bytes) -> None:
        """As the store below."""
        self._timed("put", partial(self._store.put, key, data))

    def create(self, key: str, data: bytes) -> bool:
        """As the store below."""
        return self._timed("create", partial(self._store.create, key, data))

    def exists(self, key: str) -> bool:
        """As the store below."""
        return self._timed("exists", partial(self._store.exists, key))

    def list(self, prefix: str) -> Iterator[str]:
        """As the store below; timed to its last key, the caller's own time between keys left out."""
        return iter(self._timed("list", lambda: tuple(self._store.list(prefix))))

    def describe(self) -> str:
        """As the store below."""
        return self._store.describe()

    def _timed(self, operation: str, call: Callable[[], Result]) -> Result:
        began_s = time.perf_counter()
        problem: FluvialError | None = None
        try:
            return call()
        except ObjectNotFound:
            raise
        except FluvialError as error:
            problem = error
            raise
        finally:
            self._observer.stored(operation, time.perf_counter() - began_s, problem)
