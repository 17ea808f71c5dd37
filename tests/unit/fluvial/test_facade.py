"""What `import fluvial` offers, what it costs, and what it says when an extra is missing."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import fluvial
from aggregation.errors import IntegrityProblem, UsageProblem
from aggregation.optimizers import initial_state
from backends.settings import Settings, StoreSettings
from backends.store.factory import open_object_store
from backends.store.task_store import TaskStore
from backends.tasks import TaskFile, write_task_file
from fluvial.cli import COMMANDS
from fluvial.extras import EXTRAS_OF_COMMANDS, MODULES, extra_with
from learning.task import load_task
from learning.tensors import layout_of, parameters_of
from schemas.checkpoints import encode_model, encode_optimizer
from schemas.manifests import Genesis, Region, TensorEntry
from schemas.objects import model_key, sha256_hex
from tests import factories

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
SLOW = {"torch", "numba", "confluent_kafka", "faust", "pyarrow", "numpy", "sklearn", "aiohttp", "minio"}
NOT_FOR_DEVICES = {"torch", "faust", "numba", "pyarrow", "sklearn", "aiohttp"}


def modules_after(program: str) -> set[str]:
    """The top-level names of what a program has loaded at its end."""
    code = f"{program}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


# -- what it offers


def test_every_name_is_there_and_listed() -> None:
    assert {"Device", "Task", "load_model", "simulate"} <= set(fluvial.__all__) <= set(dir(fluvial))
    for name in fluvial.__all__:
        assert getattr(fluvial, name) is not None


def test_an_unknown_name_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(AttributeError, match="it offers Conditions, Contribution, Dataset, Device"):
        fluvial.Devise  # noqa: B018


def test_importing_it_loads_nothing_slow() -> None:
    assert not modules_after("import fluvial") & SLOW


def test_a_devices_program_needs_no_torch_no_faust_and_no_compiler() -> None:
    loaded = modules_after("from fluvial import Contribution, Device, load_model, load_settings")
    assert not loaded & NOT_FOR_DEVICES
    assert "confluent_kafka" in loaded


@pytest.mark.parametrize(
    "package", ["aggregation", "schemas", "backends", "learning", "producers", "stream_apps", "fluvial"]
)
def test_every_package_says_that_it_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


# -- extras


def requirements(extra: str) -> Iterator[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for line in project["optional-dependencies"][extra]:
        requirement = Requirement(line)
        if requirement.name != "fluvial":
            yield requirement


# Two extras have environments of their own: tests/other_environments.py.
@pytest.mark.parametrize("extra", sorted(MODULES.keys() - {"flower", "onnx"}))
def test_the_modules_of_an_extra_are_those_of_its_packages(extra: str) -> None:
    top_levels: dict[str, set[str]] = {}
    for module, distributions in importlib.metadata.packages_distributions().items():
        for distribution in distributions:
            top_levels.setdefault(canonicalize_name(distribution), set()).add(module)
    known = {module for modules in MODULES.values() for module in modules}
    unseen = set(MODULES[extra]) - {"mode"}  # that one comes with Faust, by a package of its own
    for requirement in requirements(extra):
        brought = top_levels[canonicalize_name(requirement.name)]
        assert brought & known, f"{requirement.name} brings {brought}"
        unseen -= brought
    assert unseen == set()


def test_every_command_says_what_it_needs() -> None:
    assert COMMANDS.keys() - EXTRAS_OF_COMMANDS.keys() == {"new", "completion"}
    assert EXTRAS_OF_COMMANDS.keys() <= COMMANDS.keys()
    assert {one for extras in EXTRAS_OF_COMMANDS.values() for one in extras.split(",")} <= MODULES.keys()


def test_the_extra_of_a_module_is_known_by_its_first_name() -> None:
    assert extra_with("opentelemetry.sdk.trace") == "worker"
    assert extra_with("no_such_thing") is None
    assert extra_with(None) is None


MISSING = """
import sys
sys.modules["confluent_kafka"] = sys.modules["faust"] = None  # as if they were not installed
"""


def test_a_name_whose_extra_is_missing_says_which() -> None:
    code = MISSING + "from fluvial import Device"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: fluvial.Device needs the package confluent_kafka")
    assert last.endswith("pip install 'fluvial[device]'")


def test_a_command_whose_extra_is_missing_says_which(tmp_path: Path) -> None:
    arguments = ["--home", str(tmp_path), "worker", "--task", "digits", "--region", "eu"]
    code = f"{MISSING}from fluvial.cli import main\nsys.exit(main({arguments!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "error[FLV-1030]: `fluvial worker` needs the package" in done.stderr
    assert "hint: pip install 'fluvial[worker]'" in done.stderr


# -- load_model


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A home with the task `numbers` of the shipped code `digits`, whose version 0 stands in a folder."""
    settings = Settings(
        bootstrap_servers="127.0.0.1:1",
        store=StoreSettings(kind="file", path=tmp_path / "objects"),
        home=tmp_path / "home",
    )
    layout = layout_of(load_task("digits").model())
    entries = tuple(TensorEntry(*entry) for entry in layout)
    genesis = Genesis(
        task="numbers",
        regions={"eu": Region(1, "")},
        control_authority="",
        layout=entries,
        policy=msgspec.json.decode(factories.policy().canonical()),
        model_sha256="",
        optimizer_sha256="",
    )
    flat = np.arange(genesis.tensor_layout.parameters, dtype=np.float32)
    model = encode_model(flat, genesis.tensor_layout)
    optimizer = encode_optimizer(initial_state(factories.policy().server, len(flat)))
    genesis = msgspec.structs.replace(
        genesis, model_sha256=sha256_hex(model), optimizer_sha256=sha256_hex(optimizer)
    )
    store = TaskStore(open_object_store(settings.store), "numbers")
    assert store.commit(0, genesis.canonical())
    store.write_checkpoint(0, model, optimizer)
    (tmp_path / "model.safetensors").write_bytes(model)
    write_task_file(
        settings.home,
        TaskFile(
            task="numbers",
            genesis_sha256=sha256_hex(genesis.canonical()),
            reference="digits",
            regions=("eu",),
        ),
    )
    return settings


