"""A dict of numpy arrays: the layout is its floating-point arrays, in the dict's order.

``train(model, data, config)`` changes them in place or puts others of the same shape and dtype into the dict. What else
the dict holds is each round as ``model()`` made it. Where its names are those of a torch module with norms, their
running statistics are buffers, as they are in the module itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from learning.kinds.array_models import Array, ArrayKind
from learning.kinds.protocol import Kind

_COUNTER: Final = "num_batches_tracked"
_STATISTICS: Final = ("running_mean", "running_var")


class NumpyArrays(ArrayKind):
    """The kind ``numpy``; see ``learning.kinds.protocol.Kind``."""

    name: Final = "numpy"

    def arrays(self, model: Mapping[str, Any]) -> Mapping[str, Array]:
        """The dict's entries that are arrays of floating-point numbers."""
        return {
            str(name): value
            for name, value in model.items()
            if isinstance(value, np.ndarray) and value.dtype.kind == "f"
        }

    def statistics(self, model: Mapping[str, Any]) -> frozenset[str]:
        """Of a torch module's ``state_dict()`` as arrays: a norm that counts its batches has a mean and a variance."""
        norms = [name.removesuffix(_COUNTER) for name in map(str, model) if name.endswith(_COUNTER)]
        found = {f"{norm}{statistic}" for norm in norms for statistic in _STATISTICS}
        return frozenset(found & self.arrays(model).keys())

    def nothing_to_learn(self, made: Mapping[str, Any]) -> tuple[str, str]:
        """A dict without arrays is no model."""
        found = ", ".join(f"{name}: {type(value).__name__}" for name, value in list(made.items())[:4])
        return (
            f"model() must return a dict of numpy arrays of floating-point numbers, got {{{found}}}",
            'return {"weights": numpy.zeros((64, 10)), "bias": numpy.zeros(10)}, for instance',
        )


KIND: Final[Kind] = NumpyArrays()
