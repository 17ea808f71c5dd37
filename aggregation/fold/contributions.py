"""Who has contributed to which live base version, and how many such pairs are remembered: each answer at once.

A device and a base version make one pair. Adding one, asking for one and knowing their number take no longer with ten
thousand live versions than with one; forgetting versions takes as long as there are versions to forget.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from collections.abc import Set as AbstractSet


class Contributions(Mapping[int, "AbstractSet[str]"]):
    """The devices that were counted, by base version; ``pairs`` is how many (device, base version) there are.

    A mapping to look at; it is changed by ``add`` and ``forget_before``. ``written`` is for whoever writes it down time
    and again: what that made of a version's devices, and of how many. Devices are only added, so it holds as long as
    their number does.
    """

    __slots__ = ("_by_version", "_fresh", "_oldest", "_ordered", "pairs", "written")

    def __init__(self, counted: Mapping[int, Iterable[str]] | None = None) -> None:
        self._by_version = {version: set(devices) for version, devices in (counted or {}).items()}
        self._fresh = {version: list(devices) for version, devices in self._by_version.items()}
        self._ordered: dict[int, list[str]] = {}
        self._oldest = min(self._by_version, default=0)
        self.pairs = sum(map(len, self._by_version.values()))
        self.written: dict[int, tuple[int, bytes]] = {}

    def add(self, version: int, device: str) -> None:
        """Count a device's contribution to a base version, once."""
        devices = self._by_version.setdefault(version, set())
        self._oldest = min(self._oldest, version)
        if device not in devices:
            devices.add(device)
            self._fresh.setdefault(version, []).append(device)
            self.pairs += 1

    def forget_before(self, oldest: int) -> None:
        """Forget the contributions to versions below ``oldest``."""
        if oldest - self._oldest > len(self._by_version):  # a floor may leap: go over what is there instead
            gone = [version for version in self._by_version if version < oldest]
        else:
            gone = list(range(self._oldest, oldest))
        for version in gone:
            self.pairs -= len(self._by_version.pop(version, ()))
            for derived in (self._fresh, self._ordered, self.written):
                derived.pop(version, None)
        self._oldest = max(self._oldest, oldest)

    def ordered(self, version: int) -> Sequence[str]:
        """A version's devices, ascending; those that came since it was asked last are sorted in."""
        devices, fresh = self._ordered.setdefault(version, []), self._fresh.pop(version, None)
        if fresh:
            devices += fresh
            devices.sort()  # nearly sorted already, which takes little more than a look at each
        return devices

    def copy(self) -> Mapping[int, AbstractSet[str]]:
        """Which versions have which devices, in one step for the interpreter; the sets are the same ones."""
        return self._by_version.copy()

    def __getitem__(self, version: int) -> AbstractSet[str]:
        return self._by_version[version]

    def __iter__(self) -> Iterator[int]:
        return iter(self._by_version)

    def __len__(self) -> int:
        return len(self._by_version)
