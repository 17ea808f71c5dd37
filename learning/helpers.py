"""Two helpers for task files: ``fit`` and ``score``. A task may as well write its own torch loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from learning.config import TrainConfig
from learning.datasets import Examples

Loss = Callable[[Tensor, Tensor], Tensor]
_SCORE_BATCH_EXAMPLES: Final = 1_024


def fit(
    model: nn.Module, data: Examples, config: TrainConfig, loss: Loss = nn.functional.cross_entropy
) -> dict[str, float]:
    """Plain minibatch SGD, in place, over one device's examples; each epoch in a new order.

    loss(outputs, targets) must return a scalar mean over the batch. The order follows from ``config.seed`` and
    ``config.version`` alone. Returns {"loss": mean training loss of the last epoch}.

    Batch normalization needs two examples to normalize with. So where the model has any that trains, a last batch of
    one joins the batch before it, and a batch size of one means two; a device that has one example in all trains on it
    with the running statistics as they are.
    """
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    order_of = np.random.default_rng([config.seed, config.version])
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.train()
    sizes = _batch_sizes(len(data), config.batch_size, model)
    loss_mean = 0.0
    for _ in range(config.epochs):
        loss_sum = 0.0
        order = torch.from_numpy(order_of.permutation(len(data)))
        for batch in torch.split(order, sizes):
            batch_loss = loss(model(x[batch]), y[batch])
            for parameter in learned:
                parameter.grad = None
            batch_loss.backward()  # type: ignore[no-untyped-call]
            _descend(learned, config.learning_rate)
            loss_sum += batch_loss.item() * len(batch)
        loss_mean = loss_sum / len(data)
    return {"loss": loss_mean}


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
def _descend(parameters: list[nn.Parameter], learning_rate: float) -> None:
    # By hand: building a torch optimizer costs more than a whole local round on 36 examples.
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.add_(parameter.grad, alpha=-learning_rate)


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
