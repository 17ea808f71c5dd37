"""The kinds of models that a task may have: one file a kind, one table. See ``learning.kinds.protocol``.

A kind's module imports its library; it is imported when a model of that library is met, and not before.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final, NamedTuple

from aggregation.errors import UsageProblem

if TYPE_CHECKING:
    from learning.kinds.protocol import Kind, Model


class _Entry(NamedTuple):
    """Where a kind is, and the class by which its models are known without importing anything."""

    module: str
    base_class: str
    article: str


_KINDS: Final = {
    "torch": _Entry("torch_module", "torch.nn.modules.module.Module", "a torch.nn.Module"),
    "sklearn": _Entry("scikit_learn", "sklearn.base.BaseEstimator", "a scikit-learn estimator"),
    "numpy": _Entry("numpy_arrays", "builtins.dict", "a dict of numpy arrays"),
}


def kind_named(name: str) -> Kind:
    """The kind of this name, as a genesis document says it. KeyError when there is none."""
    entry = _KINDS[name]
    found: Kind = importlib.import_module(f"{__name__}.{entry.module}").KIND
    return found


def kind_of(made: Model, where: str) -> Kind:
    """The kind of what ``model()`` returned; UsageProblem FLV-2204 when it is no model. ``where`` is the task file."""
    name = _name_of(type(made))
    if name is not None:
        return kind_named(name)
    wanted = " or ".join(entry.article for entry in _KINDS.values())
    if isinstance(made, type) and _name_of(made) is not None:
        problem = f"model() must return {wanted} instance, got the class {made.__name__}"
        hint = f"return {made.__name__}()"
    else:
        problem = f"model() must return {wanted}, got {type(made).__name__}"
        hint = "end model() with: return the_module"
    raise UsageProblem("FLV-2204", problem, where=where, hint=hint)


def _name_of(kind: type) -> str | None:
    bases = {f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__}
    return next((name for name, entry in _KINDS.items() if entry.base_class in bases), None)
