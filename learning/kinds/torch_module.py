"""``torch.nn.Module``: which part of its ``state_dict()`` is learned together.

- Parameters that require gradients are the section ``weights``; floating-point buffers are the section ``buffers``.
- An entry that is an earlier one once more (tied weights) is named as such: it would count twice.
- All else is frozen: parameters without gradients, constants such as a mask of -inf, and integers (such as BatchNorm's
  ``num_batches_tracked``), which cannot be averaged.

Entries that are not in ``state_dict()`` (buffers that are not persistent) are as ``model()`` makes them.
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
from aggregation.layout import BUFFERS, WEIGHTS
from learning.kinds.protocol import DTYPES, Anatomy, Flat, Kind, ModelTensor, Values
from learning.kinds.torch_copies import fresh_from
from learning.kinds.torch_hidden import hint_for
from schemas.tensor_files import RawTensor

_RIGHT_FILE: Final = "use the task file that the checkpoint was trained with"
_LEARNED: Final = frozenset(getattr(torch, name) for name in DTYPES)
_NARROW: Final = frozenset({torch.float16, torch.bfloat16})


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
        for name, value in _floats(made):
            if _is_trained(value) and value.dtype not in _LEARNED:
                raise UsageProblem(
                    "FLV-2204",
                    f"parameter {name} is {value.dtype}; devices train {', '.join(DTYPES)}",
                    where=where,
                    hint="make that layer in one of these, or freeze it: requires_grad_(False)",
                )
            constant = not isinstance(value, nn.Parameter)  # a mask of -inf, say
            broken = torch.isnan(value) if constant else ~torch.isfinite(value)
            if bool(broken.any()):
                raise UsageProblem(
                    "FLV-2204", f"parameter {name} starts with NaN or infinite values", where=where
                )

    def source(self, make: Callable[[], nn.Module], first: nn.Module, where: str) -> Callable[[], nn.Module]:
        """Copies of ``first`` where they are as good as what ``make`` makes; else what it makes."""
        return fresh_from(make, first, where, self.form)

    def anatomy(self, model: nn.Module) -> Anatomy:
        """The trained parameters, then the buffers, both in the order of ``state_dict()``; the rest is frozen."""
        tied = dict(_tied(model))
        trained = {tied.get(name, name) for name, value in state_of(model) if _is_trained(value)}
        weights, buffers, frozen = [], [], {}
        for name, value in state_of(model):
            if name in tied:
                continue
            shape, dtype = tuple(value.shape), _dtype_of(value)
            if name in trained and value.numel() > 0:
                weights.append(ModelTensor(name, shape, WEIGHTS, dtype))
            elif _is_statistic(value):
                positive = name.rpartition(".")[2] == "running_var" and bool((value >= 0).all())
                buffers.append(ModelTensor(name, shape, BUFFERS, dtype, positive))
            else:
                frozen[name] = raw_of(value)
        return Anatomy(self.name, (*weights, *buffers), tied, frozen)

    def load(self, model: nn.Module, anatomy: Anatomy, flat: Flat) -> None:
        """Write float32[P] and the frozen tensors into the module, in place; FLV-2213, FLV-2220."""
        layout = anatomy.layout
        if flat.shape != (layout.parameters,) or flat.dtype != np.float32:
            raise UsageProblem(
                "FLV-2213",
                f"the model takes float32[{layout.parameters}] parameters, got {flat.dtype}{list(flat.shape)}",
                hint=_RIGHT_FILE,
            )
        state = dict(state_of(model))
        expected = {tensor.name: tensor.shape for tensor in anatomy.tensors}
        for name, shape in (expected | {name: raw.shape for name, raw in anatomy.frozen.items()}).items():
            _check_shape(name, shape, state.get(name))
        source = torch.from_numpy(np.ascontiguousarray(flat) if flat.flags.writeable else flat.copy())
        with torch.no_grad():
            for start, name in zip(layout.starts[:-1], layout.names, strict=True):
                target = state[name]
                part = source[start : start + target.numel()].view(target.shape)
                target.copy_(part)
                if target.dtype in _NARROW and bool((torch.isfinite(part) & ~torch.isfinite(target)).any()):
                    raise UsageProblem(
                        "FLV-2220",
                        f"{name} cannot be held in {_dtype_of(target)}: it has values up to "
                        f"{part.abs().max().item():.4g}",
                        hint="make that layer in float32 or bfloat16 in model(), or lower the learning rates; "
                        "either is a new task",
                    )
            for name, raw in anatomy.frozen.items():
                wanted = tensor_of(raw).to(state[name].dtype)
                if not torch.equal(state[name], wanted):
                    state[name].copy_(wanted)

    def load_state(self, model: nn.Module, state: Mapping[str, RawTensor]) -> None:
        """Write a whole state into the module, in place; FLV-2213."""
        own, tied = dict(state_of(model)), dict(_tied(model))
        found: dict[str, RawTensor] = {}
        for name, raw in state.items():
            value = own.get(name)
            _check_shape(name, raw.shape, value)
            found.setdefault(tied.get(name, name), raw)
        for name, value in own.items():
            if name not in tied and name not in found and value.is_floating_point() and value.numel() > 0:
                raise UsageProblem(
                    "FLV-2213",
                    f"the weights are of another model: {name} is missing, the task's model has {tuple(value.shape)}",
                    hint=_RIGHT_FILE,
                )
        with torch.no_grad():
            for name, raw in found.items():
                wanted = tensor_of(raw).to(own[name].dtype)
                if not torch.equal(
                    own[name], wanted
                ):  # some cannot be written to, such as an expanded tensor
                    own[name].copy_(wanted)

    def values(self, model: nn.Module, anatomy: Anatomy) -> Values:
        """A copy of what the module holds, in layout order, each tensor in C order."""
        state = dict(state_of(model))
        chosen = [state[tensor.name].detach() for tensor in anatomy.tensors]
        wide = torch.float64 if any(value.dtype == torch.float64 for value in chosen) else torch.float32
        return np.concatenate([value.to("cpu", wide).reshape(-1).numpy() for value in chosen])  # a copy

    def moved(self, model: nn.Module, anatomy: Anatomy) -> str:
        """A floating-point tensor that is frozen and was changed; counters may count."""
        state = dict(state_of(model))
        for name, raw in anatomy.frozen.items():
            value = state.get(name)
            if value is not None and value.is_floating_point():
                wanted = tensor_of(raw).to(value.dtype)
                if not torch.equal(value.detach().to("cpu"), wanted):
                    return name
        return ""

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


def raw_state(state: Mapping[str, object]) -> dict[str, RawTensor]:
    """The tensors of a ``state_dict()``."""
    return {name: raw_of(value) for name, value in state.items() if isinstance(value, Tensor)}


def anatomy_before_v3(model: nn.Module) -> Anatomy:
    """As tasks of older genesis formats have it: all that is a float is a weight, and nothing is frozen."""
    tied = dict(_tied(model))
    tensors = [ModelTensor(name, tuple(value.shape)) for name, value in _floats(model) if name not in tied]
    return Anatomy(KIND.name, tuple(tensors), {}, {})


def state_of(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the state, the parameters themselves among them."""
    for name, value in model.state_dict(keep_vars=True).items():
        if isinstance(value, Tensor):
            yield name, value


