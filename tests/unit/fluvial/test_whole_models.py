"""A model comes back whole: a version as a module and as a file, and a file as an update, for many sorts of modules."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import fluvial
from aggregation.errors import UsageProblem
from backends.settings import Settings, StoreSettings
from backends.store.factory import open_object_store
from backends.store.task_store import TaskStore
from backends.tasks import TaskFile, write_task_file
from fluvial.cli import main
from fluvial.local.create import FirstVersion, first_version, make_keys
from fluvial.reading.state_files import read_state
from learning.kinds.torch_module import raw_state
from learning.randomness import seeded
from producers.sdk.bases import Base, Bases
from producers.sdk.device import Device
from producers.sdk.updates import Author
from schemas.checkpoints import decode_model
from schemas.documents import genesis_v1
from schemas.manifests import NEWEST_GENESIS, Genesis
from schemas.objects import sha256_hex
from schemas.states import frozen_of, update_of_state
from schemas.tensor_files import RawTensor, read_metadata
from tests import factories
from tests.task_files import FROZEN, MODULES, PLAIN, TIED, file_of, written

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from learning import Task

    State = dict[str, torch.Tensor]

SEED = 5
TEXTS = {name: file_of(expression) for name, expression in MODULES.items()} | {
    "tied": TIED,
    "frozen": FROZEN,
    "frozen in bfloat16": FROZEN.replace("requires_grad_(False)", "requires_grad_(False).to(torch.bfloat16)"),
}


@dataclass
class Stage:
    """A task ``own`` whose version 0 stands in a folder's store."""

    task: Task
    first: FirstVersion
    settings: Settings
    folder: Path

    @property
    def genesis(self) -> Genesis:
        return self.first.genesis

    @property
    def base(self) -> npt.NDArray[np.float32]:
        return decode_model(self.first.model, self.genesis.tensor_layout)

    def frozen(self) -> dict[str, RawTensor]:
        objects = {sha256_hex(data): data for data in self.first.objects}
        return frozen_of(self.genesis, objects.__getitem__)

    def drawn(self) -> nn.Module:
        """What ``model()`` made for version 0."""
        with seeded(SEED):
            made: nn.Module = self.task.model()
        return made

    def update(self, state: State) -> tuple[npt.NDArray[np.float32], list[str]]:
        return update_of_state(self.genesis, raw_state(state), self.base, self.frozen())

    def sends_nothing(self, update: npt.NDArray[np.float32]) -> bool:
        weights = self.genesis.tensor_layout.trainable.parameters
        return not update[:weights].any() and np.array_equal(update[weights:], self.base[weights:])


def staged(text: str, folder: Path, form: str = NEWEST_GENESIS) -> Stage:
    task = written(folder, text)
    settings = Settings(
        bootstrap_servers="127.0.0.1:1",
        store=StoreSettings(kind="file", path=folder / "objects"),
        home=folder / "home",
    )
    make_keys(folder, {"eu": 1})
    first = first_version(
        "own",
        task,
        regions={"eu": 1},
        policy=factories.policy(),
        folder=folder,
        seed=SEED,
        document_format=form,
    )
    assert first.write(TaskStore(open_object_store(settings.store), "own"))
    known = TaskFile(
        task="own",
        genesis_sha256=sha256_hex(first.genesis.canonical()),
        reference=str(task.path),
        regions=("eu",),
        seed=SEED,
    )
    write_task_file(settings.home, known)
    return Stage(task, first, settings, folder)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_version_is_a_module_and_a_file_that_torch_loads_strictly_and_publishes_again(
    text: str, tmp_path: Path
) -> None:
    stage = staged(text, tmp_path)
    wanted = stage.drawn().state_dict()
    held: nn.Module = fluvial.load_model("own", settings=stage.settings).module()
    found = fluvial.load_model("own", 0, settings=stage.settings)
    for module in (held, found.module(stage.task)):
        assert all(torch.equal(value, wanted[name]) for name, value in module.state_dict().items())

    own = found_file(stage)
    fresh: nn.Module = stage.task.fresh_model()
    fresh.load_state_dict(safetensors.torch.load_file(own), strict=True)
    assert all(torch.equal(value, wanted[name]) for name, value in fresh.state_dict().items())
    assert all(
        torch.equal(v, wanted[n]) for n, v in fluvial.load_model(own).module(stage.task).state_dict().items()
    )

    safetensors.torch.save_model(fresh, str(tmp_path / "trained.safetensors"))
    torch.save(fresh.state_dict(), tmp_path / "trained.pt")
    for path in (own, tmp_path / "trained.safetensors", tmp_path / "trained.pt"):
        update, notes = update_of_state(stage.genesis, read_state(path), stage.base, stage.frozen())
        assert stage.sends_nothing(update)
        assert notes == []


