"""A model with nothing to train says what hides it, and what the hint names mends it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from aggregation.errors import UsageProblem
from learning.kinds.torch_module import TorchModule


class Holding(nn.Module):
    def __init__(self, held: Any) -> None:
        super().__init__()
        self.held = held


class Outer(nn.Module):
    def __init__(self, held: Any) -> None:
        super().__init__()
        self.inner = Holding(held)


def parameter() -> nn.Parameter:
    return nn.Parameter(torch.zeros(2))


def hint_of(module: nn.Module) -> str:
    with pytest.raises(UsageProblem, match="no trainable parameter") as caught:
        TorchModule().check(module, "mine.py")
    assert caught.value.error_id == "FLV-2204"
    return caught.value.hint


@pytest.mark.parametrize(
    ("held", "container", "mended"),
    [
        ([nn.Linear(2, 2)], "nn.ModuleList", nn.ModuleList),
        ((nn.Linear(2, 2), nn.ReLU()), "nn.ModuleList", nn.ModuleList),
        ({"a": nn.Linear(2, 2)}, "nn.ModuleDict", nn.ModuleDict),
        ([parameter()], "nn.ParameterList", nn.ParameterList),
        ({"w": parameter(), "b": parameter()}, "nn.ParameterDict", nn.ParameterDict),
        (
            {"a": [nn.Linear(2, 2)]},
            "nn.ModuleDict",
            lambda held: nn.ModuleDict({"a": nn.ModuleList(held["a"])}),
        ),
        ([torch.zeros(2, requires_grad=True)], "nn.ParameterList", nn.ParameterList),
        (torch.zeros(2, requires_grad=True), "nn.Parameter", lambda held: nn.Parameter(held.detach())),
    ],
)
@pytest.mark.parametrize("outer", [Holding, Outer])
def test_a_plain_container_is_named_with_the_one_that_torch_sees(
    outer: type[nn.Module], held: Any, container: str, mended: Any
) -> None:
    hint = hint_of(outer(held))
    assert f"{container}(...)" in hint
    assert ("self.inner.held" if outer is Outer else "self.held") in hint
    TorchModule().check(outer(mended(held)), "mine.py")


def test_frozen_parameters_are_said_to_be_frozen() -> None:
    assert "all 6 parameters are frozen" in hint_of(nn.Linear(2, 2).requires_grad_(False))  # noqa: FBT003


@pytest.mark.parametrize("held", [[1, 2], {"a": "b"}, torch.zeros(2), "text", None, [torch.zeros(2)]])
def test_what_hides_nothing_is_not_blamed(held: Any) -> None:
    assert hint_of(Holding(held)) == "add a layer to model()"
