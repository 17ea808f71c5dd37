"""One device's local round, and the evaluation of a version: flat parameters in, plain numbers out.

Both are pure: the same task, parameters, examples and config give the same bits, on one machine and torch
version. One module per thread is used again and again: its parameters and buffers are set anew each round,
but plain Python attributes that a model's own code changes are not.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn

from aggregation.errors import UsageProblem
from learning.cohorts import declared_cohort
from learning.config import TrainConfig
from learning.datasets import Examples
from learning.randomness import seeded
from learning.task import Task
from learning.tensors import Flat, load_parameters, parameters_of, shared_tensors


@dataclass(frozen=True, slots=True, eq=False)
class LocalResult:
    """delta: float32[P] = local − base, unclipped. num_examples: trained on. loss: metrics["loss"].

    metrics: what train() reports, and the device's "cohort" where the task has ``cohorts``.
    """

    delta: Flat
    num_examples: int
    loss: float
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class _Workbench:
    """One reusable module and the state that a round must not inherit from the round before."""

    task_key: tuple[str, str]
    module: nn.Module
    fresh: dict[str, Tensor]  # what is not in the layout (integer and non-persistent buffers), as first made
    trainable: list[bool]


_bench_of_thread = threading.local()


def train_locally(task: Task, flat_parameters: Flat, data: Examples, config: TrainConfig) -> LocalResult:
    """Train ``task`` from float32[P] on one device's examples.

    Random draws (shuffling, dropout) follow from config.seed and config.version; threads take turns.
    Raises UsageProblem FLV-2208 if train() fails or ends in NaN, FLV-2213 if P is not the model's.
    """
    base = np.asarray(flat_parameters)
    with seeded(config.seed, config.version):
        module = _module_with(task, base)
        module.train()
        metrics = task.train(module, data, config)
        local = parameters_of(module)
        told = declared_cohort(task, data) | metrics
    delta = local - base
    if not np.isfinite(delta).all():
        raise UsageProblem(
            "FLV-2208",
            f"train() left {int((~np.isfinite(delta)).sum())} of {len(delta)} parameters NaN or infinite",
            where=str(task.path),
            hint='lower CONFIG["learning_rate"], or scale the inputs to about 0 … 1',
        )
    return LocalResult(delta=delta, num_examples=len(data), loss=metrics["loss"], metrics=told)


def evaluate_parameters(task: Task, flat: Flat, dataset: Examples) -> dict[str, float]:
    """The metrics of the model float32[P] on held-out examples: "loss", and what else the task reports.

    Raises UsageProblem FLV-2209 if evaluate() fails, FLV-2213 if P is not the model's.
    """
    with seeded(0), torch.no_grad():
        module = _module_with(task, np.asarray(flat))
        module.eval()
        return task.evaluate(module, dataset)


def _module_with(task: Task, flat: Flat) -> nn.Module:
    """This thread's module of ``task``, holding exactly ``flat``."""
    bench: _Workbench | None = getattr(_bench_of_thread, "bench", None)
    if bench is None or bench.task_key != (str(task.path), task.source_sha256):
        bench = _build(task)
        _bench_of_thread.bench = bench
    live = _tensors_of(bench.module)
    with torch.no_grad():
        for name, value in bench.fresh.items():
            live[name].copy_(value)
    for parameter, trainable in zip(bench.module.parameters(), bench.trainable, strict=True):
        parameter.grad = None
        parameter.requires_grad_(trainable)
    load_parameters(bench.module, flat)
    return bench.module


def _build(task: Task) -> _Workbench:
    with seeded(0):  # its own draws must not move the round's random numbers
        module = task.model()
    learned = shared_tensors(module)
    fresh = {
        name: value.detach().clone() for name, value in _tensors_of(module).items() if name not in learned
    }
    trainable = [parameter.requires_grad for parameter in module.parameters()]
    return _Workbench((str(task.path), task.source_sha256), module, fresh, trainable)


def _tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer by name, each tensor once, non-persistent buffers included."""
    return dict(chain(module.named_parameters(), module.named_buffers()))
