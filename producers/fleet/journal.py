"""What a fleet has published, to hold it to account: acknowledged records, and what it has tried.

The journal has one JSON line for each record that the broker acknowledged. Beside it lies ``<name>.attempts.jsonl``:
a line before every append (``invoke``) and one when its outcome is known, as histories of distributed systems are
written. An attempt without an outcome, because the fleet was killed or its patience ended, may stand in the log or not.
``<name>.failed.jsonl`` has a line for each round that failed before there was anything to append.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections import Counter
from typing import IO, TYPE_CHECKING, Literal

import msgspec

from producers.fleet.failures import FailedRound

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

Outcome = Literal["invoke", "ok", "fail", "unknown"]


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


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step of an append; ``id`` is the same in its ``invoke`` and in its outcome.

    ``ok``: acknowledged. ``fail``: refused, it stands in no log. ``unknown``: nobody answered, it may stand there.
    ``time`` is seconds since 1970 UTC by the fleet's clock; ``partition`` and ``offset`` are -1 where unknown.
    """

    time: float
    id: str
    outcome: Outcome
    device: str = ""
    region: str = ""
    behaviour: str = ""
    update_id: str = ""
    partition: int = -1
    offset: int = -1
    reason: str = ""


class Journal:
    """Counts acknowledged records and, with a path, appends each to a file, unbuffered."""

    def __init__(self, path: Path | None) -> None:
        self.published: Counter[str] = Counter()
        self._run = uuid.uuid4().hex[:8]
        self._attempts = 0
        self._file: IO[bytes] | None = None
        self._attempts_file: IO[bytes] | None = None
        self._failed_file: IO[bytes] | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _open_for_lines(path)
            self._attempts_file = _open_for_lines(attempts_path(path))
            self._failed_file = _open_for_lines(failed_path(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        for file in (self._file, self._attempts_file, self._failed_file):
            if file is not None:
                file.close()

    @property
    def total(self) -> int:
        """Records acknowledged."""
        return self.published.total()

    def acknowledged(self, entry: Entry) -> None:
        """Take down one record."""
        self.published[entry.behaviour] += 1
        if self._file is not None:
            self._file.write(msgspec.json.encode(entry) + b"\n")

    def failed(self, failed: FailedRound) -> None:
        """Take down a round that failed."""
        if self._failed_file is not None:
            self._failed_file.write(msgspec.json.encode(failed) + b"\n")

    def invoked(self, *, device: str, region: str, behaviour: str, update_id: str) -> str:
        """Take down that a record is about to be appended; the attempt's id, for ``answered``."""
        self._attempts += 1
        attempt_id = f"{self._run}-{self._attempts}"
        self._note(
            Attempt(
                time=time.time(),
                id=attempt_id,
                outcome="invoke",
                device=device,
                region=region,
                behaviour=behaviour,
                update_id=update_id,
            )
        )
        return attempt_id

    def answered(
        self, attempt_id: str, outcome: Outcome, *, partition: int = -1, offset: int = -1, reason: str = ""
    ) -> None:
        """Take down what came of an attempt."""
        self._note(
            Attempt(
                time=time.time(),
                id=attempt_id,
                outcome=outcome,
                partition=partition,
                offset=offset,
                reason=reason,
            )
        )

    def _note(self, attempt: Attempt) -> None:
        if self._attempts_file is not None:
            self._attempts_file.write(msgspec.json.encode(attempt) + b"\n")


def attempts_path(journal: Path) -> Path:
    """Where the attempts beside a journal are."""
    return journal.with_suffix(".attempts.jsonl")


def failed_path(journal: Path) -> Path:
    """Where the failed rounds beside a journal are."""
    return journal.with_suffix(".failed.jsonl")


def read_journal(path: Path) -> list[Entry]:
    """The entries of a journal, in the order of acknowledgement. A last line that a crash cut off is left out."""
    return [msgspec.json.decode(line, type=Entry) for line in _whole_lines(path)]


def read_attempts(journal: Path) -> list[Attempt]:
    """The attempts beside a journal, in their order; none when there is no such file."""
    path = attempts_path(journal)
    return [msgspec.json.decode(line, type=Attempt) for line in _whole_lines(path)] if path.exists() else []


def _open_for_lines(path: Path) -> IO[bytes]:
    """Open to append; a line that a crash has cut off is removed, so that the next one is whole."""
    file = path.open("ab+", buffering=0)
    file.seek(0)
    data = file.read()
    file.truncate(data.rfind(b"\n") + 1)
    return file


def _whole_lines(path: Path) -> list[bytes]:
    return [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def newest_bases(path: Path | None) -> dict[str, int]:
    """By device the newest version that an earlier fleet published on, as its journal says; empty without one.

    A line that a crash cut off counts as none: the device then repeats an update, which is refused as a duplicate.
    """
    found: dict[str, int] = {}
    if path is None or not path.is_file():
        return found
    for line in path.read_bytes().splitlines():
        with contextlib.suppress(msgspec.DecodeError):
            entry = msgspec.json.decode(line, type=Entry)
            found[entry.device] = max(entry.base_version, found.get(entry.device, -1))
    return found
