"""An in-memory object store that keeps the two promises of ``backends.object_store`` and nothing more.

A request may be lost before it has an effect; its answer may be lost after; a repeated request may arrive long after
its caller has gone on; a read may return damaged bytes, once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from backends.object_limits import ObjectTooLarge
from backends.object_store import ObjectNotFound, StoreFull, StoreUnavailable
from tests.simulation.scheduler import Process, VirtualLoop

SLOW_ANSWERS = 0.3
"""Of all answers: the others come in the same moment as their effect, which is no other schedule and costs less."""


@dataclass
class StoreFaults:
    """Probabilities, for each call."""

    refused: float = 0.0
    answer_lost: float = 0.0
    repeated: float = 0.0
    damaged: float = 0.0
    away: bool = False
    full: bool = False


@dataclass
class MemoryObjects:
    """The store's content, and every value that a key ever had."""

    loop: VirtualLoop
    faults: StoreFaults = field(default_factory=StoreFaults)
    objects: dict[str, bytes] = field(default_factory=dict)
    history: dict[str, list[bytes]] = field(default_factory=dict)

    def write(self, key: str, data: bytes) -> None:
        """Atomic, as the contract demands."""
        self.objects[key] = data
        values = self.history.setdefault(key, [])
        if not values or values[-1] != data:
            values.append(data)


class MemoryStore:
    """``ObjectStore`` as one process reaches it."""

    def __init__(self, process: Process, objects: MemoryObjects) -> None:
        self._process = process
        self._objects = objects

    def get(self, key: str, *, bytes_max: int | None = None) -> bytes:
        self._ask("get", key)
        try:
            data = self._objects.objects[key]
        except KeyError:
            raise ObjectNotFound(key) from None
        if bytes_max is not None and len(data) > bytes_max:
            raise ObjectTooLarge(key, bytes_max)
        if self._process.rng.random() < self._objects.faults.damaged:
            at = self._process.rng.randrange(len(data))
            self._process.trace(self._process.name, "damaged read", key)
            data = data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]
        self._answer()
        return data

    def put(self, key: str, data: bytes) -> None:
        self._ask("put", key, writes=True)
        self._objects.write(key, data)
        self._repeat(lambda: self._objects.write(key, data))
        self._answer()

    def create(self, key: str, data: bytes) -> bool:
        self._ask("create", key, writes=True)
        made = key not in self._objects.objects
        if made:
            self._objects.write(key, data)
        self._answer()
        return made

    def exists(self, key: str) -> bool:
        self._ask("exists", key)
        found = key in self._objects.objects
        self._answer()
        return found

    def list(self, prefix: str) -> Iterator[str]:
        self._ask("list", prefix)
        yield from sorted(key for key in self._objects.objects if key.startswith(prefix))

    def describe(self) -> str:
        return "the simulated store"

    def _ask(self, what: str, key: str, *, writes: bool = False) -> None:
        self._process.effect(what)
        self._process.trace(self._process.name, what, key)
        faults = self._objects.faults
        if faults.away or self._process.rng.random() < faults.refused:
            raise StoreUnavailable("FLV-4002", "the store does not answer")
        if writes and faults.full:
            raise StoreFull("FLV-4004", "the store has no room left")

    def _answer(self) -> None:
        self._process.effect("answer", slow=self._process.rng.random() < SLOW_ANSWERS)
        if self._objects.faults.away or self._process.rng.random() < self._objects.faults.answer_lost:
            raise StoreUnavailable("FLV-4002", "the answer was lost")

    def _repeat(self, write: Callable[[], object]) -> None:
        """A request that the network had kept back arrives a second time, whoever is alive then."""
        if self._process.rng.random() < self._objects.faults.repeated:
            self._objects.loop.later(self._process.rng.random() * 5.0, write)
