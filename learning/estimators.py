"""A helper for task files whose model is an estimator of scikit-learn. No torch here."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

Estimator = TypeVar("Estimator", bound=Any)


def fitted(estimator: Estimator, *, features: int, classes: int | None = None) -> Estimator:
    """The estimator after a ``partial_fit`` on zeros: its arrays have their shapes, and hold 0 where it starts there.

    The arrays are float32, as examples are: scikit-learn goes on in the dtype that it began with.
    classes: of a classifier, whose labels are 0 to classes − 1; None for a regression. A perceptron keeps the random
    weights that it starts with. Returns the same estimator.
    """
    if classes is None:
        estimator.partial_fit(np.zeros((1, features), np.float32), np.zeros(1, np.float32))
    else:
        labels = np.arange(classes)
        estimator.partial_fit(np.zeros((classes, features), np.float32), labels, classes=labels)
    for name in ("coef_", "intercept_"):
        if isinstance(getattr(estimator, name, None), np.ndarray):
            getattr(estimator, name)[...] = 0.0
    return estimator
