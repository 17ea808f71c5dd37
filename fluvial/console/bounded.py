"""Two small containers that never grow past their bound."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

K = TypeVar("K")
V = TypeVar("V")


class Newest(Generic[K, V]):
    """A mapping of at most ``entries_max``: the one set least recently is forgotten, and counted."""

    def __init__(self, entries_max: int) -> None:
        self._entries_max = entries_max
        self._entries: OrderedDict[K, V] = OrderedDict()
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[K]:
        return iter(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def get(self, key: K) -> V | None:
        """What is there; None where nothing is."""
        return self._entries.get(key)

    def put(self, key: K, value: V) -> None:
        """Set it, as the newest."""
        self._entries[key] = value
        self._entries.move_to_end(key)
        while len(self._entries) > self._entries_max:
            self._entries.popitem(last=False)
            self.forgotten += 1

    def pop(self, key: K) -> V | None:
        """Take it out; None where nothing is."""
        return self._entries.pop(key, None)

    def items(self) -> list[tuple[K, V]]:
        """A copy, the newest last."""
        return list(self._entries.items())


class Bins:
    """Counts by time: accepted and refused in steps of some seconds, as far back as was said."""

    def __init__(self, seconds: int, step_seconds: int) -> None:
        self.seconds = seconds
        self.step_ms = step_seconds * 1000
        self._kept = seconds // step_seconds + 2
        self._bins: OrderedDict[int, list[int]] = OrderedDict()

    def add(self, at_ms: int, *, accepted: bool) -> None:
        """Count one; what is older than all that is kept counts nowhere."""
        step = at_ms // self.step_ms
        found = self._bins.get(step)
        if found is None:
            if len(self._bins) >= self._kept and step < min(self._bins):
                return
            found = self._bins[step] = [0, 0]
            while len(self._bins) > self._kept:
                del self._bins[min(self._bins)]
        found[0 if accepted else 1] += 1

    def sums(self, now_ms: int, seconds: int) -> tuple[int, int]:
        """(accepted, refused) in the last ``seconds``."""
        newest = now_ms // self.step_ms
        oldest = newest - seconds * 1000 // self.step_ms
        accepted = refused = 0
        for step, (yes, no) in self._bins.items():
            if oldest < step <= newest:
                accepted += yes
                refused += no
        return accepted, refused

    def series(self, now_ms: int) -> tuple[list[float], list[float], int]:
        """(accepted a second, refused a second, end of the last whole step in ms), oldest first."""
        end = now_ms // self.step_ms
        steps = range(end - self.seconds * 1000 // self.step_ms, end)
        rows = [self._bins.get(step, (0, 0)) for step in steps]
        seconds = self.step_ms / 1000
        return [row[0] / seconds for row in rows], [row[1] / seconds for row in rows], end * self.step_ms
