"""The batches of a local round: what ``learning.helpers.fit`` does once it knows what is trained, and how."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from learning.algorithms import Algorithm
from learning.algorithms.optimizers import Factory, local_steps_of, step_of
from learning.algorithms.scaffold import add_corrections
from learning.config import TrainConfig
from learning.control import ControlVariates
from learning.datasets import Examples

Loss = Callable[[Tensor, Tensor], Tensor]


class Controlled(NamedTuple):
    """A round's control variates, and which of them is each of the ``shared`` parameters'."""

    variates: ControlVariates
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Way:
    """How a device trains: its loss, its algorithms, its optimizer, and by which norm gradients are clipped.

    steps: so many optimizer steps instead of the config's epochs. settings: the optimizer's. known: names of settings
    that are not the optimizer's, for messages. control: the round's control variates, and the names of the ``shared``
    parameters among them; None where no algorithm needs them.
    """

    loss: Loss
    rules: tuple[Algorithm, ...]
    optimizer: str | Factory
    settings: dict[str, Any]
    clip_norm: float | None
    steps: int | None
    known: tuple[str, ...] = ()
    control: Controlled | None = None


def train(
    model: nn.Module,
    data: Examples,
    config: TrainConfig,
    way: Way,
    *,
    shared: Sequence[nn.Parameter],
    personal: Sequence[nn.Parameter] = (),
) -> tuple[float, int]:
    """Train ``shared`` and ``personal`` parameters in place: (mean loss of the last pass, optimizer steps).

    Algorithms act on what is shared: what stays on the device is near no base, and is not scaled.
    """
    base = [one.detach().clone() for one in shared] if any(rule.needs_base for rule in way.rules) else []
    learned = [*shared, *personal]
    step = step_of(way.optimizer, learned, config.learning_rate, way.settings, way.known)
    corrections = _corrections(way.control, shared)
    losses = _LastPass()
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    steps = 0
    for pass_number, batch in _batches(len(data), model, config, way.steps):
        batch_loss = way.loss(model(x[batch]), y[batch])
        for parameter in learned:
            parameter.grad = None
        batch_loss.backward()  # type: ignore[no-untyped-call]
        for rule in way.rules:
            rule.add_to_gradients(shared, base)
        if way.control is not None:
            add_corrections(shared, corrections)
        if way.clip_norm is not None:
            nn.utils.clip_grad_norm_(learned, way.clip_norm)
        step()
        steps += 1
        losses.add(pass_number, batch_loss.item(), len(batch))
    pull = sum(rule.pull for rule in way.rules)
    done = local_steps_of(way.optimizer, way.settings, steps, config.learning_rate, pull)
    _scale(shared, base, math.prod(rule.factor(done) for rule in way.rules))
    if way.control is not None:
        moved = {
            name: (before.double() - one.detach().double()).cpu().numpy()
            for name, before, one in zip(way.control.names, base, shared, strict=True)
        }
        way.control.variates.trained(moved, steps=steps, learning_rate=config.learning_rate)
    return losses.mean, steps


def _corrections(control: Controlled | None, shared: Sequence[nn.Parameter]) -> list[Tensor]:
    """Of each shared parameter c - c_i, as it holds it; [] without control variates."""
    if control is None:
        return []
    return [
        torch.from_numpy(control.variates.correction(name)).to(one.device, one.dtype)
        for name, one in zip(control.names, shared, strict=True)
    ]


def train_personal(
    model: nn.Module, data: Examples, config: TrainConfig, way: Way, names: Sequence[str]
) -> float:
    """Train the private parameters of these names alone; the mean loss of the last pass.

    All else stands still: it needs no gradients, and layers without private tensors are as in evaluation.
    """
    from learning.kinds.torch_private import owners, personal_parameters

    own = {id(module) for _, module in owners(model, names)}
    for part in model.modules():
        part.training = id(part) in own
    personal = personal_parameters(model, names)
    with standing_still(model, personal):
        return train(model, data, config, way, shared=(), personal=personal)[0]


@contextmanager
def standing_still(model: nn.Module, trained: Sequence[nn.Parameter]) -> Iterator[None]:
    """Parameters that are not among ``trained`` need no gradients for a while."""
    kept = {id(one) for one in trained}
    still = [one for one in model.parameters() if one.requires_grad and id(one) not in kept]
    for one in still:
        one.requires_grad = False
    try:
        yield
    finally:
        for one in still:
            one.requires_grad = True


def _batches(
    examples: int, model: nn.Module, config: TrainConfig, steps: int | None
) -> Iterator[tuple[int, Tensor]]:
    """(number of the pass, places of a batch's examples): of ``config.epochs`` passes, or ``steps`` batches."""
    order_of = np.random.default_rng([config.seed, config.version])
    sizes = _batch_sizes(examples, config.batch_size, model)
    passes = config.epochs if steps is None else -(-steps // len(sizes))
    left = passes * len(sizes) if steps is None else steps
    for pass_number in range(passes):
        order = torch.from_numpy(order_of.permutation(examples))
        for batch in torch.split(order, sizes)[:left]:
            yield pass_number, batch
        left -= len(sizes)


def _batch_sizes(examples: int, batch_size: int, model: nn.Module) -> list[int]:
    """How many examples each batch of an epoch has; none has one where a batch normalization would see it alone."""
    norms = [part for part in model.modules() if isinstance(part, _BatchNorm) and part.training]
    if norms and examples == 1:
        for norm in norms:
            norm.eval()
    size = max(2, batch_size) if norms else batch_size
    sizes = [size] * (examples // size) + ([examples % size] if examples % size else [])
    if norms and len(sizes) > 1 and sizes[-1] == 1:
        sizes[-2:] = [sizes[-2] + 1]
    return sizes


@torch.no_grad()
def _scale(parameters: Sequence[nn.Parameter], base: Sequence[Tensor], factor: float) -> None:
    """Make ``factor`` times the change of what the parameters have changed since ``base``."""
    if factor == 1.0:
        return
    for parameter, before in zip(parameters, base, strict=True):
        parameter.copy_(before + factor * (parameter - before))


class _LastPass:
    """The mean loss of the last pass over the examples."""

    def __init__(self) -> None:
        self._pass, self._sum, self._examples = -1, 0.0, 0

    def add(self, pass_number: int, loss_mean: float, examples: int) -> None:
        """A batch's mean loss, and how many examples it had."""
        if pass_number != self._pass:
            self._pass, self._sum, self._examples = pass_number, 0.0, 0
        self._sum += loss_mean * examples
        self._examples += examples

    @property
    def mean(self) -> float:
        """Of all examples of that pass."""
        return self._sum / self._examples
