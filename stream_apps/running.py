"""Runs one Faust app in this process until SIGTERM or SIGINT: no web server, our own logging, and a bounded end.

An app that is told to stop, or that has crashed, leaves its group and ends. Whatever it still waits for then, such as
an outage to end, is cut off after ``STOP_S_MAX``, and by a second signal at once: safe, because its state is a pure
function of the log.
"""

from __future__ import annotations

import logging
import logging.config
import os
import signal
import threading
from typing import Final

import faust

from aggregation.errors import FluvialError
from backends.environment import log_format_asked
from backends.logging_setup import logging_config
from backends.observer import UNOBSERVED, Observer

STOP_S_MAX: Final = 8.0
BEAT_EVERY_S: Final = 1.0

log = logging.getLogger("fluvial")

CRASHED: Final = 5


class BoundedWorker(faust.Worker):
    """Faust's worker, whose end does not wait for ever, and is told as soon as it begins."""

    observer: Observer = UNOBSERVED

    def _schedule_shutdown(self, signal: signal.Signals) -> None:
        if self._signal_stop_time:
            _exit_at_once()
        self.observer.ending()  # Faust itself tells of it once its consumer has stopped, which takes seconds
        _end_within(STOP_S_MAX, 0)
        super()._schedule_shutdown(signal)

    def on_worker_shutdown(self) -> None:
        """Faust is about to stop everything; after a crash nobody has bounded that yet."""
        if self.crash_reason is not None:
            _end_within(STOP_S_MAX, _exit_code(self.crash_reason))


def _end_within(seconds: float, code: int) -> None:
    timer = threading.Timer(seconds, _cut_off, (code,))
    timer.daemon = True
    timer.start()


def _cut_off(code: int) -> None:
    log.warning("stopped without waiting any longer: what was under way is in the log, and is done again")
    os._exit(code)


def _exit_at_once(*_: object) -> None:
    os._exit(0)


def _exit_code(crash: BaseException | None) -> int:
    return crash.exit_code if isinstance(crash, FluvialError) else CRASHED


def run(app: faust.App, observer: Observer = UNOBSERVED) -> int:
    """Run until told to stop, and tell the observer so at once; the exit code is 0 after SIGTERM or SIGINT.

    After a crash it is that of the problem where we know it (4: something has to be changed first), else 5.
    """
    app.conf.web_enabled = False
    worker = BoundedWorker(
        app, logging_config=logging_config(log_format_asked()), quiet=True, redirect_stdouts=False
    )
    worker.spinner = None
    worker.observer = observer
    try:
        worker.execute_from_commandline()  # ends by SystemExit, always
    except SystemExit as stopped:
        # Faust's own code of a crash is 1, which means a finding here.
        return _exit_code(worker.crash_reason) if stopped.code else 0


def say_stop(to: logging.Logger, text: str, version: int, error: Exception) -> None:
    """Say that a process stops, and why: ``text`` takes the version and the error.

    An error that is none of ours is a defect, and comes with its traceback.
    """
    known = isinstance(error, FluvialError)
    to.error(text, version, error, exc_info=None if known else error, extra={"version": version})


def tell(app: faust.App, observer: Observer) -> None:
    """Let the observer know that the app's loop turns, and when it ends, as after a crash."""

    @app.timer(interval=BEAT_EVERY_S, name="beat")
    async def beat() -> None:
        observer.beat()

    async def ending(*_: object, **__: object) -> None:
        observer.ending()

    app.on_before_shutdown.connect(ending)


def configure_logging() -> None:
    """The same logging before the app runs: building it may already have to wait for an outage to end.

    SIGTERM ends that wait with exit code 0, too: nothing has begun yet. UsageProblem FLV-1002: no such format.
    """
    logging.config.dictConfig(logging_config(log_format_asked()))
    signal.signal(signal.SIGTERM, _exit_at_once)
