"""The console of a run: a child process whose address is told, and whose failure is told too and fails nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Self

from aggregation.errors import FluvialError
from fluvial.console.limits import PORT
from fluvial.processes.supervisor import Supervisor

if TYPE_CHECKING:
    from pathlib import Path

    from fluvial.terminal.output import Reporter

NAME: Final = "console"
_ADDRESS: Final = re.compile(r"console: (https?://\S+)")
_TAKEN: Final = re.compile(r"port \d+ is taken[^\n]*")


class ConsoleChild:
    """``fluvial console`` on a task while a context lasts. It is a view: a run goes on without it."""

    def __init__(self, home: Path, log_folder: Path, task: str, reporter: Reporter) -> None:
        """Its log is ``log_folder/console.log``."""
        self._supervisor = Supervisor(home, log_folder, reporter)
        self._log = log_folder / f"{NAME}.log"
        self._task = task
        self._reporter = reporter
        self._failed = False
        self.address = ""

    def __enter__(self) -> Self:
        self._supervisor.start(NAME, ["console", "--task", self._task, "--port", str(PORT), "--any-port"])
        return self

    def __exit__(self, *_: object) -> None:
        self._supervisor.stop_all()

    def check(self) -> None:
        """Say its address once it is known, start it again when it died, give up on it when it does not stay up."""
        if self._failed:
            return
        if not self.address:
            self._tell()
        try:
            self._supervisor.check()
        except FluvialError as error:
            self._failed = True
            self._reporter.say(f"the console does not run; the run goes on without it: {error.message}")

    def _tell(self) -> None:
        text = self._log.read_text(errors="replace") if self._log.is_file() else ""
        found = _ADDRESS.search(text)
        if found is None:
            return
        self.address = found[1]
        taken = _TAKEN.search(text)
        if taken is not None:
            self._reporter.say(taken[0])
        self._reporter.say(f"watch it live: {self.address}")