def test_a_versions_weights_come_by_name_and_as_the_users_own_module(settings: Settings) -> None:
    model = fluvial.load_model("numbers", settings=settings)
    assert (model.task, model.version, model.reference) == ("numbers", 0, "digits")
    first = next(iter(model.arrays.values()))
    assert first.dtype == np.float32
    assert first.reshape(-1)[:3].tolist() == [0.0, 1.0, 2.0]
    assert not first.flags.writeable
    module = model.module()
    assert isinstance(module, torch.nn.Module)
    assert parameters_of(module).tolist() == list(range(len(parameters_of(module))))


def test_a_file_of_weights_needs_to_be_told_its_task(settings: Settings) -> None:
    model = fluvial.load_model(settings.home.parent / "model.safetensors")
    with pytest.raises(UsageProblem) as caught:
        model.module()
    assert caught.value.error_id == "FLV-2218"
    same = fluvial.load_model("numbers", settings=settings)
    assert parameters_of(model.module(load_task("digits"))).tolist() == parameters_of(same.module()).tolist()
    assert model.sha256 == same.sha256


def test_weights_of_another_model_are_refused_with_the_first_difference(settings: Settings) -> None:
    model = fluvial.load_model("numbers", settings=settings)
    with pytest.raises(UsageProblem, match=r"the task's model has") as caught:
        model.module(load_task("fashion"))
    assert caught.value.error_id == "FLV-2213"


def test_what_is_not_there_is_said(settings: Settings, tmp_path: Path) -> None:
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: fluvial.load_model("letters", settings=settings), "FLV-2401"),
        (lambda: fluvial.load_model("numbers", 3, settings=settings), "FLV-2507"),
        (lambda: fluvial.load_model(tmp_path / "none.safetensors"), "FLV-2219"),
    ]
    for call, error_id in calls:
        with pytest.raises(UsageProblem) as caught:
            call()
        assert caught.value.error_id == error_id


def test_bytes_that_are_not_what_the_manifest_says_are_refused(settings: Settings) -> None:
    store = open_object_store(settings.store)
    data = bytearray(store.get(model_key("numbers", 0)))
    data[-1] ^= 1
    store.put(model_key("numbers", 0), bytes(data))
    with pytest.raises(IntegrityProblem) as caught:
        fluvial.load_model("numbers", settings=settings)
    assert caught.value.error_id == "FLV-4103"
