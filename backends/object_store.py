"""One interface to the place where checkpoints live: MinIO or any S3 store, or a folder on this machine.

Two promises carry the whole design, and ``tests/contract/test_object_store.py`` holds every implementation to
them:

- ``create`` is atomic: of any number of callers in any number of processes, exactly one gets True for a key;
- what ``put`` or ``create`` has acknowledged survives a crash of the caller, and is read by everyone from then
  on.

Methods block and are thread-safe; asynchronous callers use ``asyncio.to_thread``. They do not wait for an
outage to end: they raise, and the caller decides how long to wait and what to show.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Protocol

from aggregation.errors import ConnectionProblem, IntegrityProblem, UsageProblem

if TYPE_CHECKING:
    from collections.abc import Iterator


KEY_BYTES_MAX: Final = 1024
_SEGMENT: Final = re.compile(r"^[A-Za-z0-9_=@+,:-][A-Za-z0-9._=@+,:-]*$")


class ObjectNotFound(IntegrityProblem):  # the name callers read best at ``except``
    """FLV-4001: no object under this key. ``key`` names it."""

    def __init__(self, key: str, *, where: str = "") -> None:
        super().__init__(
            "FLV-4001",
            f"no object {key!r} in the store",
            where=where,
            hint="see whether the store is the right one with `fluvial config show --sources`",
        )
        self.key = key


class StoreUnavailable(ConnectionProblem):
    """FLV-4002: the store does not answer, or answers that it cannot serve now. Worth waiting for."""


class StoreRefused(ConnectionProblem):
    """FLV-4003: the store answers and does not let us in. Waiting does not help."""


class StoreFull(StoreUnavailable):
    """FLV-4004: the store has no room left. Worth waiting for, once somebody makes room."""


class ObjectStore(Protocol):
    """Bytes by key. Any method may raise StoreUnavailable, StoreFull, StoreRefused, UsageProblem FLV-4005."""

    def get(self, key: str, *, bytes_max: int | None = None) -> bytes:
        """The object's bytes. Raises ObjectNotFound; ObjectTooLarge before it holds more than it may have.

        That is what its kind may, and ``bytes_max`` where the caller knows better.
        """
        ...

    def put(self, key: str, data: bytes) -> None:
        """Store ``data`` in place of what is there: for content-addressed or derived objects.

        Readers see the old object or the new one, never a mixture.
        """
        ...

    def create(self, key: str, data: bytes) -> bool:
        """Store ``data`` if the key is free: True if this call did it, False if the key exists.

        After a StoreUnavailable the outcome is unknown: read the key back before concluding anything.
        """
        ...

    def exists(self, key: str) -> bool:
        """Whether there is an object under the key."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Every key that starts with ``prefix`` (it need not end at a slash), in ascending order."""
        ...

    def describe(self) -> str:
        """One line for humans, without secrets."""
        ...


def check_key(key: str) -> None:
    """Refuse a key that some store would bend: empty, hidden or dotted segments, odd characters, too long.

    Raises UsageProblem: FLV-4005.
    """
    segments = key.split("/")
    if len(key) > KEY_BYTES_MAX or not all(_SEGMENT.match(segment) for segment in segments):
        raise wrong_key(key, "segments of A-Z a-z 0-9 . _ = @ + , : - that do not start with a dot")


def check_prefix(prefix: str) -> None:
    """Refuse a prefix that no valid key could start with.

    Raises UsageProblem: FLV-4005.
    """
    *whole, rest = prefix.split("/")
    if len(prefix) > KEY_BYTES_MAX or not all(_SEGMENT.match(segment) for segment in whole):
        raise wrong_key(prefix, "the beginning of a key")
    if rest and not _SEGMENT.match(rest):
        raise wrong_key(prefix, "the beginning of a key")


def wrong_key(key: str, expected: str) -> UsageProblem:
    """FLV-4005, ready to raise."""
    return UsageProblem(
        "FLV-4005",
        f"object key {key[:80]!r}: expected {expected}, and at most {KEY_BYTES_MAX} bytes",
        hint="this is a defect if you did not choose the key yourself: please report it",
    )
