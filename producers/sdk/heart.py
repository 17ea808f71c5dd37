"""A device's heartbeats: it says now and then that it is there, to whoever asks for the task's devices."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Final

from aggregation.errors import FluvialError
from backends.kafka.writing import LogWriter
from schemas.heartbeats import REASON_CHARACTERS_MAX, Heartbeat, State, seal_heartbeat
from schemas.topics import heartbeats_topic

if TYPE_CHECKING:
    from concurrent.futures import Future

    from backends.clock import Clock
    from backends.log import Position, RecordWriter
    from backends.settings import Settings
    from producers.sdk.updates import Author

HEARTBEAT_S_MIN: Final = 1.0
"""No device beats more often, whatever it is told; but a change of what it does is said at once."""
STOP_S: Final = 5.0

log = logging.getLogger("fluvial.device")


class Heart:
    """Beats for one device, at most every ``every_s`` seconds while it does the same; 0 or less: never.

    The task has to have a topic of heartbeats (``fluvial task create --heartbeats``). A heartbeat that does not arrive
    is a warning, once, and costs the device nothing else.
    """

    def __init__(self, author: Author, writer: RecordWriter, clock: Clock, every_s: float) -> None:
        self._author = author
        self._writer = writer
        self._clock = clock
        self._every_s = max(every_s, HEARTBEAT_S_MIN) if every_s > 0.0 else math.inf
        self._beaten_at = -math.inf
        self._said: tuple[State, int, str] | None = None
        self._warned = False

    @classmethod
    def of(cls, settings: Settings, author: Author, clock: Clock, every_s: float) -> Heart:
        """With a producer of its own: updates wait for no heartbeat, and bear no refusal of one."""
        return cls(author, LogWriter(settings, f"fluvial-heart-{author.device_id}"), clock, every_s)

    def stop(self) -> None:
        """Let the last heartbeat arrive, for ``STOP_S`` at most."""
        if self._said is None:
            return
        try:
            self._writer.flush(STOP_S)
        except FluvialError as error:
            self._warn(error)

    def beat(self, state: State, base_version: int, reason: str = "") -> bool:
        """Say what the device does, unless it was said of late; whether it was said now."""
        now_s, said = self._clock.monotonic(), (state, base_version, reason)
        if self._every_s == math.inf or (said == self._said and now_s - self._beaten_at < self._every_s):
            return False
        self._said, self._beaten_at = said, now_s
        author = self._author
        beat = Heartbeat(
            task=author.genesis.task,
            region=author.region,
            device_id=author.device_id,
            sent_ms=max(0, round(self._clock.time() * 1000)),
            base_version=base_version,
            state=state,
            reason=reason[:REASON_CHARACTERS_MAX],
        )
        topic, value = heartbeats_topic(author.genesis.task), seal_heartbeat(beat, author.signer)
        try:
            sent = self._writer.append(topic, value, key=author.device_id.encode(), partition=0)
        except FluvialError as error:
            self._warn(error)
        else:
            sent.add_done_callback(self._answered)
        return True

    def _answered(self, sent: Future[Position]) -> None:
        error = sent.exception()
        if error is not None:
            self._warn(error)

    def _warn(self, error: BaseException) -> None:
        if not self._warned:
            self._warned = True
            log.warning("a heartbeat was not delivered: %s", error)
