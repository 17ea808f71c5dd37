"""How often a log says one thing: a library that repeats itself while Kafka is away gets a line every few seconds.

aiokafka tells every attempt of every part of it, some eighty lines a second. Here one line of it passes at a time, each
kind at most once a minute, and it says how many were left out since when. Our own lines all pass, but for those about
waiting, of which many parts may have the same to say.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Any, Final

GAP_S: Final = 3.0
"""Between two lines of one library, and between two of ours about waiting."""
KIND_EVERY_S: Final = 60.0
_KINDS_MAX: Final = 1000
_OURS: Final = "fluvial"
_WAITING: Final = "waiting "


@dataclass
class _Said:
    """What was said of one library, or of waiting. Times are seconds since 1970, as a record's ``created``."""

    last_s: float = float("-inf")
    by_kind_s: dict[str, float] = field(default_factory=dict)
    left_out: int = 0
    first_left_out_s: float = 0.0
    last_left_out_s: float = 0.0

    def takes(self, record: logging.LogRecord, kind_every_s: float) -> bool:
        """Whether the record may pass; counts it where it may not."""
        now_s, kind = record.created, str(record.msg)
        if now_s < self.last_s:  # the clock was set back
            self.last_s = float("-inf")
            self.by_kind_s.clear()
        due = now_s - self.by_kind_s.get(kind, float("-inf")) >= kind_every_s
        if due and now_s - self.last_s >= GAP_S:
            if len(self.by_kind_s) >= _KINDS_MAX:
                self.by_kind_s.clear()
            self.last_s = self.by_kind_s[kind] = now_s
            return True
        if not self.left_out:
            self.first_left_out_s = now_s
        self.left_out += 1
        self.last_left_out_s = now_s
        return False

    def count(self) -> str:
        """How many were left out since the last time that this was asked; "" for none."""
        if not self.left_out:
            return ""
        since = time.strftime("%H:%M:%S", time.localtime(self.first_left_out_s))
        text = f"{self.left_out} more line{'s' if self.left_out > 1 else ''} since {since}"
        self.left_out = 0
        return text


class BoundedStream(logging.StreamHandler[Any]):
    """A handler to a stream that bounds what one source may say. Called under the handler's own lock."""

    def __init__(self, stream: Any = None) -> None:
        super().__init__(stream)
        self._sources: dict[str, _Said] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write it, or count it; and first tell of a source that has become quiet how much of it was left out."""
        source, kind_every_s = _source_of(record)
        for name, said in self._sources.items():
            if name != source and said.left_out and record.created - said.last_left_out_s >= GAP_S:
                quiet = {"name": name, "levelno": logging.WARNING, "levelname": "WARNING"}
                super().emit(logging.makeLogRecord({**quiet, "msg": f"left out: {said.count()}"}))
        if source:
            said = self._sources.setdefault(source, _Said())
            if not said.takes(record, kind_every_s):
                return
            if count := said.count():
                record = logging.makeLogRecord(
                    {**record.__dict__, "msg": f"{record.getMessage()} ({count})", "args": ()}
                )
        super().emit(record)


def _source_of(record: logging.LogRecord) -> tuple[str, float]:
    """What is bounded together, and how long one kind of it rests; "" for what always passes."""
    library = record.name.partition(".")[0]
    if library != _OURS:
        return (library, KIND_EVERY_S)
    return (f"{_OURS} waiting", GAP_S) if str(record.msg).startswith(_WAITING) else ("", 0.0)
