"""Helpers for task files: ``fit``, ``score`` and ``personal_score``. A task may as well write its own torch loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from aggregation.errors import UsageProblem
from learning.algorithms import Names, algorithms_named, settings_of
from learning.algorithms.optimizers import SGD, Factory
from learning.algorithms.scaffold import require_plain_steps
from learning.config import TrainConfig
from learning.control import require_names
from learning.datasets import Examples
from learning.local_round import Controlled, Loss, Way, standing_still, train, train_personal

LOCAL_STEPS_MAX: Final = 1_000_000
CLIP_NORM_MAX: Final = 1e9
HELD_OUT_MAX: Final = 0.9
PERSONAL_EPOCHS: Final = 10
FEDAVG: Final = "fedavg"
OF_FIT: Final = ("algorithm", "optimizer", "local_steps", "clip_norm", "held_out")
"""The settings that are ``fit``'s own."""
Private = str | type | Sequence[str | type]
"""As ``PRIVATE`` of a task file: names of tensors with ``*`` for anything, or classes of layers."""
_SCORE_BATCH_EXAMPLES: Final = 1_024
_HELD_OUT_STREAM: Final = 3


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
    private: Private = (),
    held_out: float = 0.0,
    **settings: Any,
) -> dict[str, float]:
    """A local round in minibatches, in place, over one device's examples; each epoch in a new order.

    loss(outputs, targets) must return a scalar mean over the batch. The order follows from ``config.seed`` and
    ``config.version`` alone. Returns {"loss": mean training loss of the last epoch}.

    algorithm: a name of ``learning.algorithms`` ("fedavg", "fedprox", "fednova", "fedrep", "scaffold"), or several
    together.
    optimizer: a name ("sgd", "adam", "adamw", …), a class of ``torch.optim``, or a function that makes one from
    (parameters, lr=config.learning_rate). local_steps: so many optimizer steps, 1 to 1,000,000, in as many passes as
    they take, instead of ``config.epochs``; they are then in what is returned, under that name. clip_norm: gradients
    whose L2 norm over all parameters is above it are scaled down to it (R. Pascanu et al., On the difficulty of
    training recurrent neural networks, 2013, algorithm 1). settings: those of the algorithm (mu, tau_eff) and of the
    optimizer (momentum, weight_decay, betas, …). A file that passes ``**config.extra`` takes all of it from CONFIG and
    ``--set``. private: the task file's PRIVATE; algorithms act on the rest. held_out: the share of its examples, 0 to
    0.9, that a device keeps for itself: "base_loss" (and for classes "base_accuracy") say how the version does on them
    with this device's private layers, "local_loss" and "local_accuracy" how its own model does after the round, and
    "num_examples" how many examples it trained on.

    Raises UsageProblem FLV-2207 for a name or a setting that does not exist or is out of bounds.

    Batch normalization needs two examples to normalize with. So where the model has any that trains, a last batch of
    one joins the batch before it, and a batch size of one means two; a device that has one example in all trains on it
    with the running statistics as they are.
    """
    rules, rest = algorithms_named(algorithm, settings)
    _check_limits(local_steps, clip_norm, held_out)
    known = (*OF_FIT, *(key for rule in rules for key in settings_of(rule.name)))
    way = Way(loss, rules, optimizer, rest, clip_norm, local_steps, known)
    names = _private_names(model, private)
    mine, kept = _set_aside(data, held_out, config.seed)
    told = {} if kept is None else _prefixed("base", score(model, kept, loss))
    head_epochs = max(rule.head_epochs for rule in rules)
    _check_rules(way, named=bool(names))
    if head_epochs:
        first = replace(way, rules=(), steps=None)
        train_personal(model, mine, replace(config, epochs=head_epochs), first, names)
    hidden = {id(one) for one in _parameters(model, names)}
    learned = [one for one in model.parameters() if one.requires_grad]
    shared = [one for one in learned if id(one) not in hidden]
    personal = [one for one in learned if id(one) in hidden]
    if any(rule.controlled for rule in rules):
        shared = [one for one in shared if one.numel() > 0]
        way = replace(way, control=_controlled(model, shared, config))
    model.train()
    if head_epochs:
        with standing_still(model, shared):
            mean, steps = train(model, mine, config, way, shared=shared)
    else:
        mean, steps = train(model, mine, config, way, shared=shared, personal=personal)
    if local_steps is not None:
        told["local_steps"] = float(steps)
    if kept is not None:
        told |= {"num_examples": float(len(mine))} | _prefixed("local", score(model, kept, loss))
    return {"loss": mean} | told


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