def found_file(stage: Stage) -> Path:
    from fluvial.reading.models import find_version

    path = stage.folder / "own-0.safetensors"
    path.write_bytes(find_version("own", settings=stage.settings).file())
    return path


def test_training_below_a_dtypes_digits_is_not_undone_by_who_only_looks(tmp_path: Path) -> None:
    stage = staged(TEXTS["bfloat16"], tmp_path)
    base = stage.base + np.float32(0.003)
    between = replace(stage, first=stage.first._replace(model=b""))
    module: nn.Module = between.task.fresh_model()
    between.task.kind.load(module, between.task.anatomy, base)
    wide = {name: value.float() for name, value in module.state_dict().items()}
    for state in (module.state_dict(), wide):
        update, _ = update_of_state(stage.genesis, raw_state(state), base, {})
        assert not update.any()


def test_a_program_may_publish_arrays_or_the_state_of_its_module(tmp_path: Path) -> None:
    stage = staged(TEXTS["bfloat16"], tmp_path)
    base = Base(0, "", stage.base + np.float32(0.003), factories.policy())
    module: nn.Module = stage.task.fresh_model()
    stage.task.kind.load(module, stage.task.anatomy, base.parameters)
    arrays = {name: value.float().numpy() for name, value in module.state_dict().items()}
    author = Author(stage.genesis, "eu", "d-1", factories.device_signer("d-1"), 0)
    store = TaskStore(open_object_store(stage.settings.store), "own")
    nowhere: Any = None
    device = Device(
        stage.settings, author, bases=Bases(store, stage.genesis), writer=nowhere, announcements=nowhere
    )
    for trained in (arrays, module.state_dict()):
        sent = device.contribution(base, trained, num_examples=3, loss=0.5, metrics={"own": 1.0})
        assert not sent.delta.any()
        assert (sent.num_examples, sent.loss, sent.metrics) == (3, 0.5, {"own": 1.0})
    wide = arrays | {"0.bias": arrays["0.bias"] + np.float32(1e-6)}  # more digits than bfloat16 has
    delta = device.contribution(base, wide, num_examples=3, loss=0.5).delta
    assert np.allclose(delta[64:80], wide["0.bias"] - base.parameters[64:80])


def test_what_was_trained_is_what_is_sent(tmp_path: Path) -> None:
    stage = staged(FROZEN, tmp_path)
    module = stage.drawn()
    with torch.no_grad():
        module.get_parameter("head.bias").add_(0.5)
        module.get_buffer("norm.running_mean").fill_(0.25)
        module.get_buffer("norm.num_batches_tracked").fill_(7)
    update, notes = stage.update(module.state_dict())
    layout = stage.genesis.tensor_layout
    parts = {
        spec.name: update[layout.starts[t] : layout.starts[t + 1]] for t, spec in enumerate(layout.tensors)
    }
    assert np.allclose(parts["head.bias"], 0.5, atol=1e-6)
    assert not parts["head.weight"].any()
    assert parts["norm.running_mean"].tolist() == [0.25] * 64
    assert parts["norm.running_var"].tolist() == [1.0] * 64
    assert notes == []


def _changed(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[State], State]:
    return lambda state: state | {name: change(state[name])}


def _without(name: str) -> Callable[[State], State]:
    return lambda state: {n: value for n, value in state.items() if n != name}


WRONG = {
    "missing": (_without("out.weight"), r"out\.weight is missing: expected float32\[2, 4\]"),
    "both names missing": (
        lambda state: _without("a.weight")(_without("b.weight")(state)),
        r"a\.weight is missing",
    ),
    "another shape": (
        _changed("out.bias", lambda v: v[:1]),
        r"out\.bias is float32\[1\]: expected float32\[2\]",
    ),
    "integers": (_changed("out.bias", lambda v: v.long()), r"out\.bias is int64\[2\]: expected float32\[2\]"),
    "one more": (
        lambda state: state | {"more": torch.zeros(3)},
        r"more is float32\[3\]: the task's model has none",
    ),
    "untied": (_changed("b.weight", lambda v: v + 1), r"a\.weight and b\.weight are one"),
}


@pytest.mark.parametrize(("spoil", "says"), WRONG.values(), ids=WRONG)
def test_the_tensor_that_is_not_the_models_is_named(
    spoil: Callable[[State], State], says: str, tmp_path: Path
) -> None:
    stage = staged(TIED, tmp_path)
    with pytest.raises(UsageProblem, match=says) as caught:
        stage.update(spoil(stage.drawn().state_dict()))
    assert caught.value.error_id == "FLV-4111"


