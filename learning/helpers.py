"""Two helpers for task files: ``fit`` and ``score``. A task may as well write its own torch loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from aggregation.errors import UsageProblem
from learning.algorithms import Names, algorithms_named, settings_of
from learning.algorithms.optimizers import SGD, Factory, local_steps_of, step_of
from learning.config import TrainConfig
from learning.datasets import Examples

Loss = Callable[[Tensor, Tensor], Tensor]
LOCAL_STEPS_MAX: Final = 1_000_000
CLIP_NORM_MAX: Final = 1e9
FEDAVG: Final = "fedavg"
OF_FIT: Final = ("algorithm", "optimizer", "local_steps", "clip_norm")
"""The settings that are ``fit``'s own."""
_SCORE_BATCH_EXAMPLES: Final = 1_024


def fit(
    model: nn.Module,
    data: Examples,
    config: TrainConfig,
    loss: Loss = nn.functional.cross_entropy,
    *,
    algorithm: Names = FEDAVG,
    optimizer: str | Factory = SGD,
    local_steps: int | None = None,
    clip_norm: float | None = None,
    **settings: Any,
) -> dict[str, float]:
    """A local round in minibatches, in place, over one device's examples; each epoch in a new order.

    loss(outputs, targets) must return a scalar mean over the batch. The order follows from ``config.seed`` and
    ``config.version`` alone. Returns {"loss": mean training loss of the last epoch}.

    algorithm: a name of ``learning.algorithms`` ("fedavg", "fedprox", "fednova"), or several that work together.
    optimizer: a name ("sgd", "adam", "adamw", …), a class of ``torch.optim``, or a function that makes one from
    (parameters, lr=config.learning_rate). local_steps: so many optimizer steps, 1 to 1,000,000, in as many passes as
    they take, instead of ``config.epochs``; they are then in what is returned, under that name. clip_norm: gradients
    whose L2 norm over all parameters is above it are scaled down to it (R. Pascanu et al., On the difficulty of
    training recurrent neural networks, 2013, algorithm 1). settings: those of the algorithm (mu, tau_eff) and of the
    optimizer (momentum, weight_decay, betas, …). A file that passes ``**config.extra`` takes all of it from CONFIG and
    ``--set``. Raises UsageProblem FLV-2207 for a name or a setting that does not exist or is out of bounds.

    Batch normalization needs two examples to normalize with. So where the model has any that trains, a last batch of
    one joins the batch before it, and a batch size of one means two; a device that has one example in all trains on it
    with the running statistics as they are.
    """
    rules, rest = algorithms_named(algorithm, settings)
    _check_limits(local_steps, clip_norm)
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    base = [parameter.detach().clone() for parameter in learned] if any(r.needs_base for r in rules) else []
    known = [key for rule in rules for key in settings_of(rule.name)]
    step = step_of(optimizer, learned, config.learning_rate, rest, [*OF_FIT, *known])
    model.train()
    losses = _LastPass()
    steps = 0
    for pass_number, batch in _batches(len(data), model, config, local_steps):
        batch_loss = loss(model(x[batch]), y[batch])
        for parameter in learned:
            parameter.grad = None
        batch_loss.backward()  # type: ignore[no-untyped-call]
        for rule in rules:
            rule.add_to_gradients(learned, base)
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(learned, clip_norm)
        step()
        steps += 1
        losses.add(pass_number, batch_loss.item(), len(batch))
    done = local_steps_of(optimizer, rest, steps, config.learning_rate, sum(rule.pull for rule in rules))
    _scale(learned, base, math.prod(rule.factor(done) for rule in rules))
    told = {} if local_steps is None else {"local_steps": float(steps)}
    return {"loss": losses.mean} | told


def _batches(
    examples: int, model: nn.Module, config: TrainConfig, local_steps: int | None
) -> Iterator[tuple[int, Tensor]]:
    """(number of the pass, places of a batch's examples): of ``config.epochs`` passes, or ``local_steps`` batches."""
    order_of = np.random.default_rng([config.seed, config.version])
    sizes = _batch_sizes(examples, config.batch_size, model)
    passes = config.epochs if local_steps is None else -(-local_steps // len(sizes))
    left = passes * len(sizes) if local_steps is None else local_steps
    for pass_number in range(passes):
        order = torch.from_numpy(order_of.permutation(examples))
        for batch in torch.split(order, sizes)[:left]:
            yield pass_number, batch
        left -= len(sizes)


@torch.no_grad()
def _scale(parameters: Sequence[nn.Parameter], base: Sequence[Tensor], factor: float) -> None:
    """Make ``factor`` times the change of what the parameters have changed since ``base``."""
    if factor == 1.0:
        return
    for parameter, before in zip(parameters, base, strict=True):
        parameter.copy_(before + factor * (parameter - before))


def _check_limits(local_steps: int | None, clip_norm: float | None) -> None:
    """UsageProblem FLV-2207 where one of the two is given and out of bounds."""
    whole = isinstance(local_steps, int) and not isinstance(local_steps, bool)
    if local_steps is not None and not (whole and 1 <= local_steps <= LOCAL_STEPS_MAX):
        raise UsageProblem(
            "FLV-2207",
            f"local_steps must be an integer from 1 to {LOCAL_STEPS_MAX}, got {local_steps!r}",
            hint="leave it out to train for CONFIG's epochs",
        )
    number = isinstance(clip_norm, int | float) and not isinstance(clip_norm, bool)
    if clip_norm is not None and not (number and 0.0 < clip_norm <= CLIP_NORM_MAX):
        raise UsageProblem(
            "FLV-2207",
            f"clip_norm must be a number above 0 and at most {CLIP_NORM_MAX:g}, got {clip_norm!r}",
            hint="leave it out to clip no gradient",
        )


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
def score(model: nn.Module, data: Examples, loss: Loss = nn.functional.cross_entropy) -> dict[str, float]:
    """{"loss": mean over the examples}, and for class labels {"accuracy": share of right answers, 0 … 1}."""
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    labelled = y.dtype == torch.int64 and y.ndim == 1
    loss_sum, right = 0.0, 0
    model.eval()
    size = _SCORE_BATCH_EXAMPLES
    for inputs, targets in zip(torch.split(x, size), torch.split(y, size), strict=True):
        outputs = model(inputs)
        loss_sum += loss(outputs, targets).item() * len(targets)
        if labelled:
            right += int((outputs.argmax(dim=1) == targets).sum())
    metrics = {"loss": loss_sum / len(data)}
    return metrics | {"accuracy": right / len(data)} if labelled else metrics
