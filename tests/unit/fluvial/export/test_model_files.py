"""``fluvial model export``: files that other programs read without Fluvial and without the task's program."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.torch
import torch

import fluvial
from aggregation.errors import UsageProblem
from backends.settings import Settings, StoreSettings
from backends.store.factory import open_object_store
from backends.store.task_store import TaskStore
from backends.tasks import TaskFile, write_task_file
from fluvial.cli import main
from fluvial.export.models import SUFFIXES, Exporting
from fluvial.local.create import first_version, make_keys
from fluvial.reading.models import find_version, model_of
from learning.kinds.torch_exports import METADATA_FILE, torchscript_file
from schemas.objects import sha256_hex
from schemas.tensor_files import read_metadata
from tests import factories
from tests.task_files import FROZEN, TIED, file_of, written

if TYPE_CHECKING:
    from collections.abc import Callable

NETWORK = "nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 2))"
BRANCHING = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x, **names):
        return self.layer(x) * (2 if names else 1)

"""
ESTIMATOR = """
import numpy as np
from sklearn.linear_model import SGDClassifier
import learning

def data():
    return learning.Dataset(train=(np.eye(2, 4), [0, 1]), test=(np.eye(2, 4), [0, 1]))

def model():
    return learning.fitted(SGDClassifier(), features=4, classes=2)

def train(model, data, config):
    return {"loss": 0.0}

evaluate = lambda model, data: {"loss": 0.0}
"""


@pytest.fixture
def exporting(tmp_path: Path) -> Callable[..., Exporting]:
    """Version 0 of a task with this text, as it is to be exported."""

    def of(text: str, shape: tuple[int, ...] = ()) -> Exporting:
        task = written(tmp_path, text)
        settings = Settings(
            bootstrap_servers="127.0.0.1:1",
            store=StoreSettings(kind="file", path=tmp_path / "objects"),
            home=tmp_path / "home",
        )
        make_keys(tmp_path, {"eu": 1})
        first = first_version(
            "own", task, regions={"eu": 1}, policy=factories.policy(), folder=tmp_path, seed=5
        )
        assert first.write(TaskStore(open_object_store(settings.store), "own"))
        genesis = sha256_hex(first.genesis.canonical())
        known = TaskFile(
            task="own", genesis_sha256=genesis, reference=str(task.path), regions=("eu",), seed=5
        )
        write_task_file(settings.home, known)
        found = find_version("own", settings=settings)
        return Exporting(found, model_of(found), shape)

    return of


def says(metadata: dict[str, Any], exporting: Exporting) -> bool:
    """Whether a file says what it is of."""
    base = exporting.found.base
    return (metadata["fluvial.task"], metadata["fluvial.version"], metadata["fluvial.model_sha256"]) == (
        *("own", "0", base.sha256),
    ) and metadata["fluvial.genesis_sha256"] == exporting.found.genesis_sha256


def loaded_script(path: Path, **more: Any) -> Any:
    return torch.jit.load(path, **more)  # type: ignore[no-untyped-call]


X = torch.linspace(-2, 3, 12).reshape(3, 4)


@pytest.mark.parametrize(
    "text", [file_of(NETWORK), TIED, FROZEN, ESTIMATOR], ids=["torch", "tied", "frozen", "sklearn"]
)
def test_safetensors_takes_every_model_and_says_what_it_is_of(
    text: str, tmp_path: Path, exporting: Callable[..., Exporting]
) -> None:
    made, path = exporting(text), tmp_path / "own.safetensors"
    made.write("safetensors", path)
    assert says(read_metadata(path.read_bytes()), made)
    assert set(safetensors.torch.load_file(path)) == set(made.model.state)
    assert set(fluvial.load_model(path).state) == set(made.model.state)


def test_torchscript_runs_without_the_class_and_gives_what_the_module_gives(
    tmp_path: Path, exporting: Callable[..., Exporting]
) -> None:
    made, path = exporting(file_of(NETWORK)), tmp_path / "own.pt"
    made.write("torchscript", path)
    extra = {METADATA_FILE: ""}
    script = loaded_script(path, _extra_files=extra)
    assert says(json.loads(extra[METADATA_FILE]), made)
    assert torch.equal(script(X), made.model.module()(X)), "a batch of another size than the example's"
    assert not list(tmp_path.glob("*.part"))


