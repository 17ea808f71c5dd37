"""LoRA: a frozen base, and adapters of low rank that are all that a device trains and sends.

E. Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2021, section 4.1: W₀ x + (alpha / r) B A x, with A
drawn from a Gaussian and B zero at the start, so that an adapted model begins as its base.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Final, TypeVar

import torch
from torch import Tensor, nn

from aggregation.errors import UsageProblem

Module = TypeVar("Module", bound=nn.Module)
RANK: Final = 8
ALPHA: Final = 16.0
_NAMES_SHOWN: Final = 8


class LoraLinear(nn.Module):
    """A linear layer x → W₀ x + b + (alpha / rank) B A x, of which only A [rank, in] and B [out, rank] are trained."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.base = base
        self.scale = alpha / rank
        drawn = torch.randn(rank, base.in_features) / base.in_features**0.5
        self.lora_a = nn.Parameter(drawn.to(base.weight))
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, rank).to(base.weight))

    def forward(self, x: Tensor) -> Tensor:
        """The layer's outputs [..., out] for inputs [..., in]."""
        outputs: Tensor = self.base(x)
        return outputs + self.scale * (x @ self.lora_a.T @ self.lora_b.T)

    @property
    def weight(self) -> Tensor:
        """W₀ + (alpha / rank) B A, for layers of torch (attention, encoders) that take it instead of calling."""
        return self.base.weight + self.scale * (self.lora_b @ self.lora_a)

    @property
    def bias(self) -> Tensor | None:
        """The base's own, frozen."""
        return self.base.bias

    @property
    def in_features(self) -> int:
        """Of the base."""
        return self.base.in_features

    @property
    def out_features(self) -> int:
        """Of the base."""
        return self.base.out_features


def lora(
    model: Module,
    rank: int = RANK,
    alpha: float = ALPHA,
    targets: str | Sequence[str] = "*",
    trained: str | Sequence[str] = (),
) -> Module:
    """Freeze ``model`` and give its linear layers adapters, in place; returns it.

    rank: r, 1 to the smaller side of every adapted layer. alpha: above 0; what the adapters add is scaled by
    alpha / rank. targets: names of the ``nn.Linear`` layers that get adapters, as ``named_modules()`` has them, with
    ``*`` for anything: ("blocks.*.query", "blocks.*.value"). trained: names of parameters that are trained whole
    beside the adapters, such as "head.*".

    The tensors of a layer ``name`` become ``name.base.weight`` and ``name.base.bias``, frozen, and ``name.lora_a`` and
    ``name.lora_b``. So updates, and a version's own file, have the adapters' size; the base travels to a device once.
    Running statistics of a batch normalization are buffers, and are learned together as ever.
    Raises UsageProblem FLV-2204 where no linear layer is called so, or rank or alpha are out of bounds.
    """
    if not alpha > 0:
        raise UsageProblem(
            "FLV-2204", f"lora: alpha must be above 0, got {alpha!r}", hint="alpha=16 is usual"
        )
    every = model.named_modules(remove_duplicate=False)
    linear = {name: layer for name, layer in every if isinstance(layer, nn.Linear) and name}
    chosen = _chosen(linear, targets, "targets", "linear layer")
    for name in chosen:
        _check_rank(rank, name, linear[name])
    parameters = dict(model.named_parameters())
    whole = _chosen(parameters, trained, "trained", "parameter") if trained else []
    model.requires_grad_(False)  # noqa: FBT003 (torch's own signature)
    for name in whole:
        parameters[name].requires_grad_()
    adapters: dict[int, LoraLinear] = {}  # a layer that stands in two places keeps doing so
    for name in chosen:
        layer = linear[name]
        adapter = adapters.setdefault(id(layer), LoraLinear(layer, rank, alpha))
        owner, _, own_name = name.rpartition(".")
        setattr(model.get_submodule(owner), own_name, adapter)
    return model


def without_lora(model: Module) -> Module:
    """A copy of ``model`` in which adapters are added to their layers' weights, as its base was built.

    Section 4.1: W₀ + (alpha / r) B A is a weight like any other, so what is used costs no more than the base.
    """
    merged = copy.deepcopy(model)
    for name, layer in list(merged.named_modules(remove_duplicate=False)):
        if isinstance(layer, LoraLinear):
            with torch.no_grad():
                layer.base.weight.copy_(layer.weight)
                layer.lora_b.zero_()
            owner, _, own_name = name.rpartition(".")
            setattr(merged.get_submodule(owner), own_name, layer.base)
    return merged


def _chosen(named: Iterable[str], patterns: str | Sequence[str], key: str, what: str) -> list[str]:
    """The names that fit one of the patterns; each pattern has to fit some."""
    wanted = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    names = list(named)
    for pattern in wanted:
        if not any(fnmatchcase(name, pattern) for name in names):
            more = ", …" if len(names) > _NAMES_SHOWN else ""
            raise UsageProblem(
                "FLV-2204",
                f"lora: no {what} is called {pattern!r}; there are {', '.join(names[:_NAMES_SHOWN]) or 'none'}{more}",
                hint=f"give {key} names of these, with * for anything",
            )
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in wanted)]


def _check_rank(rank: int, name: str, layer: nn.Linear) -> None:
    most = min(layer.in_features, layer.out_features)
    if isinstance(rank, bool) or not 1 <= rank <= most:
        raise UsageProblem(
            "FLV-2204",
            f"lora: the rank must be an integer from 1 to {most}, the smaller side of {name}, got {rank!r}",
            hint=f"choose another rank, or targets without {name}",
        )
