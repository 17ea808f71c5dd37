"""Which local algorithms there are, and how a task's settings become some of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

from aggregation.errors import UsageProblem
from learning.algorithms.fedavg import FedAvg
from learning.algorithms.fednova import FedNova
from learning.algorithms.fedprox import FedProx
from learning.algorithms.fedrep import FedRep
from learning.algorithms.scaffold import Scaffold
from learning.algorithms.shape import HIGH, LOW, REQUIRED, WHAT, WHOLE, Algorithm

if TYPE_CHECKING:
    from collections.abc import Callable

Names = str | Sequence[str]
"""One name of the table, or several that work together: ("fedprox", "fednova")."""

ALGORITHMS: Final[Mapping[str, Callable[..., Algorithm]]] = {
    made.name: made for made in (FedAvg, FedProx, FedNova, FedRep, Scaffold)
}


def algorithms_named(
    names: Names, settings: Mapping[str, Any]
) -> tuple[tuple[Algorithm, ...], dict[str, Any]]:
    """The algorithms of these names with their own of ``settings``, and the settings that are none of theirs.

    Raises UsageProblem FLV-2207: no such algorithm, a setting that is missing, of a wrong type or out of bounds.
    """
    left = dict(settings)
    made = []
    for name in (names,) if isinstance(names, str) else tuple(names):
        member = ALGORITHMS.get(str(name))
        if member is None:
            close = get_close_matches(str(name), ALGORITHMS, n=1)
            raise UsageProblem(
                "FLV-2207",
                f"no local algorithm {name!r}; there are {', '.join(ALGORITHMS)}",
                hint=f"did you mean algorithm={close[0]!r}?"
                if close
                else "or write your own loop in train()",
            )
        own = {one.name: one.metadata for one in dataclasses.fields(member)}  # type: ignore[arg-type]
        given = {key: left.pop(key) for key in own if key in left}
        for key, bounds in own.items():
            _check(name, key, given.get(key), bounds, given=key in given)
        made.append(member(**given))
    return tuple(made), left


def settings_of(name: str) -> list[str]:
    """What the algorithm ``name`` can be given."""
    return [one.name for one in dataclasses.fields(ALGORITHMS[name])]  # type: ignore[arg-type]


def _check(name: str, key: str, value: object, bounds: Mapping[str, Any], *, given: bool) -> None:
    low, high, what = bounds[LOW], bounds[HIGH], bounds[WHAT]
    if not given and not bounds[REQUIRED]:
        return
    kind = int if bounds[WHOLE] else int | float
    number = isinstance(value, kind) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and low <= value <= high):  # type: ignore[arg-type]
        raise UsageProblem(
            "FLV-2207",
            f"{name} needs {key}, {what}: {'an integer' if bounds[WHOLE] else 'a number'} from {low:g} to {high:g}"
            + (f", got {value!r}" if given else ""),
            hint=f"give it to fluvial.fit(..., {key}=…), or in CONFIG where the file passes `**config.extra`",
        )