def test_what_cannot_be_compiled_is_traced(tmp_path: Path, exporting: Callable[..., Exporting]) -> None:
    made, path = (
        exporting(file_of("Net()").replace("def model", f"{BRANCHING}\ndef model")),
        tmp_path / "own.pt",
    )
    made.write("torchscript", path)
    assert torch.equal(loaded_script(path)(X), made.model.module()(X))


class Moody(torch.nn.Module):
    """It knows when it is traced, and is no module that can be compiled."""

    def forward(self, x: torch.Tensor, **_: object) -> torch.Tensor:
        return x if torch.jit.is_tracing() else 2 * x  # type: ignore[attr-defined,no-untyped-call]


def test_an_export_that_computes_something_else_is_refused() -> None:
    with pytest.raises(UsageProblem, match="it computes something else") as raised:
        torchscript_file(Moody(), np.ones((2, 2), np.float32), {})
    assert raised.value.error_id == "FLV-4115"


@pytest.mark.parametrize("form", ["torchscript", "onnx"])
def test_a_format_of_torch_is_refused_for_other_libraries(
    form: str, tmp_path: Path, exporting: Callable[..., Exporting]
) -> None:
    with pytest.raises(UsageProblem, match="the model is of sklearn") as raised:
        exporting(ESTIMATOR).write(form, tmp_path / "x")
    assert raised.value.error_id == "FLV-4115"
    assert not (tmp_path / "x").exists()


def test_without_data_the_shape_of_an_input_is_asked_for(
    tmp_path: Path, exporting: Callable[..., Exporting]
) -> None:
    text = file_of(NETWORK).replace("def data(", "def local_data(path): ...\n\ndef _data(")
    made = exporting(text)
    with pytest.raises(UsageProblem, match="no example of an input") as raised:
        made.write("torchscript", tmp_path / "x")
    assert "--input-shape" in raised.value.hint
    Exporting(made.found, made.model, (4,)).write("torchscript", tmp_path / "own.pt")
    assert loaded_script(tmp_path / "own.pt")(X).shape == (3, 2)


@pytest.mark.skipif(importlib.util.find_spec("onnx") is not None, reason="onnx is installed here")
def test_onnx_without_its_packages_says_what_to_install(
    tmp_path: Path, exporting: Callable[..., Exporting], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    exporting(file_of(NETWORK))
    monkeypatch.setenv("FLUVIAL_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("FLUVIAL_STORE_PATH", str(tmp_path / "objects"))
    monkeypatch.chdir(tmp_path)
    command = ["--home", str(tmp_path / "home"), "model", "export", "--task", "own"]
    assert main([*command, "--format", "onnx"]) == 2
    assert "pip install 'fluvial[device,onnx]'" in capsys.readouterr().err
    assert main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["path"] == f"own-0{SUFFIXES['safetensors']}"
    assert document["metadata"]["fluvial.version"] == "0"
    assert main([*command, "--input-shape", "1,x"]) == 4


@pytest.mark.long
@pytest.mark.parametrize(
    ("text", "flavour"), [(file_of(NETWORK), "pytorch"), (ESTIMATOR, "sklearn")], ids=["torch", "sklearn"]
)
def test_a_model_of_mlflow_is_loaded_by_mlflow(
    text: str, flavour: str, tmp_path: Path, exporting: Callable[..., Exporting]
) -> None:
    import mlflow

    made, path = exporting(text), tmp_path / "own-mlflow"
    made.write("mlflow", path)
    made.write("mlflow", path)
    assert says(mlflow.models.Model.load(path).metadata or {}, made)
    loaded: Any = getattr(mlflow, flavour).load_model(str(path))
    if flavour == "pytorch":
        assert torch.equal(loaded(X), made.model.module()(X))
    else:
        assert (loaded.coef_ == made.model.module().coef_).all()
