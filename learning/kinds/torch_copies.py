"""Modules in the state in which ``model()`` makes them: made again, or copied where a copy is as good.

Making a module may take long (random initialisation, weights read from a disk), so a copy is preferred; but a copy is
not always what ``model()`` would have made. Python copies functions by reference, so a hook or a lambda in the copy may
reach into the original; torch's copies of parameters lose attributes and hooks. So a module is copied where it can be
shown that the copy shares nothing with it, and made again otherwise.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from aggregation.errors import UsageProblem

Make = Callable[[], nn.Module]
_COPYING: Final = ("__deepcopy__", "__copy__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__")
_HOOKS: Final = (
    "_backward_hooks",
    "_backward_pre_hooks",
    "_forward_hooks",
    "_forward_pre_hooks",
    "_load_state_dict_post_hooks",
    "_load_state_dict_pre_hooks",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
)


def fresh_from(
    make: Make, first: nn.Module, where: str, form: Callable[[nn.Module], Mapping[str, Hashable]]
) -> Make:
    """How to get modules as ``make`` makes them. ``first`` is one, and stays untouched.

    ``form``: what a copy has to agree in, ties among them. UsageProblem FLV-2221 when ``make`` returns what it returned
    before (a module that is kept), or one with parts of it, and that cannot be copied.
    """
    if _copies_are_as_good(first) and form(copy.deepcopy(first)) == form(first):
        return lambda: copy.deepcopy(first)
    known = {id(part) for part in _parts(first)}

    def made_again() -> nn.Module:
        made = make()
        if known.isdisjoint(id(part) for part in _parts(made)):
            return made
        try:
            return copy.deepcopy(made)
        except Exception as error:  # whatever the user's objects raise
            raise UsageProblem(
                "FLV-2221",
                f"model() returns a module that it has returned before, and that cannot be copied: {error}",
                where=where,
                hint="make all layers inside model(); keep the weights (a state_dict) of what is slow to load, "
                "not the module",
            ) from error

    return made_again


def _parts(module: nn.Module) -> Iterator[object]:
    yield from module.modules()
    yield from module.parameters()
    yield from module.buffers()


def _copies_are_as_good(module: nn.Module) -> bool:
    """Whether a deep copy shares nothing with ``module`` but what has a name of its own: classes, global functions.

    What pickles is of values and such names only: no closure, no lambda, no open file. Its tensors are not written.
    """
    for part in module.modules():
        if any(getattr(part, hooks, None) for hooks in _HOOKS) or _copies_in_its_own_way(type(part)):
            return False
    prover = _Prover()
    try:
        prover.dump(module)
    except Exception:  # noqa: BLE001 (whatever the user's objects raise: they do not pickle)
        return False
    return prover.plain


def _copies_in_its_own_way(kind: type) -> bool:
    """Whether a class outside of torch says how it is copied: then it may leave out what it likes."""
    return any(
        name in vars(base)
        for base in kind.__mro__
        if base is not object and not base.__module__.startswith("torch.")
        for name in _COPYING
    )


class _Nowhere:
    def write(self, data: bytes) -> int:
        return len(data)


class _Prover(pickle.Pickler):
    """Pickles to nowhere and looks at every tensor that is met."""

    def __init__(self) -> None:
        super().__init__(_Nowhere())
        self.plain = True

    def persistent_id(self, obj: Any) -> str | None:
        if not isinstance(obj, Tensor):
            return None
        self.plain = self.plain and _is_plain(obj)
        return "tensor"


def _is_plain(value: Tensor) -> bool:
    """Whether torch's copy of it is all of it."""
    return (
        type(value) in {Tensor, nn.Parameter, torch.nn.Buffer}
        and value.is_leaf
        and value.grad is None
        and not vars(value)
        and not getattr(value, "_backward_hooks", None)
        and not getattr(value, "_post_accumulate_grad_hooks", None)
    )
