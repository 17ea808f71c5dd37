"""Runs one Faust app in this process until SIGTERM or SIGINT: no web server, and our own logging."""

from __future__ import annotations

import logging.config
from typing import Any

import faust

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


def run(app: faust.App) -> int:
    """Run until told to stop; the exit code is 0 after SIGTERM or SIGINT, 5 after a crash of the app."""
    app.conf.web_enabled = False
    worker = faust.Worker(app, logging_config=LOGGING, quiet=True, redirect_stdouts=False)
    worker.spinner = None
    try:
        worker.execute_from_commandline()  # ends by SystemExit, always
    except SystemExit as stopped:
        return stopped.code if isinstance(stopped.code, int) else CRASHED


def configure_logging() -> None:
    """The same logging before the app runs: building it may already have to wait for an outage to end."""
    logging.config.dictConfig(LOGGING)
