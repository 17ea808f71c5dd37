"""``torch.nn.Module``: the layout is the floating-point entries of ``state_dict()``, in its order.

- Integer and boolean entries (such as BatchNorm's ``num_batches_tracked``) are left out: they cannot be averaged.
- An entry that is an earlier one once more (tied weights) is left out: it would count twice.
- Empty entries are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from aggregation.errors import UsageProblem
from aggregation.layout import DTYPE
from learning.kinds.protocol import Anatomy, Flat, Kind, ModelTensor, Values
from learning.kinds.torch_copies import fresh_from
from learning.kinds.torch_hidden import hint_for

_RIGHT_FILE: Final = "use the task file that the checkpoint was trained with"


class TorchModule:
    """The kind ``torch``; see ``learning.kinds.protocol.Kind``."""

    name: Final = "torch"

    def check(self, made: nn.Module, where: str) -> None:
        """Refuse lazy, complex and non-finite tensors, and a module with nothing to train: FLV-2204."""
        for name, value in [*made.named_parameters(), *made.named_buffers()]:
            if is_lazy(value):
                raise UsageProblem(
                    "FLV-2204",
                    f"parameter {name} has no shape yet (a lazy layer)",
                    where=where,
                    hint="give the layer its input size, or call the model on one example inside model()",
                )
            if value.is_complex():
                raise UsageProblem(
                    "FLV-2204",
                    f"parameter {name} is {value.dtype}; only real floating-point parameters can be averaged",
                    where=where,
                    hint="hold its real and imaginary parts as two real parameters",
                )
        if not any(value.requires_grad and value.numel() > 0 for value in made.parameters()):
            raise UsageProblem(
                "FLV-2204",
                "the model has no trainable parameter",
                where=where,
                hint=hint_for(made),
            )
        for name, value in made.state_dict().items():
            floats = isinstance(value, Tensor) and value.is_floating_point()
            if floats and not bool(torch.isfinite(value).all()):
                raise UsageProblem(
                    "FLV-2204", f"parameter {name} starts with NaN or infinite values", where=where
                )

    def source(self, make: Callable[[], nn.Module], first: nn.Module, where: str) -> Callable[[], nn.Module]:
        """Copies of ``first`` where they are as good as what ``make`` makes; else what it makes."""
        return fresh_from(make, first, where, self.form)

    def anatomy(self, model: nn.Module) -> Anatomy:
        """The floating-point entries of its state, each once."""
        tensors = tuple(
            ModelTensor(name, tuple(value.shape), dtype=_dtype_of(value))
            for name, value in _learned(model).items()
        )
        return Anatomy(self.name, tensors, dict(_tied(model)))

    def load(self, model: nn.Module, anatomy: Anatomy, flat: Flat) -> None:
        """Write float32[P] into the module, in place; FLV-2213, FLV-2220."""
        layout = anatomy.layout
        if flat.shape != (layout.parameters,) or flat.dtype != np.float32:
            raise UsageProblem(
                "FLV-2213",
                f"the model takes float32[{layout.parameters}] parameters, got {flat.dtype}{list(flat.shape)}",
                hint=_RIGHT_FILE,
            )
        targets = _chosen(model, anatomy)
        source = torch.from_numpy(np.ascontiguousarray(flat) if flat.flags.writeable else flat.copy())
        with torch.no_grad():
            for start, tensor, target in zip(layout.starts[:-1], anatomy.tensors, targets, strict=True):
                part = source[start : start + target.numel()].view(target.shape)
                target.copy_(part)
                if tensor.dtype != DTYPE and bool((torch.isfinite(part) & ~torch.isfinite(target)).any()):
                    raise UsageProblem(
                        "FLV-2220",
                        f"{tensor.name} cannot be held in {tensor.dtype}: it has values up to "
                        f"{part.abs().max().item():.4g}",
                        hint="make that layer in float32 or bfloat16 in model(), or lower the learning rates; "
                        "either is a new task",
                    )

    def values(self, model: nn.Module, anatomy: Anatomy) -> Values:
        """A copy of what the module holds, in layout order, each tensor in C order."""
        wide = torch.float64 if anatomy.wide else torch.float32
        parts = [value.detach().to("cpu", wide).reshape(-1).numpy() for value in _chosen(model, anatomy)]
        return np.concatenate(parts)  # a copy in any case

    def form(self, model: nn.Module) -> Mapping[str, str]:
        """Dtype, shape and tie of every floating-point entry of the state."""
        tied = dict(_tied(model))
        return {
            name: f"{_dtype_of(value)}{list(value.shape)}"
            + (f", the same as {tied[name]}" if name in tied else "")
            for name, value in _floats(model)
        }

    def mode(self, model: nn.Module, *, training: bool) -> AbstractContextManager[object]:
        """``train()``, or ``eval()`` and no gradients."""
        model.train(training)
        return nullcontext() if training else torch.no_grad()


def _floats(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every floating-point entry of the state that is not empty, the parameters themselves among them."""
    for name, value in model.state_dict(keep_vars=True).items():
        if isinstance(value, Tensor) and value.is_floating_point() and value.numel() > 0:
            yield name, value


def _learned(model: nn.Module) -> dict[str, Tensor]:
    """Each of these once, under its first name."""
    tied = dict(_tied(model))
    return {name: value for name, value in _floats(model) if name not in tied}


def _tied(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Each name that is an earlier tensor once more, and that tensor's name."""
    first: dict[tuple[int, torch.Size, tuple[int, ...]], str] = {}
    for name, value in _floats(model):
        place = (value.data_ptr(), value.shape, value.stride())
        if place in first:
            yield name, first[place]
        else:
            first[place] = name


def _chosen(model: nn.Module, anatomy: Anatomy) -> list[Tensor]:
    """The layout's tensors, which share the model's memory. UsageProblem FLV-2213 when they are not the model's."""
    state = dict(_floats(model))
    for tensor in anatomy.tensors:
        value = state.get(tensor.name)
        if value is None or tuple(value.shape) != tensor.shape:
            got = "no such tensor" if value is None else str(tuple(value.shape))
            raise UsageProblem(
                "FLV-2213",
                f"the weights are of another model: {tensor.name} is {tensor.shape}, the task's model has {got}",
                hint=_RIGHT_FILE,
            )
    return [state[tensor.name] for tensor in anatomy.tensors]


def _dtype_of(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


KIND: Final[Kind] = TorchModule()
