"""Estimators of scikit-learn that learn by ``partial_fit``: linear models and small perceptrons.

The layout is what the estimator has learned: ``coef_`` and ``intercept_``, or ``coefs_`` and ``intercepts_`` of a
perceptron. These exist once it has seen an example of every class, so ``model()`` lets it (``fluvial.fitted`` does).
All else, such as counters of a learning-rate schedule, is each round as ``model()`` made it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from learning.kinds.array_models import Array, ArrayKind
from learning.kinds.protocol import Kind

LEARNED: Final = ("coef_", "intercept_", "coefs_", "intercepts_")
"""Attributes that hold what an estimator has learned: an array, or a list of arrays."""


class ScikitLearn(ArrayKind):
    """The kind ``sklearn``; see ``learning.kinds.protocol.Kind``."""

    name: Final = "sklearn"

    def arrays(self, model: Any) -> Mapping[str, Array]:
        """``coef_`` and the like; of a list, each array with its number."""
        found: dict[str, Array] = {}
        for name in LEARNED:
            value = vars(model).get(name)
            if isinstance(value, np.ndarray):
                found[name] = value
            elif isinstance(value, list):
                found |= {f"{name}.{number}": one for number, one in enumerate(value)}
        return found

    def nothing_to_learn(self, made: Any) -> tuple[str, str]:
        """An estimator that has not seen anything, or one that learns otherwise."""
        kind = type(made).__name__
        if callable(getattr(made, "partial_fit", None)):
            return (
                f"the {kind} has no {LEARNED[0]} yet: it does not know how many features and classes there are",
                "return fluvial.fitted(it, features=64, classes=10) from model(); without classes for a regression",
            )
        return (
            f"a {kind} cannot be learned together: it has no {LEARNED[0]} and no partial_fit",
            "take a linear model such as SGDClassifier or SGDRegressor, or an MLPClassifier",
        )


KIND: Final[Kind] = ScikitLearn()
