"""A device's own optimizer: plain SGD by hand, and every optimizer of torch by its name, its class or a function.

It is new in each round, as published algorithms have it: momentum and moments do not outlive a round.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final

import torch
from torch import nn
from torch.optim import Optimizer

from aggregation.errors import UsageProblem
from learning.algorithms.shape import LocalSteps

Factory = Callable[..., Optimizer]
"""Called as a class of ``torch.optim`` is: with the parameters, ``lr=`` and what else was given."""
Step = Callable[[], object]
"""One step by the gradients that stand in the parameters."""

SGD: Final = "sgd"
_NOT_A_TASKS: Final = frozenset(
    {"params", "lr", "maximize", "foreach", "fused", "capturable", "differentiable"}
)
"""What is Fluvial's to say, and how a device computes it."""
_WITHOUT: Final = frozenset({"lbfgs", "sparseadam"})
"""They need the loss again and again, or sparse gradients."""


def optimizer_names() -> list[str]:
    """``adam``, ``adamw`` and so on: torch's own classes in small letters."""
    return sorted(_classes())


def step_of(
    optimizer: str | Factory,
    parameters: Sequence[nn.Parameter],
    learning_rate: float,
    settings: Mapping[str, Any],
    known: Sequence[str] = (),
) -> Step:
    """What makes one step of this optimizer. ``known``: settings that others have taken, for what a message says.

    Raises UsageProblem FLV-2207: no such optimizer, or a setting that it does not have or does not take.
    """
    if optimizer == SGD and not settings:
        return lambda: _descend(parameters, learning_rate)
    factory = _factory(optimizer)
    name = optimizer if isinstance(optimizer, str) else getattr(factory, "__name__", "the optimizer")
    _check_settings(name, factory, settings, known)
    try:
        made = factory(list(parameters), lr=learning_rate, **settings)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageProblem(
            "FLV-2207",
            f"{name} does not take its settings: {error}",
            hint="correct them in fluvial.fit(...) or in CONFIG; its page in torch's documentation has their meaning",
        ) from error
    if not _steps_alone(made):
        raise UsageProblem(
            "FLV-2207",
            f"the optimizer is {type(made).__name__}: it has to be one of torch whose step() needs nothing",
            hint=f"by name there are {', '.join(optimizer_names())}; others need a loop of your own in train()",
        )
    return made.step


def local_steps_of(
    optimizer: str | Factory, settings: Mapping[str, Any], steps: int, learning_rate: float, pull: float
) -> LocalSteps:
    """What ``steps`` steps of this optimizer were. ``pull``: the μ of proximal terms."""
    linear = optimizer in {SGD, torch.optim.SGD} and not settings.get("dampening")
    return LocalSteps(
        steps,
        learning_rate,
        momentum=settings.get("momentum", 0.0) if linear else 0.0,
        nesterov=bool(settings.get("nesterov")),
        pull=pull,
        linear=linear,
    )


@torch.no_grad()
def _descend(parameters: Sequence[nn.Parameter], learning_rate: float) -> None:
    # By hand: building a torch optimizer costs more than a whole local round on 36 examples, and loads the compiler.
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.add_(parameter.grad, alpha=-learning_rate)


def _classes() -> dict[str, type[Optimizer]]:
    found = {
        name.lower(): made
        for name, made in vars(torch.optim).items()
        if isinstance(made, type) and issubclass(made, Optimizer) and made is not Optimizer
    }
    return {name: made for name, made in found.items() if name not in _WITHOUT}


def _factory(optimizer: Any) -> Factory:
    if callable(optimizer):
        return optimizer  # type: ignore[no-any-return]
    if not isinstance(optimizer, str):
        problem, close = f"an optimizer is a name, a class or a function, got {optimizer!r}", []
    else:
        classes = _classes()
        if optimizer in classes:
            return classes[optimizer]
        problem = f"no optimizer {optimizer!r}; there are {', '.join(sorted(classes))}"
        close = get_close_matches(optimizer.lower(), classes, n=1)
    raise UsageProblem(
        "FLV-2207",
        problem,
        hint=f"did you mean optimizer={close[0]!r}?"
        if close
        else "a class of torch.optim will do as well, or a function that makes one from (parameters, lr=...)",
    )


def _check_settings(name: str, factory: Factory, settings: Mapping[str, Any], known: Sequence[str]) -> None:
    parameters = inspect.signature(factory).parameters.values()
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return
    own = [one.name for one in list(parameters)[1:] if one.name not in _NOT_A_TASKS]
    strange = next((key for key in settings if key not in own), None)
    if strange is None:
        return
    close = get_close_matches(strange, [*own, *known], n=1)
    raise UsageProblem(
        "FLV-2207",
        f"fit() has no setting {strange!r}: {name} has {', '.join(own) or 'none'}"
        + (f", and fit() itself {', '.join(known)}" if known else ""),
        hint=f"did you mean {close[0]!r}?" if close else f"remove {strange!r}, or choose what has it",
    )


def _steps_alone(made: object) -> bool:
    """Whether it is an optimizer whose ``step()`` needs no argument."""
    if not isinstance(made, Optimizer):
        return False
    closure = inspect.signature(made.step).parameters.get("closure")
    return closure is None or closure.default is not closure.empty
