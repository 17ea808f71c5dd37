"""What a fleet has published, as the broker acknowledged it: one JSON line a record, to hold it to account."""

from __future__ import annotations

from collections import Counter
from typing import IO, TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self


class Entry(msgspec.Struct, frozen=True):
    """One acknowledged record: ``region``, ``partition`` and ``offset`` say where it stands.

    ``sent`` and ``time`` (of the acknowledgement) are seconds since 1970 UTC by the fleet's clock.
    """

    time: float
    sent: float
    device: str
    region: str
    partition: int
    offset: int
    behaviour: str
    base_version: int
    update_id: str


class Journal:
    """Counts acknowledged records and, with a path, appends each to a file, unbuffered."""

    def __init__(self, path: Path | None) -> None:
        self.published: Counter[str] = Counter()
        self._file: IO[bytes] | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def total(self) -> int:
        """Records acknowledged."""
        return self.published.total()

    def acknowledged(self, entry: Entry) -> None:
        """Take down one record."""
        self.published[entry.behaviour] += 1
        if self._file is not None:
            self._file.write(msgspec.json.encode(entry) + b"\n")


def read_journal(path: Path) -> list[Entry]:
    """The entries of a journal, in the order of acknowledgement."""
    return [msgspec.json.decode(line, type=Entry) for line in path.read_bytes().splitlines()]
