"""Runs one Faust app in this process until SIGTERM or SIGINT: no web server, our own logging, and a bounded end.

An app that is told to stop leaves its group and ends. Whatever it still waits for then, such as an outage to end, is
cut off after ``STOP_S_MAX``, and by a second signal at once: safe, because its state is a pure function of the log.
"""

from __future__ import annotations

import logging
import logging.config
import os
import signal
import threading
from typing import Any

import faust

STOP_S_MAX = 8.0

log = logging.getLogger("fluvial")

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname).1s %(name)s: %(message)s"}},
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"}
    },
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {
        "fluvial": {"level": "INFO"},
        # A rebalance or a broker that is starting makes these warn about what they then do: reconnect.
        "aiokafka": {"level": "ERROR"},
    },
}


CRASHED = 5


class BoundedWorker(faust.Worker):
    """Faust's worker, whose end does not wait for ever."""

    def _schedule_shutdown(self, signal: signal.Signals) -> None:
        if self._signal_stop_time:
            _exit_at_once()
        timer = threading.Timer(STOP_S_MAX, _cut_off)
        timer.daemon = True
        timer.start()
        super()._schedule_shutdown(signal)


def _cut_off() -> None:
    log.warning("stopped without waiting any longer: what was under way is in the log, and is done again")
    _exit_at_once()


def _exit_at_once(*_: object) -> None:
    os._exit(0)


def run(app: faust.App) -> int:
    """Run until told to stop; the exit code is 0 after SIGTERM or SIGINT, 5 after a crash of the app."""
    app.conf.web_enabled = False
    worker = BoundedWorker(app, logging_config=LOGGING, quiet=True, redirect_stdouts=False)
    worker.spinner = None
    try:
        worker.execute_from_commandline()  # ends by SystemExit, always
    except SystemExit as stopped:
        return CRASHED if stopped.code else 0  # Faust's own code of a crash is 1, which means a finding here


def configure_logging() -> None:
    """The same logging before the app runs: building it may already have to wait for an outage to end.

    SIGTERM ends that wait with exit code 0, too: nothing has begun yet.
    """
    logging.config.dictConfig(LOGGING)
    signal.signal(signal.SIGTERM, _exit_at_once)
