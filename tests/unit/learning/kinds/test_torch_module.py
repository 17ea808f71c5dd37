"""The kind torch, over many sorts of modules; and what may be copied instead of made again."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from aggregation.errors import UsageProblem
from learning.kinds import kind_named
from learning.tensors import initial_parameters
from learning.training import evaluate_parameters, train_locally
from tests.conformance.kinds import KindLaws
from tests.task_files import HOOKED, KEPT, MODULES, PLAIN, TIED, file_of, written

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from learning import Task


class TestTorchModule(KindLaws):
    name = "torch"
    tasks = {name: file_of(expression) for name, expression in MODULES.items()} | {
        "tied": TIED,
        "hooked": HOOKED,
        "kept": KEPT,
    }


def round_of(task: Task) -> bytes:
    data = task.data().train.subset(np.arange(24))
    return train_locally(task, initial_parameters(task, 0), data, task.config).delta.tobytes()


SPOILING = {
    "hooks": "model[0].register_forward_hook(lambda m, i, o: 3 * o)",
    "hooks on parameters": "model[0].weight.register_hook(lambda g: 3 * g)",
    "hooks on tensors that Opacus leaves": (
        "[m.register_full_backward_hook(lambda m, a, b: None) for m in model.modules()]; "
        "[setattr(p, 'grad_sample', p.detach().clone()) for p in model.parameters()]"
    ),
    "requires_grad": "model.requires_grad_(False)",
    "gradients": "[setattr(p, 'grad', torch.ones_like(p)) for p in model.parameters()]",
    "attributes": "model.steps = getattr(model, 'steps', 0) + 1; model.forward = lambda x: x",
    "evaluation mode": "model.eval()",
    "a layer in a layer's place": "model[0] = nn.Linear(4, 16)",
    "pruning, undone": (
        "prune = torch.nn.utils.prune; prune.l1_unstructured(model[0], 'weight', amount=0.2); "
        "prune.remove(model[0], 'weight')"
    ),
    "half and back": "model.half().float()",
    "its examples": "data.x[:] = 0; data.y[:] = 1",
    "torch's settings": "torch.set_default_dtype(torch.float64); torch.set_grad_enabled(False)",
    "torch's threads and generator": "torch.set_num_threads(2); torch.manual_seed(7)",
}


@pytest.mark.parametrize("spoiled", SPOILING.values(), ids=SPOILING)
@pytest.mark.parametrize("module", ["float32", "made anew"])
def test_nothing_that_train_or_evaluate_does_reaches_the_next_round(
    tmp_path: Path, spoiled: str, module: str
) -> None:
    text = file_of(PLAIN) if module == "float32" else HOOKED
    clean = written(tmp_path, text)
    data = clean.data().test
    expected = round_of(clean)
    evaluated = evaluate_parameters(clean, initial_parameters(clean, 0), data)
    once = "\nimport torch.nn.utils.prune\nplain_train, plain_evaluate, spoiled = train, evaluate, []\n"
    for name in ("train(model, data, config)", "evaluate(model, data)"):
        once += f"def {name}:\n    result = plain_{name}\n    if len(spoiled) < 2:\n"
        once += f"        spoiled.append(1)\n        {spoiled}\n    return result\n"
    dirty = written(tmp_path, text + once, "dirty")
    round_of(dirty)
    evaluate_parameters(dirty, initial_parameters(dirty, 0), data)
    assert round_of(dirty) == expected
    assert evaluate_parameters(dirty, initial_parameters(dirty, 0), data) == evaluated


CHANGES = {
    "pruning": (
        "nn.utils.prune.l1_unstructured(model[0], 'weight', amount=0.2)",
        "0.weight .* is gone, 0.weight_orig",
    ),
    "a parametrization": (
        "nn.utils.parametrizations.weight_norm(model[0])",
        "0.weight .* is gone, 0.parametrizations",
    ),
    "weight norm of old": ("nn.utils.weight_norm(model[0])", "0.weight .* is gone, 0.weight_"),
    "half": ("model.half()", r"0.weight was float32\[16, 4\] and is float16"),
    "double": ("model[2].double()", r"2.weight was float32\[2, 16\] and is float64"),
    "a wider layer": (
        "model[2] = nn.Linear(16, 3)",
        r"2.weight was float32\[2, 16\] and is float32\[3, 16\]",
    ),
    "a layer less": ("del model[2]", "2.weight .* is gone"),
    "a layer more": ("model.append(nn.Linear(2, 2))", r"3.weight \(float32\[2, 2\]\) is new"),
    "another name": ("model._modules['last'] = model._modules.pop('2')", "2.weight .* is gone"),
}


def training(line: str) -> str:
    """A ``train`` that does this and nothing else."""
    head = "\nimport torch.nn.utils.prune\ndef train(model, data, config):\n"
    return f"{head}    {line}\n    return {{'loss': 1.0}}\n"


@pytest.mark.parametrize(("change", "says"), CHANGES.values(), ids=CHANGES)
def test_a_layout_that_train_changed_is_named(tmp_path: Path, change: str, says: str) -> None:
    task = written(tmp_path, file_of(PLAIN, training(change)))
    with pytest.raises(UsageProblem, match=says) as caught:
        round_of(task)
    assert caught.value.error_id == "FLV-2208"
    assert "train() changed the model's layout" in caught.value.message
    assert "model()" in caught.value.hint


def test_weights_that_train_untied_are_named(tmp_path: Path) -> None:
    untied = written(tmp_path, TIED + training("model.b.weight = nn.Parameter(torch.zeros(4, 4))"))
    with pytest.raises(UsageProblem, match=r"b\.weight was .* the same as a\.weight and is"):
        round_of(untied)


def test_a_value_that_the_dtype_cannot_hold_is_named(tmp_path: Path) -> None:
    task = written(tmp_path, file_of(MODULES["float16"]))
    base = initial_parameters(task, 0)
    base[-1] = 70_000.0
    with pytest.raises(UsageProblem, match=r"2\.bias cannot be held in float16: .* 7e\+04") as caught:
        evaluate_parameters(task, base, task.data().test)
    assert caught.value.error_id == "FLV-2220"


# -- made again or copied


class Local(nn.Linear):
    """Reaches into itself by a function that a copy would share."""

    def __init__(self) -> None:
        super().__init__(4, 2)
        self.calls: list[int] = []
        self.note = lambda: self.calls.append(1)


def _with_attribute() -> nn.Module:
    net = nn.Linear(4, 2)
    setattr(net.weight, "no_decay", True)  # noqa: B010 (a tensor's class does not name it)
    return net


def _hooked() -> nn.Module:
    net = nn.Linear(4, 2)
    net.register_forward_hook(lambda _module, _inputs, output: output)
    return net


def _separate_parameters_of_one_storage() -> nn.Module:
    one, other = nn.Linear(4, 4), nn.Linear(4, 4)
    other.weight = nn.Parameter(one.weight.data)
    return nn.Sequential(one, other)


@pytest.mark.parametrize(
    ("make", "copied"),
    [
        (lambda: nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)), True),
        (lambda: nn.LSTM(4, 2), True),
        (lambda: nn.TransformerEncoderLayer(4, 2), True),
        (Local, False),
        (_with_attribute, False),
        (_hooked, False),
        (_separate_parameters_of_one_storage, False),
        (lambda: nn.utils.weight_norm(nn.Linear(4, 2)), False),
        (lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(4, 2)), False),
    ],
)
def test_a_module_is_copied_only_where_the_copy_is_as_good(
    make: Callable[[], nn.Module], *, copied: bool
) -> None:
    calls = []

    def counting() -> nn.Module:
        calls.append(1)
        return make()

    first = counting()
    source = kind_named("torch").source(counting, first, "")
    one, other = source(), source()
    assert (len(calls) == 1) is copied
    assert {first, one, other} == {first, one, other} and first is not one and one is not other
    form = kind_named("torch").form
    assert form(one) == form(first)
    shared = {id(part) for part in one.parameters()} & {id(part) for part in other.parameters()}
    assert not shared


def test_a_module_that_is_kept_and_cannot_be_copied_is_refused() -> None:
    kept: nn.Module = nn.Linear(4, 2)
    nn.utils.weight_norm(kept)  # a computed weight: torch cannot copy it
    kept(torch.zeros(1, 4))
    source = kind_named("torch").source(lambda: kept, kept, "mine.py")
    with pytest.raises(UsageProblem, match="returned before") as caught:
        source()
    assert caught.value.error_id == "FLV-2221"
    assert re.search("inside model", caught.value.hint)


def test_a_backbone_that_is_kept_is_not_trained_for_the_next_round() -> None:
    backbone = nn.Linear(4, 4)

    def make() -> nn.Module:
        return nn.Sequential(backbone, nn.Sequential(Local()))

    source = kind_named("torch").source(make, make(), "")
    before = backbone.weight.detach().clone()
    with torch.no_grad():
        for parameter in source().parameters():
            parameter.zero_()
    assert torch.equal(next(source().parameters()), before)
