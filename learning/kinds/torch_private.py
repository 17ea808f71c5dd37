"""Private tensors of a ``torch.nn.Module``: finding them by what a task file says, reading, writing, hiding them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final

import torch
from torch import Tensor, nn

from aggregation.errors import UsageProblem
from learning.kinds.torch_module import KIND, raw_of, state_of, tensor_of
from schemas.tensor_files import RawTensor

Wanted = Sequence[str | type]
"""Names with ``*`` for anything, or classes of modules: all tensors of theirs."""
_NAMES_SHOWN: Final = 8


def names_of(model: nn.Module, wanted: Wanted, where: str = "") -> list[str]:
    """The names in ``state_dict()`` that are wanted, in its order; UsageProblem FLV-2252 where one means nothing."""
    names = [name for name, _ in state_of(model)]
    found: set[str] = set()
    for one in wanted:
        mine = _of_class(model, one) if isinstance(one, type) else {n for n in names if fnmatchcase(n, one)}
        if not mine:
            shown = ", ".join(names[:_NAMES_SHOWN]) + (", …" if len(names) > _NAMES_SHOWN else "")
            said = one.__name__ if isinstance(one, type) else repr(one)
            raise UsageProblem(
                "FLV-2252",
                f"PRIVATE has {said}, and the model has no such tensor; it has {shown}",
                where=where,
                hint="give names as state_dict() has them, with * for anything, or a class of layers",
            )
        found |= mine
    for name, first in KIND.anatomy(model).tied.items():
        if (name in found) != (first in found):
            raise UsageProblem(
                "FLV-2252",
                f"PRIVATE has one of {first} and {name}, which are one tensor (tied)",
                where=where,
                hint="name both, or neither",
            )
    return [name for name in names if name in found]


def read(model: nn.Module, names: Iterable[str]) -> dict[str, RawTensor]:
    """A copy of these tensors."""
    state = dict(state_of(model))
    return {name: raw_of(state[name]) for name in names}


@torch.no_grad()
def write(model: nn.Module, tensors: Mapping[str, RawTensor]) -> None:
    """Put these tensors into the module, in place; names, shapes and dtypes are known to fit."""
    state = dict(state_of(model))
    for name, raw in tensors.items():
        state[name].copy_(tensor_of(raw))


@torch.no_grad()
def hide(model: nn.Module, names: Iterable[str]) -> None:
    """Make every number of these tensors NaN, so that whatever is computed from them shows it."""
    state = dict(state_of(model))
    for name in names:
        if state[name].is_floating_point():
            state[name].fill_(torch.nan)


def broken(model: nn.Module, names: Iterable[str]) -> str:
    """The first of these tensors that holds NaN or infinity; "" where none does."""
    state = dict(state_of(model))
    return next(
        (n for n in names if state[n].is_floating_point() and not bool(torch.isfinite(state[n]).all())), ""
    )


def owners(model: nn.Module, names: Iterable[str]) -> Iterator[tuple[str, nn.Module]]:
    """(name, module) of those modules that hold one of these tensors themselves, each once."""
    for owner in dict.fromkeys(name.rpartition(".")[0] for name in names):
        yield owner, model.get_submodule(owner)


def personal_parameters(model: nn.Module, names: Iterable[str]) -> list[nn.Parameter]:
    """Those of the trained parameters that have one of these names."""
    state: dict[str, Tensor] = dict(state_of(model))
    chosen = (state[name] for name in names)
    return [one for one in chosen if isinstance(one, nn.Parameter) and one.requires_grad]


def _of_class(model: nn.Module, kind: type) -> set[str]:
    names = [name for name, _ in state_of(model)]
    homes = [home for home, part in model.named_modules(remove_duplicate=False) if isinstance(part, kind)]
    return {name for name in names for home in homes if name.startswith(f"{home}." if home else "")}
