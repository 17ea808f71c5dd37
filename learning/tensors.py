"""A task's model as one flat float32 vector, and back: for those who have a model or its arrays at hand.

What is in the vector, and in which order, is the business of the model's kind: see ``learning.kinds``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from aggregation.errors import UsageProblem
from aggregation.layout import WEIGHTS
from learning.kinds import kind_of
from learning.kinds.protocol import Flat, Model
from learning.private import State, put
from learning.randomness import seeded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from learning.task import Task
    from schemas.tensor_files import RawTensor

TensorLayout = list[tuple[str, tuple[int, ...]] | tuple[str, tuple[int, ...], str]]


def layout_of(model: Model) -> TensorLayout:
    """What is learned together: (name, shape) of weights, (name, shape, "buffers") of running statistics.

    As ``aggregation.layout.Layout.of`` takes them. A scalar parameter has the shape ().
    """
    return [
        (tensor.name, tensor.shape)
        if tensor.section == WEIGHTS
        else (tensor.name, tensor.shape, tensor.section)
        for tensor in kind_of(model, "").anatomy(model).tensors
    ]


def parameters_of(model: Model) -> Flat:
    """A copy of all shared tensors as float32[P]: concatenated in layout order, each in C order."""
    kind = kind_of(model, "")
    return kind.values(model, kind.anatomy(model)).astype(np.float32)


def load_parameters(model: Model, flat: Flat) -> None:
    """Write float32[P] into the model, in place. Raises UsageProblem FLV-2213 if P is not the model's."""
    kind = kind_of(model, "")
    kind.load(model, kind.anatomy(model), flat)


def model_with(task: Task, state: Mapping[str, RawTensor], private: State | None = None) -> Model:
    """The task's own model in this state, with a device's ``private`` layers where they are given.

    Raises UsageProblem FLV-2213 when the state is another model's, FLV-2254 when the private layers are.
    """
    model = task.fresh_model()
    try:
        task.kind.load_state(model, state)
    except UsageProblem as problem:
        problem.where = problem.where or str(task.path)
        raise
    put(task, model, private)
    return model


def first_model(task: Task, seed: int) -> Model:
    """What ``task.model()`` makes from this seed; the process's own random state is left as it was.

    The same for the same seed and torch version. It may be a module that the task file keeps: only look at it.
    """
    with seeded(seed):
        return task.model()


def initial_parameters(task: Task, seed: int) -> Flat:
    """The weights that ``task.model()`` starts from, float32[P].

    The same for the same seed and torch version; the process's own random state is left as it was.
    """
    model = first_model(task, seed)
    return task.kind.values(model, task.anatomy_of(model)).astype(np.float32)
