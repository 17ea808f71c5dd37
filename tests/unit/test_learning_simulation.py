"""The in-process simulation, the scaffold of a new task, and that neither needs more than it should."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from aggregation.errors import EnvironmentProblem, UsageProblem
from aggregation.policy import policy_from_mapping
from learning.config import TrainConfig
from learning.new_task import write_task
from learning.simulation import SimulationConfig, VersionFacts, simulate, simulation_under
from learning.task import Task, load_task

SMALL = SimulationConfig(devices=12, versions=4, buffer_updates=6)
QUICK = TrainConfig(epochs=2, learning_rate=0.2)


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("digits")


def test_a_simulation_learns_and_reports_every_version(task: Task) -> None:
    seen: list[VersionFacts] = []
    result = simulate(
        task, SimulationConfig(devices=12, versions=12, buffer_updates=6), on_version=seen.append
    )
    assert [facts.version for facts in seen] == list(range(1, 13))
    assert seen == result.versions
    assert result.curve()[-1] > 0.8
    assert all(facts.updates == 6 for facts in result.versions)


def test_the_same_seed_gives_the_same_simulation(task: Task) -> None:
    first, second = simulate(task, SMALL, train_config=QUICK), simulate(task, SMALL, train_config=QUICK)
    assert first.parameters.tobytes() == second.parameters.tobytes()
    assert first.updates == second.updates


def test_a_device_contributes_once_to_a_base(task: Task) -> None:
    result = simulate(task, SMALL, train_config=QUICK)
    pairs = [(update.device, update.version - update.staleness_versions) for update in result.updates]
    assert len(pairs) == len(set(pairs))


def test_a_buffer_larger_than_the_fleet_merges_what_it_has(task: Task) -> None:
    result = simulate(task, SimulationConfig(devices=3, versions=2, buffer_updates=50), train_config=QUICK)
    assert [facts.updates for facts in result.versions] == [3, 3]


def test_attackers_are_found_and_the_model_survives(task: Task) -> None:
    config = SimulationConfig(devices=20, attackers=2, versions=10, buffer_updates=10, clip_norm=2.5)
    result = simulate(task, config)
    hostile = [update.verdict for update in result.updates if not update.honest]
    honest = [update.verdict for update in result.updates if update.honest]
    assert hostile.count("anomalous") > len(hostile) / 2
    assert honest.count("accepted") > 0.9 * len(honest)
    assert result.curve()[-1] > 0.8


def test_when_everything_is_refused_the_simulation_says_so(task: Task) -> None:
    with pytest.raises(UsageProblem) as caught:
        simulate(
            task,
            SimulationConfig(devices=4, versions=5, buffer_updates=2, cosine_min=1.1),
            train_config=QUICK,
        )
    assert caught.value.error_id == "FLV-2217"


@pytest.mark.parametrize("wrong", [{"devices": 0}, {"attackers": 40}, {"alpha": 0.0}, {"clip_norm": -1.0}])
def test_settings_out_of_bounds_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageProblem) as caught:
        SimulationConfig(**wrong)  # type: ignore[arg-type]
    assert caught.value.error_id == "FLV-2216"


@pytest.mark.parametrize("name", ["digits", "fashion"])
def test_a_simulation_takes_the_shipped_tasks_policy(name: str) -> None:
    policy = policy_from_mapping(load_task(name).policy_overrides)
    config = simulation_under(policy, devices=7)
    assert config.devices == 7
    assert config.clip_norm == policy.updates.norm_clip < 10.0
    assert config.server_learning_rate == 0.8


def test_a_new_task_works_as_written(tmp_path: Path) -> None:
    path = write_task("mine", tmp_path)
    assert path == tmp_path / "mine.py"
    assert "fluvial run mine.py" in path.read_text(encoding="utf-8")
    assert "{{" not in path.read_text(encoding="utf-8")
    task = load_task(str(path))
    result = simulate(task, SimulationConfig(devices=10, versions=10, buffer_updates=5))
    assert task.name == "mine"
    assert result.curve()[-1] > 0.8


def test_an_existing_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("precious", encoding="utf-8")
    with pytest.raises(UsageProblem) as caught:
        write_task("mine", tmp_path)
    assert caught.value.error_id == "FLV-2210"
    assert (tmp_path / "mine.py").read_text(encoding="utf-8") == "precious"


@pytest.mark.parametrize(
    ("name", "error_id"),
    [
        ("Mine", "FLV-2201"),
        ("../up", "FLV-2201"),
        ("", "FLV-2201"),
        ("a" * 49, "FLV-2201"),
        ("digits", "FLV-2211"),
    ],
)
def test_a_name_that_cannot_be_is_refused(tmp_path: Path, name: str, error_id: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        write_task(name, tmp_path)
    assert caught.value.error_id == error_id
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        write_task("mine", tmp_path / "nowhere")
    assert caught.value.error_id == "FLV-2215"
    assert caught.value.hint.startswith("mkdir -p")


def test_the_light_parts_do_not_load_torch() -> None:
    code = "import sys, learning, learning.new_task, learning.config, learning.datasets, learning.partition\n"
    code += "sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, check=False, timeout=60)
    assert done.returncode == 0


def test_every_error_id_of_this_part_has_its_page() -> None:
    root = Path(__file__).parents[2]
    source = "".join(path.read_text(encoding="utf-8") for path in (root / "learning").rglob("*.py"))
    for error_id in sorted(set(re.findall(r"FLV-22\d\d", source))):
        page = root / "docs" / "errors" / f"{error_id}.md"
        assert page.read_text(encoding="utf-8").startswith(f"# {error_id}: ")
