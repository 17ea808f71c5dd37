"""Why a module seems to have nothing to train: what torch does not see, in a plain container or attribute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from torch import Tensor, nn

_DEPTH_MAX: Final = 3
_ADD: Final = "add a layer to model()"


def hint_for(module: nn.Module) -> str:
    """What to change in model() so that the module has a trainable parameter."""
    for path, owner in module.named_modules():
        for name, value in vars(owner).items():
            if not name.startswith("_"):
                called = f"self.{name}" if not path else f"self.{path}.{name}"
                if hint := _hidden_in(called, value):
                    return hint
    frozen = sum(value.numel() for value in module.parameters())
    if frozen:
        return f"all {frozen} parameters are frozen: leave requires_grad=True on what is to be trained, or add a layer"
    return _ADD


def _hidden_in(called: str, value: Any) -> str:
    """A hint for one attribute; "" where it hides nothing."""
    if isinstance(value, Tensor):
        learns = value.requires_grad and value.is_floating_point()
        return (
            f"{called} is a plain tensor, which torch does not train: make it nn.Parameter(...)"
            if learns
            else ""
        )
    if not isinstance(value, list | tuple | set | Mapping):
        return ""
    within = list(_contents(value, _DEPTH_MAX))
    word, container = ("dict", "Dict") if isinstance(value, Mapping) else (type(value).__name__, "List")
    if any(isinstance(one, nn.Module) for one in within):
        wanted = f"nn.Module{container}"
        return f"torch does not see the modules in {called}, a plain {word}: make it {wanted}(...)"
    if any(
        isinstance(one, Tensor) and (isinstance(one, nn.Parameter) or one.requires_grad) for one in within
    ):
        wanted = f"nn.Parameter{container}"
        return f"torch does not see the parameters in {called}, a plain {word}: make it {wanted}(...)"
    return ""


def _contents(value: Any, depth: int) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple | set) and depth:
        for one in value:
            yield from _contents(one, depth - 1)
    else:
        yield value
