"""Folding partitions in parallel: one process a partition at a time, forked before the audit opens anything."""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing.queues import Queue as ProcessQueue
from multiprocessing.synchronize import Event as ProcessEvent
from types import TracebackType
from typing import Final, Self

import numpy as np

from aggregation.codecs import (
    CODECS,
    VALUE_BYTES,
    CodecName,
    accumulate_into,
    accumulate_values_into,
    are_finite,
    data_bytes,
    direction_from,
    is_finite,
    measure,
    view_delta,
    view_values,
)
from aggregation.layout import VALUE_DIGITS, Layout
from aggregation.server.aggregates import Slot
from fluvial.processes.signals import undisturbed
from fluvial.proof.audit.folded import FoldedPartition
from fluvial.proof.audit.partitions import PartitionJob, fold_partition

POLL_S: Final = 0.2
START_METHOD: Final = "fork" if sys.platform == "linux" else "spawn"
"""A forked process has the libraries and the compiled loops that a spawned one spends seconds of processor time on."""

_NO_SEMAPHORES: Final = (OSError, ImportError, NotImplementedError)
"""What Python raises where a semaphore cannot be made: the system, what it was built with, or its own check."""

Heard = Callable[[Slot, int], None]

_progress: ProcessQueue[tuple[Slot, int]] | None = None
_stop: ProcessEvent | None = None


class Folders:
    """``processes`` that fold partitions; 1 stands for the caller's own. A context manager: none is left behind.

    Enter it before this process has connections and threads of its own, which a fork would copy half of.
    """

    def __init__(self, processes: int, codecs: Iterable[CodecName] = CODECS) -> None:
        self.processes = processes
        self.alone_because = ""
        """Why this machine folds in one process, though more were asked for."""
        self._pool: ProcessPoolExecutor | None = None
        if processes <= 1:
            return
        if START_METHOD == "fork":
            _load_kernels(codecs)
        context = multiprocessing.get_context(START_METHOD)
        try:
            self._progress: ProcessQueue[tuple[Slot, int]] = context.Queue()
            self._stop: ProcessEvent = context.Event()
            self._pool = ProcessPoolExecutor(
                processes, context, initializer=_begin, initargs=(self._progress, self._stop)
            )
        except _NO_SEMAPHORES as error:
            self._go_alone(f"this machine has no semaphores for them ({error}); is /dev/shm writable?")

    def __enter__(self) -> Self:
        if self._pool is not None:
            try:
                # The first submission is what starts the processes. Python calls functions of its own around a fork,
                # and swallows a KeyboardInterrupt that a signal raises in one of them.
                with undisturbed():
                    self._pool.submit(_ready)
            except OSError as error:  # a limit of processes or of memory
                self._pool.shutdown(wait=False, cancel_futures=True)
                self._go_alone(f"they cannot be started ({error})")
            except BaseException:
                self._end(self._pool)
                raise
        return self

    def _go_alone(self, because: str) -> None:
        self._pool, self.processes, self.alone_because = None, 1, because

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Whatever happens, no process is left behind: each looks at ``stop`` every few records."""
        if self._pool is not None:
            self._end(self._pool)

    def _end(self, pool: ProcessPoolExecutor) -> None:
        self._stop.set()
        pool.shutdown(wait=True, cancel_futures=True)

    def fold(
        self, work: Sequence[PartitionJob], heard: Heard, *, alone: bool = False
    ) -> list[FoldedPartition]:
        """Fold every partition in ``work``; the results are in the order of ``work``.

        ``heard(slot, next_offset)`` is called in this process, now and then. ``alone``: in this process only, which
        is best for a short log.
        """
        if self._pool is None or alone or len(work) <= 1:
            return [fold_partition(job, heard, lambda: False) for job in work]
        pool = self._pool
        longest_first = sorted(work, key=lambda job: -job.records)
        futures = {job.slot: pool.submit(_fold, job) for job in longest_first}
        _follow(list(futures.values()), self._progress, heard)
        return [futures[job.slot].result() for job in work]


def _follow(
    futures: list[Future[FoldedPartition]], progress: ProcessQueue[tuple[Slot, int]], heard: Heard
) -> None:
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=POLL_S, return_when=FIRST_COMPLETED)
        with contextlib.suppress(queue.Empty):
            while True:
                heard(*progress.get_nowait())
        for future in done:
            future.result()


def _load_kernels(codecs: Iterable[CodecName]) -> None:
    """Load the compiled loops by a first use of each, once for all processes forked from here."""
    layout = Layout.of([("w", (1,))])
    reference = direction_from(np.ones(1, dtype=np.int8), (1.0,), layout)
    for codec in codecs:
        delta = view_delta(codec, [bytes(data_bytes(codec, 1))], (1.0,), layout)
        is_finite(delta)
        measured = measure(delta, layout)
        measure(delta, layout, reference)
        accumulate_into(np.zeros(1, np.int64), delta, measured, layout, weight=1.0, clip=1.0, exponent=0)
    values = view_values([bytes(VALUE_BYTES)])
    are_finite(values, (1.0,))
    accumulate_values_into(np.zeros(VALUE_DIGITS, np.int64), values, 1)


def _ready() -> None:
    """Nothing: being called is the point."""


def _begin(progress: ProcessQueue[tuple[Slot, int]], stop: ProcessEvent) -> None:
    global _progress, _stop
    _progress, _stop = progress, stop
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches all processes; the parent decides, and tells
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the parent's handler only remembers it


def _fold(job: PartitionJob) -> FoldedPartition:
    assert _progress is not None and _stop is not None, "the pool's initializer runs first"
    progress, stop = _progress, _stop
    return fold_partition(job, lambda slot, next_offset: progress.put((slot, next_offset)), stop.is_set)
