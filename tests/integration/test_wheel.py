"""The package as others get it: a wheel, installed into empty environments, used from folders that are no checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from backends.keys import issue
from schemas.certificates import Role
from tests import factories
from tests.integration.pipeline import ROOT, Federation

if TYPE_CHECKING:
    from backends.settings import Settings

PACKAGES = ("aggregation", "schemas", "backends", "learning", "producers", "stream_apps", "fluvial")
LIMIT_S = 480.0


def run(
    *command: str | Path, cwd: Path, code: int = 0, variables: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end without this checkout in sight; its exit code has to be ``code``."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # noqa: TID251
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment | (variables or {}),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="session")
def uv() -> Path:
    """`make setup` puts it beside this Python."""
    found = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    assert found, "uv is not installed; `make setup` installs it"
    return Path(found)


@pytest.fixture(scope="session")
def wheel(uv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from this checkout's files, with the build backend that is installed here."""
    folder = tmp_path_factory.mktemp("wheel")
    command = (uv, "build", "--wheel", "--no-build-isolation", "--python", sys.executable)
    run(*command, "--out-dir", folder, ROOT, cwd=folder)
    (path,) = folder.glob("fluvial-*.whl")
    return path


def installed(uv: Path, wheel: Path, folder: Path, extras: str = "") -> Path:
    """An environment of its own with the wheel in it, in the locked versions; its folder of programs."""
    run(uv, "venv", "--quiet", "--python", sys.executable, folder, cwd=folder.parent)
    programs = folder / "bin"
    what = f"fluvial{extras} @ {wheel.as_uri()}"
    command = (uv, "pip", "install", "--quiet", "--python", programs / "python")
    run(*command, "--constraint", ROOT / "requirements.lock", what, cwd=folder.parent)
    return programs


