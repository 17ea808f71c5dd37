"""An object store in memory. Thread-safe; kept until it is forgotten."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from backends.object_limits import ObjectLimits, ObjectTooLarge
from backends.object_store import ObjectNotFound, check_key, check_prefix


class MemoryStore:
    """``ObjectStore`` as a dictionary."""

    def __init__(self) -> None:
        self.limits = ObjectLimits()
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def get(self, key: str, *, bytes_max: int | None = None) -> bytes:
        """See ``ObjectStore.get``."""
        check_key(key)
        try:
            data = self._objects[key]
        except KeyError:
            raise ObjectNotFound(key, where=self.describe()) from None
        limit = self.limits.of(key, bytes_max)
        if len(data) > limit:
            raise ObjectTooLarge(key, limit, where=self.describe())
        return data

    def put(self, key: str, data: bytes) -> None:
        """Store ``data`` in place of what is there."""
        check_key(key)
        with self._lock:
            self._objects[key] = bytes(data)

    def create(self, key: str, data: bytes) -> bool:
        """Store ``data`` if the key is free: True if this call did it."""
        check_key(key)
        with self._lock:
            if key in self._objects:
                return False
            self._objects[key] = bytes(data)
            return True

    def exists(self, key: str) -> bool:
        """Whether there is an object under the key."""
        check_key(key)
        return key in self._objects

    def list(self, prefix: str) -> Iterator[str]:
        """Every key that starts with ``prefix``, in ascending order."""
        check_prefix(prefix)
        with self._lock:
            return iter(sorted(key for key in self._objects if key.startswith(prefix)))

    def forget(self, key: str) -> None:
        """Let an object go, if it is there."""
        with self._lock:
            self._objects.pop(key, None)

    def describe(self) -> str:
        """One line for humans."""
        return f"a store in memory, {len(self._objects)} objects"
