"""Devices' training in processes of this machine. A round is a function of its arguments, whoever runs it.

A process is spawned: it loads the task file and its data by itself, and ends with its parent, however that ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from aggregation.errors import EnvironmentProblem, FluvialError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

    from learning import Examples, Task, TrainConfig
    from learning.private import State

PROCESSES_MAX: Final = 256
_SPAWN: Final = multiprocessing.get_context("spawn")


@dataclass(frozen=True, slots=True)
class Split:
    """How a task's data is dealt out."""

    devices: int
    alpha: float
    seed: int


@dataclass(frozen=True, slots=True)
class Job:
    """One local round: ``device`` of a split trains from float32[P] with a config that has its seed and version.

    private: its private layers as its last round left them; None where it has none yet.
    """

    split: Split
    device: int
    parameters: npt.NDArray[np.float32]
    config: TrainConfig
    private: State | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """An ``Outcome``, as ``learning.training.LocalResult``. ``delta``: float32[P]."""

    delta: npt.NDArray[np.float32]
    num_examples: int
    loss: float
    metrics: Mapping[str, float]
    private: State


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a device's training gave nothing."""

    error_id: str
    message: str
    where: str
    hint: str

    def error(self) -> FluvialError:
        """It as what was raised."""
        return FluvialError(self.error_id, self.message, where=self.where, hint=self.hint)


class Workshop:
    """Where devices of ``task`` train, one after another."""

    def __init__(self, task: Task) -> None:
        self._task = self._bound = task
        self._split: Split | None = None
        self._shards: list[Examples] = []

    def do(self, job: Job) -> Trained | Failed:
        """The round, or why there is none: whatever a device's own code raises is its own outcome."""
        from learning.training import train_locally

        if job.split != self._split:
            self._open(job.split)
        try:
            made = train_locally(
                self._bound, job.parameters, self._shards[job.device], job.config, private=job.private
            )
        except KeyboardInterrupt:
            raise
        except FluvialError as error:
            return Failed(error.error_id, error.message, error.where, error.hint)
        except BaseException as error:  # noqa: BLE001 (users' code may raise anything)
            return Failed("FLV-9000", f"{type(error).__name__}: {error}", "", "")
        return Trained(made.delta, made.num_examples, made.loss, made.metrics, made.private)

    def _open(self, split: Split) -> None:
        """The devices' shards, and the task as the genesis of this seed binds it: with its frozen tensors."""
        from learning.binding import anatomy_for, genesis_format_for
        from learning.parts import device_data
        from learning.tensors import first_model

        self._shards = device_data(self._task.data(), split.devices, split.alpha, split.seed)
        drawn = first_model(self._task, split.seed)
        self._bound = self._task.bound_to(anatomy_for(genesis_format_for(self._task), self._task, drawn))
        self._split = split


class Trainers:
    """Trains for simulations of one task: with one process in this one, with more in so many others."""

    def __init__(self, task: Task, settings: Mapping[str, Any], processes: int) -> None:
        self.processes = processes
        self._here = Workshop(task)
        self._pool: ProcessPoolExecutor | None = None
        if processes > 1:
            self._others = frozenset(multiprocessing.active_children())
            self._pool = ProcessPoolExecutor(
                processes, _SPAWN, initializer=_begin, initargs=(task.reference, dict(settings))
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._pool is None:
            return
        self._pool.shutdown(wait=kind is None, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - self._others:
            child.terminate()  # nobody waits for what it trains any more
            child.join()

    def begin(self, job: Job) -> Future[Trained | Failed] | None:
        """Let it be done by another process; None where there is none."""
        return None if self._pool is None else self._guarded(job)

    def end(self, job: Job, begun: Future[Trained | Failed] | None) -> Trained | Failed:
        """What came of it. EnvironmentProblem FLV-6452 where a process has ended in the middle."""
        if begun is None:
            return self._here.do(job)
        try:
            return begun.result()
        except BrokenProcessPool as error:
            raise _ended() from error

    def _guarded(self, job: Job) -> Future[Trained | Failed]:
        assert self._pool is not None
        try:
            return self._pool.submit(_do, job)
        except BrokenProcessPool as error:
            raise _ended() from error


def _ended() -> EnvironmentProblem:
    return EnvironmentProblem(
        "FLV-6452",
        "a process that trained devices ended in the middle of it",
        hint="see what it said above; with `--processes 1` the same runs in one process. Less memory: fewer processes",
    )


_workshop: list[Workshop] = []
"""This process' own, where it is one that trains."""


def _begin(reference: str, settings: Mapping[str, Any]) -> None:
    """In a process that trains: Ctrl-C is its parent's to answer, and it ends when that has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    from learning.task import load_task

    _workshop.append(Workshop(load_task(reference, settings)))


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


def _do(job: Job) -> Trained | Failed:
    return _workshop[0].do(job)
