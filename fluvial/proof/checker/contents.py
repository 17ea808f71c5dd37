"""What the tensors of an update hold, by the layout's sections, or why they are refused: schemas/meaning.md."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fluvial.proof.checker import buffers
from fluvial.proof.checker.arithmetic import Model
from fluvial.proof.checker.codecs import form_of
from fluvial.proof.checker.task import Task


@dataclass(frozen=True, slots=True)
class Contents:
    """The elements of an update's tensors, a flat array each; ``scales`` are the weights'."""

    parts: list[npt.NDArray[Any]]
    scales: list[float]
    values: list[Model]
    control: list[npt.NDArray[Any]]
    control_scales: list[float]


def contents_of(update: dict[str, Any], task: Task, policy: dict[str, Any]) -> Contents | str:
    """What an update holds, or the outcome that it deserves for its form or its numbers."""
    if update["codec"] not in policy["updates"]["codecs"]:
        return "wrong_layout"
    form, tensors = form_of(update["codec"]), update["tensors"]
    first, second = len(task.weights), len(task.weights) + len(task.buffers)
    learned, running, varied = tensors[:first], tensors[first:second], tensors[second:]
    fits = form.fits(learned, task.weights) and form.fits(varied, task.control)
    if not fits or not buffers.fit(running, task.buffers):
        return "wrong_layout"
    scales = [tensor["scale"] for tensor in tensors]
    parts, control = form.parts(learned, task.weights), form.parts(varied, task.control)
    values = buffers.values_in(running)
    finite = all(bool(np.isfinite(part).all()) for part in (*parts, *values, *control))
    if not finite or not all(math.isfinite(scale) and scale >= 0.0 for scale in scales):
        return "not_finite"
    if buffers.out_of_range(values, task.buffers):
        return "out_of_range"
    return Contents(parts, scales[:first], values, control, scales[second:])