def _floats(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, value in state_of(model):
        if value.is_floating_point() and value.numel() > 0:
            yield name, value


def _tied(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Each name that is an earlier tensor once more, and that tensor's name."""
    first: dict[tuple[int, torch.Size, tuple[int, ...], torch.dtype], str] = {}
    for name, value in state_of(model):
        if value.numel() == 0:
            continue
        place = (value.data_ptr(), value.shape, value.stride(), value.dtype)
        if place in first:
            yield name, first[place]
        else:
            first[place] = name


def _is_trained(value: Tensor) -> bool:
    return isinstance(value, nn.Parameter) and value.requires_grad


def _is_statistic(value: Tensor) -> bool:
    """Whether devices' values of it can be averaged: a buffer of floats. An attention mask of -inf is a constant."""
    return (
        not isinstance(value, nn.Parameter)
        and value.numel() > 0
        and value.dtype in _LEARNED
        and bool(torch.isfinite(value).all())
    )


def _check_shape(name: str, shape: tuple[int, ...], value: Tensor | None) -> None:
    if value is None or tuple(value.shape) != shape:
        got = "no such tensor" if value is None else str(tuple(value.shape))
        raise UsageProblem(
            "FLV-2213",
            f"the weights are of another model: {name} is {shape}, the task's model has {got}",
            hint=_RIGHT_FILE,
        )


def raw_of(value: Tensor) -> RawTensor:
    """A copy of a tensor."""
    flat = value.detach().to("cpu").contiguous().reshape(-1)
    return RawTensor(_dtype_of(value), tuple(value.shape), flat.view(torch.uint8).numpy().copy())


def tensor_of(raw: RawTensor) -> Tensor:
    """A tensor of these bytes."""
    data = raw.data if raw.data.flags.writeable else raw.data.copy()
    return torch.from_numpy(data).view(getattr(torch, raw.dtype)).reshape(raw.shape)


def _dtype_of(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


KIND: Final[Kind] = TorchModule()
