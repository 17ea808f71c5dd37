"""What a fleet does at this moment, in a small file beside its journal: others see by it whether anybody works.

A thread writes it about once a second, also while one device's training takes minutes: then the fleet's own loop does
not turn, and that is no stall.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Final, Self

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

    from backends.observer import Observer

WRITE_EVERY_S: Final = 1.0
FRESH_S: Final = 15.0
"""A fleet whose file is older has ended, or hangs."""


class Activity(msgspec.Struct, frozen=True):
    """``time`` and ``since``: seconds since 1970 UTC by the fleet's clock.

    ``devices``: all of the fleet; ``at_work``: with a round under way; ``training``: the device whose training runs, ""
    for none, ``since`` when; ``version``: the newest that it was told of; ``failing``: devices whose last round failed.
    """

    time: float
    devices: int
    at_work: int
    training: str
    since: float
    version: int
    failing: int

    @property
    def is_fresh(self) -> bool:
        """Whether the fleet has written it just now."""
        return abs(time.time() - self.time) <= FRESH_S

    @property
    def works(self) -> bool:
        """Whether a device of a living fleet is at work."""
        return self.is_fresh and self.at_work > 0


class ActivityFile:
    """Writes it while the context is open. The loop sets its attributes, and says when somebody ``trains``."""

    def __init__(self, journal: Path | None, devices: int, observer: Observer) -> None:
        self.at_work = 0
        self.version = -1
        self.failing = 0
        self._training = ("", 0.0)
        self._path = activity_path(journal) if journal is not None else None
        self._devices = devices
        self._observer = observer
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write_often, name="activity", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(WRITE_EVERY_S)
        self.at_work = 0
        self._write()

    def trains(self, device: str) -> None:
        """This device's training begins; "" when it has ended."""
        self._training = (device, time.time() if device else 0.0)

    def _write_often(self) -> None:
        while not self._ended.wait(WRITE_EVERY_S):
            if self._training[0]:
                self._observer.beat()  # the loop waits for users' code, which is no defect of its
            self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        device, since = self._training
        now = Activity(
            time=time.time(),
            devices=self._devices,
            at_work=self.at_work,
            training=device,
            since=since,
            version=self.version,
            failing=self.failing,
        )
        with contextlib.suppress(OSError):  # a full disk: then nobody sees the fleet work, and it goes on
            self._path.parent.mkdir(parents=True, exist_ok=True)
            whole = self._path.with_suffix(".new")
            whole.write_bytes(msgspec.json.encode(now))
            os.replace(whole, self._path)  # noqa: PTH105 (one call, and atomic)


def activity_path(journal: Path) -> Path:
    """Where a fleet says what it does, beside its journal."""
    return journal.with_suffix(".activity.json")


def read_activity(journal: Path) -> Activity | None:
    """What the fleet of this journal did last; None where it has not said."""
    try:
        return msgspec.json.decode(activity_path(journal).read_bytes(), type=Activity)
    except (OSError, msgspec.DecodeError):
        return None