def personal_score(
    model: nn.Module,
    data: Examples,
    private: Private,
    loss: Loss = nn.functional.cross_entropy,
    *,
    epochs: int = PERSONAL_EPOCHS,
    batch_size: int = 16,
    learning_rate: float = 0.1,
) -> dict[str, float]:
    """What a device that is new makes of what is shared: ``score`` of every other example, for ``evaluate()``.

    Its ``private`` layers begin anew (by their ``reset_parameters()``) and learn the examples between these, by SGD,
    while the rest stands still, as in L. Collins et al. 2021, section 6 (generalization to new clients).
    Raises UsageProblem FLV-2253 where a private layer cannot begin anew, or there is one example only.
    """
    from learning.kinds.torch_private import broken, owners

    names = _private_names(model, private)
    _check_new(len(data) > 1 and bool(names), "it takes private layers and two examples or more")
    for name, part in owners(model, names):
        reset: Any = getattr(part, "reset_parameters", None)
        _check_new(callable(reset), f"{name or 'the model'} has private tensors and no reset_parameters()")
        reset()
    bad = broken(model, names)
    _check_new(not bad, f"reset_parameters() leaves {bad} as it was")
    places = np.arange(len(data))
    config = TrainConfig(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate)
    way = Way(loss, (), SGD, {}, None, None)
    with torch.enable_grad():
        train_personal(model, data.subset(places[1::2]), config, way, names)
    return score(model, data.subset(places[::2]), loss)


def _check_new(holds: bool, problem: str) -> None:  # noqa: FBT001 (a condition)
    if not holds:
        raise UsageProblem(
            "FLV-2253",
            f"personal_score cannot do what a new device does: {problem}",
            hint="make the private layers of torch's own, or evaluate what is shared in a way of your own",
        )


def _check_rules(way: Way, *, named: bool) -> None:
    """UsageProblem FLV-2207 where the algorithms do not go with the rest. ``named``: there are private layers."""
    if any(rule.head_epochs for rule in way.rules) and not named:
        raise UsageProblem(
            "FLV-2207",
            "fedrep trains private layers first, and fit() was told of none",
            hint="name them: PRIVATE = ['head.*'] in the task file, and fluvial.fit(..., private=PRIVATE)",
        )
    if any(rule.controlled for rule in way.rules):
        require_plain_steps(way.rules, way.optimizer, way.settings, way.clip_norm)


def _controlled(model: nn.Module, shared: Sequence[nn.Parameter], config: TrainConfig) -> Controlled:
    names: dict[int, list[str]] = {}
    for name, one in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(one), []).append(name)
    known = config.control_variates.server if config.control_variates else {}
    chosen = tuple(
        next((name for name in names[id(one)] if name in known), names[id(one)][0]) for one in shared
    )
    return Controlled(require_names(chosen, config.control_variates), chosen)


def _private_names(model: nn.Module, private: Private) -> list[str]:
    from learning.kinds.torch_private import names_of

    wanted = (private,) if isinstance(private, str | type) else tuple(private)
    return names_of(model, wanted) if wanted else []


def _parameters(model: nn.Module, names: Sequence[str]) -> list[nn.Parameter]:
    from learning.kinds.torch_private import personal_parameters

    return personal_parameters(model, names)


def _set_aside(data: Examples, share: float, seed: int) -> tuple[Examples, Examples | None]:
    """(what is trained on, what is kept): the same in each round of a device. A single example is trained on."""
    count = min(len(data) - 1, max(1, round(share * len(data)))) if share else 0
    if not count:
        return data, None
    order = np.random.default_rng([seed, 0, _HELD_OUT_STREAM]).permutation(len(data))
    return data.subset(np.sort(order[count:])), data.subset(np.sort(order[:count]))


def _prefixed(prefix: str, metrics: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}_{name}": value for name, value in metrics.items()}


def _check_limits(local_steps: int | None, clip_norm: float | None, held_out: float) -> None:
    """UsageProblem FLV-2207 where one of them is given and out of bounds."""
    whole = isinstance(local_steps, int) and not isinstance(local_steps, bool)
    if local_steps is not None and not (whole and 1 <= local_steps <= LOCAL_STEPS_MAX):
        raise UsageProblem(
            "FLV-2207",
            f"local_steps must be an integer from 1 to {LOCAL_STEPS_MAX}, got {local_steps!r}",
            hint="leave it out to train for CONFIG's epochs",
        )
    if clip_norm is not None and not (_is_number(clip_norm) and 0.0 < clip_norm <= CLIP_NORM_MAX):
        raise UsageProblem(
            "FLV-2207",
            f"clip_norm must be a number above 0 and at most {CLIP_NORM_MAX:g}, got {clip_norm!r}",
            hint="leave it out to clip no gradient",
        )
    if not (_is_number(held_out) and 0.0 <= held_out <= HELD_OUT_MAX):
        raise UsageProblem(
            "FLV-2207",
            f"held_out must be a number from 0 to {HELD_OUT_MAX:g}, a share of the examples, got {held_out!r}",
            hint="0.2 keeps every fifth; leave it out to train on all",
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
