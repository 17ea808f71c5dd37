"""The root set: a guardian's own trusted examples, from which a guide comes; and whether it is one to go by. No torch.

A guide that knows half of the classes is worse than none: it refuses whoever has the others. Measured on digits, with
5 of 10 classes two thirds of the honest updates were refused, and with 30 examples the model ended at 0.57 to 0.91
where it reaches 0.94. So what a root set has to cover is checked before it guides anybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from aggregation.errors import UsageProblem
from learning.datasets import Examples
from learning.root_set_limits import (
    CLASS_EXAMPLES_MIN,
    CLASS_SHARE_MIN,
    CLASSES_MAX,
    EXAMPLES,
    EXAMPLES_MIN,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from learning.task import Task

CLASSES_SHOWN_MAX: Final = 10


@dataclass(frozen=True, slots=True, eq=False)
class RootSet:
    """Examples that somebody trusts. ``origin`` says where they come from; ``held_out`` what they should cover.

    ``held_out`` is None where the task has none on this machine. ``shared``: the evaluator evaluates on these, too.
    """

    examples: Examples
    origin: str
    held_out: Examples | None = None
    shared: bool = False


def root_set_of(task: Task, *, examples: int = EXAMPLES, path: str = "") -> RootSet:
    """A task's root set: what is at ``path``, else the task file's ``guide_data()``, else ``examples`` held-out ones.

    Raises UsageProblem: FLV-2250, ``guide_data()`` fails or returns something else; FLV-2233, the task has no data at
    all; what ``Task.local_data`` and ``Task.data`` raise.
    """
    held_out = task.data().test if task.has_data else None
    if path:
        return RootSet(task.local_data(path), f"the examples at {path}", held_out)
    own = task.guide_data()
    if own is not None:
        return RootSet(own, "guide_data() of the task file", held_out)
    every = task.data().test  # which says it where there are none
    chosen = spread(every, examples)
    return RootSet(chosen, f"{len(chosen)} of the {len(every)} held-out examples", held_out, shared=True)


def spread(every: Examples, count: int) -> Examples:
    """So many examples, the same ones each time: of each class its share, at least a few; else evenly spaced ones."""
    if count >= len(every):
        return every
    labels = _labels(every)
    if labels is None:
        return every.subset(_evenly(np.arange(len(every)), count))
    classes, sizes = np.unique(labels, return_counts=True)
    wanted = np.maximum(np.minimum(sizes, CLASS_EXAMPLES_MIN), sizes * count // len(every))
    chosen = [
        _evenly(np.flatnonzero(labels == label), int(number))
        for label, number in zip(classes, wanted, strict=True)
    ]
    return every.subset(np.sort(np.concatenate(chosen)))


def coverage_problems(root: RootSet) -> list[str]:
    """Why a root set is none to go by, a line each; empty for a good one."""
    examples, found = root.examples, []
    if len(examples) < EXAMPLES_MIN:
        found.append(f"it has {len(examples)} examples, at least {EXAMPLES_MIN} are wanted")
    wanted = None if root.held_out is None else _labels(root.held_out)
    if wanted is None:
        return found
    have = dict(zip(*_counted(examples), strict=True))
    missing, rare = [], []
    for label, size in zip(*_counted_labels(wanted), strict=True):
        count = have.get(label, 0)
        share, expected = count / len(examples), size / len(wanted)
        if count == 0:
            missing.append(label)
        elif count < min(CLASS_EXAMPLES_MIN, size) or share < CLASS_SHARE_MIN * expected:
            rare.append(label)
    classes = len(np.unique(wanted))
    if missing:
        found.append(f"{len(missing)} of the {classes} held-out classes are missing: {_named(missing)}")
    if rare:
        found.append(
            f"{len(rare)} of the {classes} held-out classes are rare: {_named(rare)}; each should have "
            f"{CLASS_EXAMPLES_MIN} examples, and {CLASS_SHARE_MIN:.0%} of its share of the held-out ones"
        )
    return found


def require_coverage(root: RootSet) -> None:
    """UsageProblem FLV-2251 unless the root set covers what the held-out examples have."""
    problems = coverage_problems(root)
    if problems:
        raise UsageProblem(
            "FLV-2251",
            f"the root set ({root.origin}) would make a bad guide: {'; '.join(problems)}",
            hint="give more and other examples: guide_data() in the task file, or `fluvial guardian --examples N`; "
            "`--accept-coverage` goes on all the same",
        )


def _labels(examples: Examples) -> NDArray[np.int64] | None:
    """The class of each example; None where the targets are no classes."""
    y = examples.y
    if y.dtype != np.int64 or y.ndim != 1 or len(np.unique(y)) > CLASSES_MAX:
        return None
    return y


def _counted(examples: Examples) -> tuple[list[Any], list[int]]:
    labels = _labels(examples)
    return ([], []) if labels is None else _counted_labels(labels)


def _counted_labels(labels: NDArray[np.int64]) -> tuple[list[Any], list[int]]:
    values, counts = np.unique(labels, return_counts=True)
    return values.tolist(), counts.tolist()


def _evenly(places: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    return places[np.linspace(0, len(places) - 1, min(count, len(places))).astype(np.int64)]


def _named(labels: list[Any]) -> str:
    more = len(labels) - CLASSES_SHOWN_MAX
    shown = ", ".join(map(str, labels[:CLASSES_SHOWN_MAX]))
    return f"{shown} and {more} more" if more > 0 else shown
