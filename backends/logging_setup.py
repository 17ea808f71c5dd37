"""Logs of the long-running processes: lines for people, or one JSON object a line with fields.

What a line may have beside its message is listed in ``FIELDS``: where in the log something happened, in which process.
A record's key, a device's id or a payload are not in the list, so no call can put one there by ``extra=``.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
from typing import Any, Final, Literal

from aggregation.errors import FluvialError
from backends.logging_bounds import BoundedStream
from backends.shown import printable

LogFormat = Literal["human", "json"]

FIELDS: Final = (
    "task",
    "role",
    "process",
    "region",
    "partition",
    "offset",
    "version",
    "sequence",
    "error_id",
)

_process: dict[str, str] = {}


def describe_process(*, task: str, role: str, process: str, region: str = "") -> None:
    """What every JSON line from now on says about this process."""
    named = {"task": task, "role": role, "process": process, "region": region}
    _process.clear()
    _process.update({name: value for name, value in named.items() if value})


class LineFormatter(logging.Formatter):
    """Lines for people. An error with an id comes first and stands for itself; a defect shows where it happened.

    What others wrote is shown, not obeyed.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname).1s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The lines."""
        raised = record.exc_info[1] if record.exc_info else None
        if not isinstance(raised, FluvialError):
            return printable(super().format(record))
        said = record.getMessage().partition("\n")[0]
        quiet = {
            **record.__dict__,
            "msg": f"{raised}\n  ({said})",
            "args": (),
            "exc_info": None,
            "exc_text": None,
        }
        return printable(super().format(logging.makeLogRecord(quiet)))


class JsonFormatter(logging.Formatter):
    """One JSON object a line: timestamp (UTC), level, logger, message, what is known of ``FIELDS``, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        when = dt.datetime.fromtimestamp(record.created, dt.UTC)
        document: dict[str, Any] = {
            "timestamp": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_process,
            **{name: getattr(record, name) for name in FIELDS if name != "process" and hasattr(record, name)},
        }  # every record has a ``process`` of the library's own: a number
        problem = _problem(record)
        if problem is not None:
            document["error_id"] = problem.error_id
        if record.exc_info and record.exc_info[0] is not None:
            document["exception"] = self.formatException(record.exc_info)
        return json.dumps(document, default=str)


def _problem(record: logging.LogRecord) -> FluvialError | None:
    raised = record.exc_info[1] if record.exc_info else None
    arguments = record.args if isinstance(record.args, tuple) else ()
    return next((one for one in (raised, *arguments) if isinstance(one, FluvialError)), None)


def logging_config(log_format: LogFormat) -> dict[str, Any]:
    """What ``logging.config.dictConfig`` takes. JSON has a line for each published window, too (level debug)."""
    formatter = LineFormatter if log_format == "human" else JsonFormatter
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": formatter}},
        "handlers": {"stderr": {"()": BoundedStream, "formatter": "line", "stream": "ext://sys.stderr"}},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {
            "fluvial": {"level": "INFO" if log_format == "human" else "DEBUG"},
            # A rebalance or a broker that is starting makes these warn about what they then do: reconnect.
            "aiokafka": {"level": "ERROR"},
        },
    }


def human_lines(text: str) -> list[str]:
    """The lines of a log in whichever format, as people read them: a JSON line becomes its message and exception."""
    lines: list[str] = []
    for line in text.splitlines():
        try:
            document = json.loads(line) if line.startswith("{") else None
        except ValueError:
            document = None
        if isinstance(document, dict) and isinstance(document.get("message"), str):
            lines += document["message"].splitlines()
            lines += str(document.get("exception", "")).splitlines()
        else:
            lines.append(line)
    return lines
