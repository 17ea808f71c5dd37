"""Failed rounds of a run's devices, as the fleet's journal has them: read while the run goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from producers.fleet.failures import FailedRound, FailedRounds
from producers.fleet.journal import failed_path

if TYPE_CHECKING:
    from pathlib import Path

    from fluvial.terminal.output import Reporter


class Setbacks:
    """Follows a fleet's file of failed rounds. ``look`` is cheap: call it as often as a screen is drawn."""

    def __init__(self, journal: Path, failed: FailedRounds, reporter: Reporter) -> None:
        """Count in ``failed``, and tell ``reporter`` the first of each kind."""
        self._path = failed_path(journal)
        self._failed = failed
        self._reporter = reporter
        # What stands there already is of a run before.
        self._read_bytes = self._path.stat().st_size if self._path.exists() else 0

    def look(self) -> None:
        """Take what is new; a line that is not whole yet is taken when it is."""
        try:
            if self._path.stat().st_size <= self._read_bytes:
                return
            with self._path.open("rb") as file:
                file.seek(self._read_bytes)
                data = file.read()
        except FileNotFoundError:
            return
        whole = data[: data.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        for line in whole.splitlines():
            try:
                failed = msgspec.json.decode(line, type=FailedRound)
            except msgspec.DecodeError:
                continue  # somebody else wrote it: this is a view, and no proof of anything
            if self._failed.add(failed):
                self._reporter.say(failed.told())
