"""``fluvial run --flower``: the task file of an app, written once, and what Flower's project file says of the app."""

from __future__ import annotations

from pathlib import Path

import pytest

from aggregation.errors import UsageProblem
from fluvial import cli
from fluvial.flower.files import AppPlace, find_app, write_task_of
from learning.program_files import program_files
from tests.flower_apps import template


@pytest.fixture
def numpy_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = template("quickstart-numpy", tmp_path)
    monkeypatch.chdir(folder)
    return folder


def test_a_folder_is_the_app_that_its_project_names(numpy_app: Path) -> None:
    assert find_app(".") == AppPlace(
        numpy_app.resolve(),
        "quickstart_numpy.client_app:app",
        "quickstart_numpy.server_app:app",
        {"num-server-rounds": 3},
    )


def test_a_client_by_its_name_has_the_server_and_the_configuration_of_the_project_around_it(
    numpy_app: Path,
) -> None:
    assert find_app("quickstart_numpy.client_app:app") == find_app(".")
    assert find_app("quickstart_numpy.client_app:app", "own:server").server == "own:server"


def test_a_client_without_a_project_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_app("client:app") == AppPlace(tmp_path.resolve(), "client:app", "", {})


def test_tables_in_the_configuration_are_flat_as_in_flower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pyproject.toml").write_text(
        '[tool.flwr.app.config]\nlr = 0.1\n[tool.flwr.app.config.model]\nname = "a"\n'
    )
    assert find_app("client:app").run_config == {"lr": 0.1, "model.name": "a"}


@pytest.mark.parametrize(
    ("flower", "project", "said"),
    [
        ("client", "", "no module:attribute"),
        ("client:", "", "no module:attribute"),
        (".", "", "names no ClientApp"),
        (".", "[tool.flwr.app.components]\nserverapp = 'a:b'\n", "names no ClientApp"),
        (".", "[tool.flwr", "cannot be read"),
        (".", "[tool]\nflwr = 3\n", "names no ClientApp"),
    ],
)
def test_what_names_no_app_is_refused_by_name(
    flower: str, project: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if project:
        Path("pyproject.toml").write_text(project)
    with pytest.raises(UsageProblem, match=said) as raised:
        find_app(flower)
    assert raised.value.error_id == "FLV-2261"


def test_the_file_is_written_once_and_names_all_that_the_app_needs(numpy_app: Path) -> None:
    path, written = write_task_of(find_app("."), None)
    assert (path, written) == (numpy_app.resolve() / "flower_quickstart_numpy.py", True)
    before = path.read_text()
    assert 'client="quickstart_numpy.client_app:app"' in before
    assert "    devices=10,\n" in before
    assert '        "num-server-rounds": 3,\n' in before
    compile(before, str(path), "exec")
    assert write_task_of(find_app("."), None) == (path, False)
    assert path.read_text() == before


def test_the_number_of_devices_stays_unless_another_is_asked_for(numpy_app: Path) -> None:
    path, _ = write_task_of(find_app("."), 4)
    assert write_task_of(find_app("."), None) == (path, False)
    assert write_task_of(find_app("."), 4) == (path, False)
    with pytest.raises(UsageProblem) as raised:
        write_task_of(find_app("."), 5)
    assert raised.value.error_id == "FLV-2264"


def test_a_file_that_somebody_has_edited_is_left_alone(numpy_app: Path) -> None:
    path, _ = write_task_of(find_app("."), None)
    edited = path.read_text() + '\nMETRIC = "accuracy"\n'
    path.write_text(edited)
    with pytest.raises(UsageProblem, match="says something else") as raised:
        write_task_of(find_app("."), None)
    assert f"`fluvial run {path.name}`" in raised.value.hint
    assert path.read_text() == edited


def test_the_apps_files_travel_with_the_task(numpy_app: Path) -> None:
    path, _ = write_task_of(find_app("."), None)
    assert sorted(program_files(path).files) == [
        "flower_quickstart_numpy.py",
        "quickstart_numpy/__init__.py",
        "quickstart_numpy/client_app.py",
        "quickstart_numpy/server_app.py",
        "quickstart_numpy/task.py",
    ]


@pytest.mark.parametrize("arguments", [["run"], ["run", "mine.py", "--flower", "."]])
def test_a_run_is_of_a_file_or_of_an_app(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["--home", str(tmp_path), *arguments]) == 4
    assert "FLV-6001" in capsys.readouterr().err
