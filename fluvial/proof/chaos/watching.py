"""What is seen of a chaos run while it goes on, whatever breaks: verdicts, versions, what the fleet has published."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Self

from aggregation.errors import FluvialError
from fluvial.reading.progress import Follower, RunFacts
from producers.fleet.journal import attempts_path

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from backends.settings import Settings

FOLLOW_AGAIN_S: Final = 2.0


class Watch:
    """A ``Follower`` that is begun again whenever an outage ends it. A context manager."""

    def __init__(self, settings: Settings, task: str, partitions: Mapping[str, int]) -> None:
        self.facts = RunFacts()
        self._settings = settings
        self._task = task
        self._partitions = partitions
        self._follower: Follower | None = None
        self._again_at = 0.0

    def __enter__(self) -> Self:
        self.look()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def look(self) -> None:
        """Call it often: it begins to follow again when an outage has ended that."""
        if self._follower is None:
            if time.monotonic() >= self._again_at:
                self._follower = Follower(self._settings, self._task, self._partitions, self.facts)
                self._follower.__enter__()
            return
        try:
            self._follower.check()
        except FluvialError:
            # What it has missed stands in the topics: it is read again from their beginning.
            self._end()
            self._again_at = time.monotonic() + FOLLOW_AGAIN_S

    def _end(self) -> None:
        if self._follower is not None:
            self._follower.__exit__(None, None, None)
            self._follower = None


class Tally:
    """Counts the lines of the fleet's journal and attempts as they grow, without reading them twice."""

    def __init__(self, journal: Path) -> None:
        self._paths = {"acknowledged": journal, "attempts": attempts_path(journal)}
        self._at = dict.fromkeys(self._paths, 0)
        self._lines = dict.fromkeys(self._paths, 0)
        self._invoked = 0

    def look(self) -> tuple[int, int]:
        """(published, acknowledged): appends begun, appends acknowledged."""
        for name, path in self._paths.items():
            try:
                with path.open("rb") as file:
                    file.seek(self._at[name])
                    data = file.read()
            except FileNotFoundError:
                continue
            whole = data[: data.rfind(b"\n") + 1]
            self._at[name] += len(whole)
            self._lines[name] += whole.count(b"\n")
            if name == "attempts":
                self._invoked += whole.count(b'"outcome":"invoke"')
        return self._invoked, self._lines["acknowledged"]
