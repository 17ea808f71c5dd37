"""How one device trains: a frozen, validated set of numbers. No torch here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Final

from aggregation.errors import UsageProblem

_BOUNDS: Final[dict[str, tuple[type, float, float]]] = {
    "seed": (int, 0, 2**63 - 1),
    "version": (int, 0, 2**53),
    "epochs": (int, 1, 10_000),
    "batch_size": (int, 1, 1_000_000),
    "learning_rate": (float, 1e-9, 1e3),
}
_A_TASK_MAY_SET: Final = ("epochs", "batch_size", "learning_rate")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """What ``train(model, data, config)`` gets.

    seed: of this device; together with ``version`` it fixes every random choice of one local round.
    version: the base version that this round starts from (0 = the genesis model).
    epochs: passes over the device's own examples, 1 … 10,000.
    batch_size: examples a step, 1 … 1,000,000.
    learning_rate: of the local SGD, 1e-9 … 1e3.

    Raises UsageProblem FLV-2207 if a value has the wrong type or is out of bounds.
    """

    seed: int = 0
    version: int = 0
    epochs: int = 5
    batch_size: int = 16
    learning_rate: float = 0.1

    def __post_init__(self) -> None:
        for name, (kind, low, high) in _BOUNDS.items():
            value = getattr(self, name)
            allowed = (int, float) if kind is float else int
            right_type = isinstance(value, allowed) and not isinstance(value, bool)
            if not (right_type and math.isfinite(value) and low <= value <= high):
                raise UsageProblem(
                    "FLV-2207",
                    f"training setting {name} must be {_article(kind)} from {low:g} to {high:g}, "
                    f"got {value!r}",
                    hint=f"set CONFIG = {{{name!r}: {getattr(type(self), name, low)!r}}} in the task file"
                    if name in _A_TASK_MAY_SET
                    else f"pass another {name}",
                )

    def at(self, *, seed: int, version: int) -> TrainConfig:
        """The same settings for one device (``seed``) and one base ``version``."""
        return replace(self, seed=seed, version=version)


def _article(kind: type) -> str:
    return "an integer" if kind is int else "a number"


def config_from_overrides(overrides: Mapping[str, object], *, where: str) -> TrainConfig:
    """The default TrainConfig with a task file's ``CONFIG`` laid over it.

    Only epochs, batch_size and learning_rate may be set: seed and version belong to the device and the round.
    Raises UsageProblem FLV-2207 for an unknown key or a bad value; ``where`` is the task file.
    """
    known = [field.name for field in fields(TrainConfig) if field.name in _A_TASK_MAY_SET]
    for key in overrides:
        if key not in known:
            close = get_close_matches(str(key), known, n=1)
            raise UsageProblem(
                "FLV-2207",
                f"CONFIG has the key {key!r}; a task may set {', '.join(known)}",
                where=where,
                hint=f"did you mean {close[0]!r}?" if close else f"remove {key!r} from CONFIG",
            )
    try:
        return replace(TrainConfig(), **overrides)  # type: ignore[arg-type]
    except UsageProblem as problem:
        problem.where = where
        raise
