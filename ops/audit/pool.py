"""Folding partitions in parallel: one process a partition at a time, spawned, stopped together."""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing.queues import Queue as ProcessQueue
from multiprocessing.synchronize import Event as ProcessEvent
from typing import Final

from aggregation.merge import Slot
from ops.audit.partitions import FoldedPartition, PartitionJob, fold_partition

POLL_S: Final = 0.2

Heard = Callable[[Slot, int], None]

_progress: ProcessQueue[tuple[Slot, int]] | None = None
_stop: ProcessEvent | None = None


def fold_partitions(work: Sequence[PartitionJob], jobs: int, heard: Heard) -> list[FoldedPartition]:
    """Fold every partition in ``work``, ``jobs`` at a time; the results are in the order of ``work``.

    ``heard(slot, next_offset)`` is called in this process, now and then. One job at a time needs no other process.
    """
    if min(jobs, len(work)) <= 1:
        return [fold_partition(job, heard, lambda: False) for job in work]
    context = multiprocessing.get_context("spawn")
    progress: ProcessQueue[tuple[Slot, int]] = context.Queue()
    stop = context.Event()
    pool = ProcessPoolExecutor(min(jobs, len(work)), context, initializer=_begin, initargs=(progress, stop))
    with _stopping(pool, stop):
        longest_first = sorted(work, key=lambda job: -job.updates_end)
        futures = {job.slot: pool.submit(_fold, job) for job in longest_first}
        _follow(list(futures.values()), progress, heard)
        return [futures[job.slot].result() for job in work]


@contextlib.contextmanager
def _stopping(pool: ProcessPoolExecutor, stop: ProcessEvent) -> Iterator[None]:
    """Whatever happens, no process is left behind: each looks at ``stop`` every few records."""
    try:
        yield
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


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


def _begin(progress: ProcessQueue[tuple[Slot, int]], stop: ProcessEvent) -> None:
    global _progress, _stop
    _progress, _stop = progress, stop
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches all processes; the parent decides, and tells


def _fold(job: PartitionJob) -> FoldedPartition:
    assert _progress is not None and _stop is not None, "the pool's initializer runs first"
    progress, stop = _progress, _stop
    return fold_partition(job, lambda slot, next_offset: progress.put((slot, next_offset)), stop.is_set)
