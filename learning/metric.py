"""``METRIC`` of a task file, and the check of what ``evaluate()`` calls its numbers, before anything is started.

::

    METRIC = "r2"                 which way is better is known of the well-known names
    METRIC = ("loan_default_cost", "lower")

A task without it is judged by the first number after the loss that ``evaluate()`` returns, else by the loss.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Final

from aggregation.errors import UsageProblem
from schemas.manifests import Metric
from schemas.task_metric import (
    HIGHER,
    WAYS,
    higher_is_better,
    name_instead,
    problem_with_name,
)

_LIKE: Final = 'METRIC = "accuracy", or METRIC = ("wer", "lower")'


def declared_metric(module: ModuleType, where: str) -> Metric | None:
    """The file's METRIC; None where it has none.

    Raises UsageProblem: FLV-2240, its name is reserved or none; FLV-2241, it is no name, or which way is better is not
    known of it.
    """
    if not hasattr(module, "METRIC"):
        return None
    value: object = module.METRIC
    if isinstance(value, str):
        check_metric_names([value], where, said_by="METRIC")
        way = higher_is_better(value)
        if way is None:
            raise UsageProblem(
                "FLV-2241",
                f"METRIC is {value!r}, of which it is not known whether higher or lower is better",
                where=where,
                hint=f'METRIC = ({value!r}, "lower") or METRIC = ({value!r}, "higher")',
            )
        return Metric(value, higher_is_better=way)
    match value:
        case (str(name), str(word)) if word in WAYS:
            check_metric_names([name], where, said_by="METRIC")
            return Metric(name, higher_is_better=word == HIGHER)
    raise UsageProblem(
        "FLV-2241",
        f'METRIC must be a name, or a name with "higher" or "lower", got {value!r}',
        where=where,
        hint=_LIKE,
    )


def check_metric_names(names: Iterable[str], where: str, *, said_by: str = "evaluate()") -> None:
    """UsageProblem FLV-2240 unless a record can have numbers of these names; it names each, and what to write."""
    refused = {name: problem for name in names if (problem := problem_with_name(name))}
    if not refused:
        return
    told = "; ".join(
        f"{', '.join(repr(name) for name in refused if refused[name] == problem)}: {problem}"
        for problem in dict.fromkeys(refused.values())
    )
    instead = ", ".join(f"{name!r} → {name_instead(name)!r}" for name in refused)
    raise UsageProblem(
        "FLV-2240",
        f"{said_by} has names that a number cannot have: {told}",
        where=where,
        hint=f"rename {instead}",
    )
