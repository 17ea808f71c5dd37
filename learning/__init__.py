"""Models, data and local training: the only part of Fluvial that knows torch and other libraries of models.

A task is one file of four short functions (see ``learning/tasks/digits.py``). What such a file needs is
here, under one name::

    import learning

    learning.fit(model, data, config, loss)     minibatch SGD, in place, over one device's examples
    learning.fitted(estimator, features=64, classes=10)   one of scikit-learn, with its arrays
    learning.lora(model, rank=8)                a frozen base with adapters of low rank, which are trained
    learning.score(model, data)                 {"loss": ..., "accuracy": ...} of a classifier
    learning.Dataset(train=(x, y), test=(x, y)) what ``data()`` returns
    learning.digits(), learning.fashion()       the shipped data sets

Names are resolved on first use, so ``import learning`` alone does not load torch (which takes seconds).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from learning.adapters import lora, without_lora
    from learning.config import TrainConfig
    from learning.datasets import Dataset, Examples, digits, fashion
    from learning.estimators import fitted
    from learning.helpers import fit, personal_score, score
    from learning.task import Task, load_task

__all__ = [
    "Dataset",
    "Examples",
    "Task",
    "TrainConfig",
    "digits",
    "fashion",
    "fit",
    "fitted",
    "load_task",
    "lora",
    "personal_score",
    "score",
    "without_lora",
]

_HOMES: Final = {
    "Dataset": "learning.datasets",
    "Examples": "learning.datasets",
    "Task": "learning.task",
    "TrainConfig": "learning.config",
    "digits": "learning.datasets",
    "fashion": "learning.datasets",
    "fit": "learning.helpers",
    "fitted": "learning.estimators",
    "load_task": "learning.task",
    "lora": "learning.adapters",
    "personal_score": "learning.helpers",
    "score": "learning.helpers",
    "without_lora": "learning.adapters",
}


def __getattr__(name: str) -> object:
    """Import the module that holds ``name`` when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'learning' has no attribute {name!r}; it offers {', '.join(__all__)}")
    home = _HOMES[name].removeprefix("learning")
    return getattr(importlib.import_module(__name__ + home), name)  # a process may know us by a longer name