@pytest.fixture(scope="session")
def device(uv: Path, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with `fluvial[device]`."""
    return installed(uv, wheel, tmp_path_factory.mktemp("device") / "environment", "[device]")


@pytest.fixture(scope="session")
def everything(uv: Path, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with `fluvial[all]`."""
    return installed(uv, wheel, tmp_path_factory.mktemp("all") / "environment", "[all]")


# -- what is in it


def test_the_wheel_holds_every_file_of_the_packages_and_of_infra_that_they_read(wheel: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert len(tracked) > 200, "these are the sources"
    infra = [
        f"fluvial/local/{path.relative_to(ROOT).as_posix()}"
        for folder in ("kafka", "minio", "prometheus", "toxiproxy")
        for path in (ROOT / "infra" / folder).rglob("*.*")
    ]
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        path for path in tracked if not path.startswith("schemas/vectors/")
    }  # for readers of the repository
    assert {*wanted, *infra, "fluvial/local/infra/prices.toml"} - held == set()
    assert {name.partition("/")[0] for name in held if ".dist-info" not in name} == set(PACKAGES)


def test_the_wheel_holds_the_license(wheel: Path) -> None:
    held = zipfile.ZipFile(wheel).namelist()
    assert [name for name in held if name.endswith(".dist-info/licenses/LICENSE")]


# -- nothing but the package


def test_alone_it_is_the_command_and_says_what_to_install(uv: Path, wheel: Path, tmp_path: Path) -> None:
    programs = installed(uv, wheel, tmp_path / "environment")
    assert "Usage: fluvial" in run(programs / "fluvial", "--help", cwd=tmp_path).stdout
    run(programs / "fluvial", "new", "mine", cwd=tmp_path)
    for command, extra in (
        (["audit"], "worker"),
        (["run", "mine.py"], "all"),
        (["console"], "console"),
        (["tap"], "device"),
        (["doctor"], "worker"),
    ):
        done = run(programs / "fluvial", *command, cwd=tmp_path, code=2)
        assert "error[FLV-1030]" in done.stderr, command
        assert f"hint: pip install 'fluvial[{extra}]'" in done.stderr


# -- a device


DEVICE = """
import json, sys
import importlib.util
from pathlib import Path

import schemas  # a file of the device maker's own
from fluvial import Device

absent = ("torch", "faust", "numba", "pyarrow", "sklearn", "aiohttp")
assert not [name for name in absent if importlib.util.find_spec(name)]
task, region, key = sys.argv[1:]
with Device.open(task=task, region=region, key=Path(key)) as device:
    base = device.fetch(timeout_s=180)
    trained = {name: array + schemas.STEP for name, array in device.arrays(base).items()}
    receipt = device.publish(base, device.contribution(base, trained, num_examples=10, loss=0.5))
    verdict = device.verdict(receipt, timeout_s=180)
print(json.dumps({"version": base.version, "outcome": verdict.outcome, "update_id": verdict.update_id}))
"""


def test_a_devices_program_works_with_the_device_extra_alone(
    device: Path, stack: Settings, tmp_path: Path
) -> None:
    federation = Federation(stack, tmp_path, {"eu": 1}, factories.policy(buffer={"updates": 1}))
    (tmp_path / "schemas.py").write_text("STEP = 0.001\n")
    (tmp_path / "program.py").write_text(DEVICE)
    key = issue(federation.keys, "eu", Role.DEVICE, "d-1")
    try:
        federation.start("worker")
        federation.start("merger")
        done = run(
            *(device / "python", "program.py", federation.task, "eu", key),
            cwd=tmp_path,
            variables={"FLUVIAL_HOME": str(stack.home)},
        )
        said = json.loads(done.stdout)
        assert (said["version"], said["outcome"]) == (0, "accepted"), federation.logs()
        federation.await_version(1)
        judged = {verdict.update_id: verdict.outcome for verdict in federation.verdicts(("eu", 0))}
        assert judged[said["update_id"]] == "accepted"
    finally:
        federation.end()


def test_with_the_device_extra_the_rest_of_the_facade_says_what_it_needs(
    device: Path, tmp_path: Path
) -> None:
    done = run(device / "python", "-c", "from fluvial import fit", cwd=tmp_path, code=1)
    assert done.stderr.splitlines()[-1].endswith("pip install 'fluvial[learning]'")


# -- everything


@pytest.fixture
def folder_of_ours(tmp_path: Path) -> Path:
    """A folder that is no checkout, with files of the names of our packages."""
    for name in ("schemas", "backends", "ops", "adapters", "producers", "fluvial_x"):
        (tmp_path / f"{name}.py").write_text(f"WHOSE = 'his {name}'\n")
    return tmp_path


@pytest.mark.long
def test_everything_simulates_a_shipped_task_from_any_folder(everything: Path, folder_of_ours: Path) -> None:
    command = ("run", "digits", "--simulate", "--versions", "2", "--json")
    done = run(everything / "fluvial", *command, cwd=folder_of_ours)
    assert json.loads(done.stdout)["versions"] == 2


def test_everything_trains_a_task_beside_files_of_our_names_and_audits_it(
    everything: Path, stack: Settings, folder_of_ours: Path
) -> None:
    """The fleet and the evaluator are processes of their own: each loads his task with his own files."""
    run(everything / "fluvial", "new", "packaged", cwd=folder_of_ours)
    task = folder_of_ours / "packaged.py"
    task.write_text(
        "import schemas, fluvial_x\nfrom ops import WHOSE\n"
        "assert (WHOSE, schemas.WHOSE) == ('his ops', 'his schemas')\n" + task.read_text()
    )
    command = ("--home", stack.home, "run", "packaged.py", "--versions", "2", "--devices", "4", "--json")
    told = json.loads(run(everything / "fluvial", *command, cwd=folder_of_ours).stdout)
    assert told["versions"] >= 2
    assert told["audit"]["identical"] is True
    program = """
import schemas
from fluvial import load_model
model = load_model("packaged")
print(schemas.WHOSE, model.version, sorted(model.arrays)[0], type(model.module()).__name__)
"""
    (folder_of_ours / "program.py").write_text(program)
    variables = {"FLUVIAL_HOME": str(stack.home)}
    done = run(everything / "python", "program.py", cwd=folder_of_ours, variables=variables)
    assert done.stdout == f"his schemas {told['versions']} 0.bias Sequential\n"
