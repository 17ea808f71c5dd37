"""How late a partition is, in seconds, from samples of where its log ended when.

As kafka-lag-exporter does: the time at which the log ended where the fold stands now is looked up, and interpolated,
in a bounded table of (log end offset, time). Before the table's first sample the fold's own last record says it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from aggregation.errors import FluvialError
from aggregation.server.aggregates import Slot
from backends.log import RecordReader

SAMPLES_MAX: Final = 240
POLL_S: Final = 3.0
LATE_S_MIN: Final = 0.001
"""What is in the log and not folded is late, if by less than a clock can tell."""

log = logging.getLogger("fluvial")


class LagTable:
    """One partition's samples, oldest first; while the log does not grow, only its newest time moves."""

    def __init__(self) -> None:
        self._samples: deque[tuple[int, float]] = deque(maxlen=SAMPLES_MAX)
        self.end = 0

    def add(self, end: int, now_s: float) -> None:
        """The log ended at ``end``; a shorter log than before is another one."""
        if end < self.end:
            self._samples.clear()
        self.end = end
        if len(self._samples) > 1 and self._samples[-1][0] == self._samples[-2][0] == end:
            self._samples[-1] = (end, now_s)
        else:
            self._samples.append((end, now_s))

    def lag(self, next_offset: int, now_s: float, folded_at_s: float | None = None) -> tuple[int, float]:
        """(records, seconds) not folded; ``folded_at_s`` is the LogAppendTime of the last record that was."""
        records = max(0, self.end - next_offset)
        if records == 0:
            return 0, 0.0
        return records, max(LATE_S_MIN, now_s - self._time_of(next_offset, folded_at_s))

    def _time_of(self, offset: int, folded_at_s: float | None) -> float:
        """About when the record at ``offset`` was appended: after the last sample that ends at or before it."""
        before: tuple[int, float] | None = None
        for end, at_s in self._samples:
            if end > offset:
                if before is None:
                    return at_s if folded_at_s is None else min(at_s, folded_at_s)
                share = (offset - before[0]) / (end - before[0])
                return before[1] + share * (at_s - before[1])
            before = (end, at_s)
        raise AssertionError(offset)  # the newest sample is the end, and the caller knows that it is beyond


class LagPoller:
    """Samples the ends of a worker's partitions every few seconds, on a thread and over a reader of its own."""

    def __init__(
        self,
        open_reader: Callable[[], RecordReader],
        slots: Callable[[], Iterable[Slot]],
        topic: Callable[[str], str],
        sampled: Callable[[Slot, int, float], None],
        *,
        poll_s: float = POLL_S,
    ) -> None:
        self._open_reader = open_reader
        self._slots = slots
        self._topic = topic
        self._sampled = sampled
        self._poll_s = poll_s
        self._away = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lag", daemon=True)

    def start(self) -> None:
        """Begin to sample."""
        self._thread.start()

    def stop(self) -> None:
        """End it; a request that is under way ends by itself, in a thread that holds nobody up."""
        self._ended.set()
        self._thread.join(timeout=1.0)

    def _run(self) -> None:
        with self._open_reader() as reader:
            while not self._ended.wait(self._poll_s):
                self._sample(reader)

    def _sample(self, reader: RecordReader) -> None:
        try:
            for region, partition in tuple(self._slots()):
                if self._ended.is_set():
                    return
                end = reader.bounds(self._topic(region), partition)[1]
                self._sampled((region, partition), end, time.time())
        except FluvialError as error:
            if not self._away:
                log.warning("lag is not measured until the broker answers again: %s", error.message)
            self._away = True
        else:
            self._away = False