FINE: dict[str, Callable[[State], State]] = {
    "the alias only": _without("a.weight"),
    "the first name only": _without("b.weight"),
    "more counters": lambda state: state | {"steps": torch.tensor(3)},
    "of DataParallel": lambda state: {f"module.{name}": value for name, value in state.items()},
    "of torch.compile": lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
    "double": lambda state: {name: value.double() for name, value in state.items()},
    "bfloat16": lambda state: {name: value.bfloat16() for name, value in state.items()},
    "float16": lambda state: {name: value.half() for name, value in state.items()},
}


@pytest.mark.parametrize("variant", FINE.values(), ids=FINE)
def test_any_state_of_the_model_is_taken(variant: Callable[[State], State], tmp_path: Path) -> None:
    stage = staged(TIED, tmp_path)
    update, notes = stage.update(variant(stage.drawn().state_dict()))
    assert stage.sends_nothing(update)
    assert notes == []


def test_frozen_tensors_are_left_out_with_a_word_when_they_differ(tmp_path: Path) -> None:
    stage = staged(FROZEN, tmp_path)
    state = stage.drawn().state_dict()
    assert stage.update({n: v for n, v in state.items() if not n.startswith("base")})[1] == []
    update, notes = stage.update(state | {"base.weight": state["base.weight"] + 1})
    assert stage.sends_nothing(update)
    assert notes == [
        "left out, as frozen in this task: base.weight (the file has other values than the task)"
    ]
    with pytest.raises(UsageProblem, match=r"base\.bias is float32\[3\]: expected float32\[64\]"):
        stage.update(state | {"base.bias": torch.zeros(3)})


def test_a_task_of_before_v3_goes_on(tmp_path: Path) -> None:
    stage = staged(
        TIED.replace(
            "self.a, self.b, self.out =", "self.norm = nn.BatchNorm1d(4); self.a, self.b, self.out ="
        ),
        tmp_path,
        genesis_v1.FORMAT,
    )
    module: nn.Module = fluvial.load_model("own", settings=stage.settings).module()
    wanted = stage.drawn().state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in module.state_dict().items())
    update, notes = stage.update(module.state_dict())
    assert not update.any()
    assert notes == []
    assert found_file(stage).read_bytes() == stage.first.model


def test_a_file_says_what_is_tied_frozen_and_of_which_dtype(tmp_path: Path) -> None:
    stage = staged(FROZEN, tmp_path)
    said = read_metadata(found_file(stage).read_bytes())
    assert (said["fluvial.task"], said["fluvial.version"], said["fluvial.kind"]) == ("own", "0", "torch")
    assert said["fluvial.model_sha256"] == stage.genesis.model_sha256
    assert json.loads(said["fluvial.dtypes"])["head.weight"] == "float32"
    assert stage.genesis.model.frozen is not None
    assert said["fluvial.frozen"] == stage.genesis.model.frozen.sha256


def test_where_a_versions_own_file_is_all_of_it_that_is_what_is_written(tmp_path: Path) -> None:
    stage = staged(file_of(PLAIN), tmp_path)
    assert sha256_hex(found_file(stage).read_bytes()) == stage.genesis.model_sha256


def test_the_command_writes_the_file_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = staged(FROZEN, tmp_path)
    monkeypatch.setenv("FLUVIAL_STORE", "file")
    monkeypatch.setenv("FLUVIAL_STORE_PATH", str(tmp_path / "objects"))
    monkeypatch.setenv("FLUVIAL_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    out = tmp_path / "model.safetensors"
    home = ["--home", str(stage.settings.home), "model", "get"]
    assert main([*home, "--out", str(out)]) == 0
    capsys.readouterr()
    assert main([*home, "--out", str(out), "--json"]) == 0  # again is harmless
    facts = json.loads(capsys.readouterr().out)
    assert (facts["task"], facts["version"], facts["path"]) == ("own", 0, str(out))
    assert facts["file_sha256"] == sha256_hex(out.read_bytes())
    assert facts["frozen"] == ["base.bias", "base.weight", "mask", "norm.num_batches_tracked"]
    stage.task.fresh_model().load_state_dict(safetensors.torch.load_file(out), strict=True)
    assert main([*home, "--task", "own", "--version", "3"]) == 4
    assert "FLV-2507" in capsys.readouterr().err
    assert main([*home, "--out", str(tmp_path / "none" / "x.safetensors")]) == 2
    assert "FLV-4113" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content",
    [
        lambda path: path.write_bytes(b"nothing of the kind"),
        lambda path: path.write_bytes(b""),
        lambda path: torch.save(nn.Linear(2, 2), path),
        lambda path: torch.save({"model": {"a": torch.zeros(2)}, "epoch": 3}, path),
        lambda path: torch.save([torch.zeros(2)], path),
    ],
)
def test_a_file_that_is_no_state_is_refused(content: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    content(path)
    with pytest.raises(UsageProblem) as caught:
        read_state(path)
    assert caught.value.error_id == "FLV-4112"
    assert "state_dict()" in caught.value.hint
