"""What the processes of a task have written to their logs on this machine, merged by time, and followed."""

from __future__ import annotations

import re
import time
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from aggregation.errors import UsageProblem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

POLL_S: Final = 0.25
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.,]\d{3}")
_JSON_TIME: Final = re.compile(r'"(?:time|timestamp|at)": ?"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.,]\d{3})')


class LogLine(NamedTuple):
    """One line of one process; ``at`` is its time as a text that sorts, that of the line before where it has none."""

    at: str
    process: str
    text: str


def log_files(home: Path, task: str, processes: Sequence[str]) -> dict[str, Path]:
    """The log of each process by name, only of ``processes`` where some are named.

    UsageProblem: FLV-6326, there is none, or none of that name.
    """
    folder = home / "logs" / task
    found = {path.stem: path for path in sorted(folder.glob("*.log"))}
    unknown = [name for name in processes if name not in found]
    if unknown or not found:
        known = f"there are {', '.join(found)}" if found else "no process of it has written one here"
        raise UsageProblem(
            "FLV-6326",
            f"no log of {', '.join(unknown) or task}: {known}",
            where=str(folder),
            hint="`fluvial run` and `fluvial demo` write logs; one that was started by hand has its terminal",
        )
    return {name: path for name, path in found.items() if not processes or name in processes}


class LogTail:
    """The end of several logs, and then what is written to them."""

    def __init__(self, files: dict[str, Path]) -> None:
        self._files = files
        self._read_to = dict.fromkeys(files, 0)
        self._begun = dict.fromkeys(files, "")
        self._at = dict.fromkeys(files, "")

    def last(self, lines: int) -> list[LogLine]:
        """The newest ``lines`` of all together, ascending in time; what was read is not read again."""
        newest: deque[LogLine] = deque(maxlen=lines)
        per_file = [deque(self._new(name), maxlen=lines) for name in self._files]
        newest.extend(sorted((line for one in per_file for line in one), key=lambda line: line.at))
        return list(newest)

    def follow(self) -> Iterator[LogLine | None]:
        """What comes, for ever; None where nothing has come for a moment."""
        while True:
            fresh = sorted(
                (line for name in self._files for line in self._new(name)), key=lambda line: line.at
            )
            yield from fresh
            if not fresh:
                time.sleep(POLL_S)
                yield None

    def _new(self, process: str) -> Iterator[LogLine]:
        """Whole lines that were not read yet. A log that got shorter was begun anew."""
        path = self._files[process]
        try:
            if path.stat().st_size < self._read_to[process]:
                self._read_to[process], self._begun[process] = 0, ""
            with path.open("rb") as file:
                file.seek(self._read_to[process])
                data = file.read()
        except FileNotFoundError:
            return
        self._read_to[process] += len(data)
        *whole, self._begun[process] = (self._begun[process] + data.decode("utf-8", "replace")).split("\n")
        for text in whole:
            found = _TIME.match(text)
            stamp = found[0] if found else (json_time[1] if (json_time := _JSON_TIME.search(text)) else "")
            self._at[process] = stamp.replace("T", " ").replace(".", ",") or self._at[process]
            yield LogLine(self._at[process], process, text)
