"""A recorded order of arrivals, trained and merged anew: the same task file and policy give the same models."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from aggregation.errors import FluvialError
from backends import keys
from backends.memory.log import MemoryLog, MemoryReader
from backends.memory.store import MemoryStore
from backends.store.task_store import TaskStore
from fluvial.local.policies import layered_policy, quick_policy
from fluvial.session.simulation import _Simulation
from fluvial.simulating.arrivals import (
    Arrival,
    Arrivals,
    parsed,
    read_arrivals,
    recorded_arrivals,
    write_arrivals,
)
from fluvial.simulating.replaying import replay
from fluvial.simulating.training import Trainers
from learning.task import Task, load_task
from producers.fleet.population import FleetConfig
from schemas.certificates import CONTROL, Role
from schemas.manifests import Genesis
from tests.arrivals_run import MODES, TASK

DEVICES: Final = 8
UPDATES: Final = "fl.plane.updates.eu"
GOLDEN: Final = Path(__file__).parents[3] / "golden" / "arrivals.v1"


def task_in(folder: Path) -> Task:
    file = folder / "plane.py"
    if not file.exists():
        file.write_text(TASK)
    return load_task(str(file))


def ran(
    folder: Path,
    policy: str = "",
    *,
    versions: int = 4,
    seed: int = 3,
    before: Callable[[_Simulation], object] = lambda _: None,
    **fleet: Any,
) -> tuple[_Simulation, Arrivals]:
    """A fleet's run over the real loops, and its arrivals. ``before`` has it before it begins."""
    task = task_in(folder)
    simulation = _Simulation(
        task,
        FleetConfig(devices=DEVICES, round_s=1.0, seed=seed, alpha=0.5, **fleet),
        policy=layered_policy(explicit=policy, task=task.policy_overrides, defaults=quick_policy(DEVICES)),
        regions={"eu": 2, "us": 1},
        folder=folder / "keys",
        train_config=task.config,
    )
    engine = simulation.engine
    before(simulation)
    asyncio.run(simulation.to_the_end(versions, None))
    return simulation, parsed(arrivals_of(engine.genesis, engine.store, engine.log, seed).to_bytes())


def arrivals_of(genesis: Genesis, store: TaskStore, log: MemoryLog, seed: int = 3) -> Arrivals:
    reader = MemoryReader(log)
    return recorded_arrivals(genesis, store, reader, seed=seed, devices=DEVICES, alpha=0.5, settings={})


def played(folder: Path, arrivals: Arrivals, processes: int = 1, versions: int | None = None) -> list[str]:
    with Trainers(task := task_in(folder), {}, processes) as trainers:
        return [one.model_sha256 for one in replay(arrivals, task, trainers, versions=versions)]


def with_records(arrivals: Arrivals, at: int, *records: Arrival) -> Arrivals:
    """Of the first partition, the record ``at`` is replaced."""
    first, *others = arrivals.partitions
    changed = (*first.records[:at], *records, *first.records[at + 1 :])
    return msgspec.structs.replace(
        arrivals, partitions=(msgspec.structs.replace(first, records=changed), *others)
    )


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_gives_the_same_models_again(tmp_path: Path, mode: str) -> None:
    simulation, arrivals = ran(tmp_path, MODES[mode])
    head = simulation.engine.head
    assert head >= 4
    assert arrivals.updates > 2 * head
    made = played(tmp_path, arrivals)
    assert made == [simulation.engine.store.manifest(number).model_sha256 for number in range(1, head + 1)]
    assert len(set(made)) == head


def test_any_number_of_processes_and_a_part_of_the_versions_give_the_same(tmp_path: Path) -> None:
    _, arrivals = ran(tmp_path)
    whole = played(tmp_path, arrivals)
    assert played(tmp_path, arrivals, processes=2) == whole
    assert played(tmp_path, arrivals, versions=2) == whole[:2]


def test_what_is_no_update_stands_in_the_file_as_it_was(tmp_path: Path) -> None:
    """It takes an offset, and is refused as it was."""
    simulation, arrivals = ran(
        tmp_path, versions=2, before=lambda one: one.engine.log.append(UPDATES, 0, None, b"no update", ())
    )
    assert arrivals.partitions[0].records[0].value == b"no update"
    assert played(tmp_path, arrivals)[-1] == simulation.engine.store.manifest(2).model_sha256


def test_a_file_keeps_it(tmp_path: Path) -> None:
    _, arrivals = ran(tmp_path, versions=2)
    write_arrivals(tmp_path / "there" / "arrivals.json", arrivals)
    assert read_arrivals(tmp_path / "there" / "arrivals.json") == arrivals
    (tmp_path / "folder").mkdir()
    with pytest.raises(FluvialError) as caught:
        write_arrivals(tmp_path / "folder", arrivals)
    assert caught.value.error_id == "FLV-6308"


def test_another_seed_or_another_file_is_named(tmp_path: Path) -> None:
    _, arrivals = ran(tmp_path, versions=2)
    for changed in (
        msgspec.structs.replace(arrivals, seed=4),
        msgspec.structs.replace(arrivals, alpha=50.0),
        msgspec.structs.replace(arrivals, devices=DEVICES - 5),
    ):
        with pytest.raises(FluvialError) as caught:
            played(tmp_path, changed)
        assert caught.value.error_id == "FLV-2271"
    (tmp_path / "plane.py").write_text(TASK.replace("np.zeros(2", "np.ones(2"))
    with pytest.raises(FluvialError, match="first model") as caught:
        played(tmp_path, arrivals)
    assert caught.value.error_id == "FLV-2271"


def test_an_attackers_update_is_named(tmp_path: Path) -> None:
    _, arrivals = ran(tmp_path, versions=2, attackers=1)
    with pytest.raises(FluvialError, match="d-0007 trains from version 0 is not what it sent") as caught:
        played(tmp_path, arrivals)
    assert caught.value.error_id == "FLV-2271"
    assert caught.value.where


def test_an_update_of_a_version_that_is_not_made_yet_is_named(tmp_path: Path) -> None:
    _, arrivals = ran(tmp_path, versions=2)
    at = next(n for n, one in enumerate(arrivals.partitions[0].records) if one.device)
    early = msgspec.structs.replace(arrivals.partitions[0].records[at], base=2)
    with pytest.raises(FluvialError, match="answers version 2, which is not made before it") as caught:
        played(tmp_path, with_records(arrivals, at, early))
    assert caught.value.error_id == "FLV-2270"


def test_a_version_that_comes_to_something_else_is_named(tmp_path: Path) -> None:
    _, arrivals = ran(tmp_path, versions=3)
    first, second, *others = arrivals.versions
    spoiled: list[Any] = [
        msgspec.structs.replace(second, model_sha256="0" * 64),
        msgspec.structs.replace(second, optimizer_sha256="0" * 64),
        msgspec.structs.replace(second, windows=()),
        msgspec.structs.replace(second, windows=((*second.windows[0][:2], 1 << 40),)),
        msgspec.structs.replace(second, windows=(*second.windows, *others[0].windows)),
    ]
    for one in spoiled:
        changed = msgspec.structs.replace(arrivals, versions=(first, one, *others))
        with pytest.raises(FluvialError, match="version 2") as caught:
            played(tmp_path, changed)
        assert caught.value.error_id in {"FLV-2272", "FLV-2271"}


def test_what_is_no_file_of_arrivals_is_named(tmp_path: Path) -> None:
    _, arrivals = ran(tmp_path, versions=2)
    good = msgspec.json.decode(arrivals.to_bytes())
    spoiled: list[Any] = [
        {},
        good | {"format": "fluvial/arrivals/v9"},
        good | {"genesis": "{}"},
        good | {"genesis": "no JSON"},
        good | {"partitions": good["partitions"][1:]},
        good | {"versions": good["versions"][1:]},
        good | {"versions": []},
        good | {"devices": 0},
        good | {"more": 1},
        good | {"versions": [good["versions"][0] | {"windows": [["nowhere", 0, 0]]}]},
    ]
    for one in [b"", b"[" * 100_000, *map(msgspec.json.encode, spoiled)]:
        with pytest.raises(FluvialError) as caught:
            parsed(one, "here")
        assert (caught.value.error_id, caught.value.where) == ("FLV-2270", "here")
    with pytest.raises(FluvialError, match="cannot be read") as caught:
        read_arrivals(tmp_path / "none.json")
    assert caught.value.error_id == "FLV-2270"


def parked(simulation: _Simulation) -> None:
    """An operator's Skip of the first record."""
    genesis, folder = simulation.engine.genesis, simulation.task.path.parent / "keys"
    operator = keys.load_key_pair(keys.signer_path(folder, CONTROL, Role.OPERATOR, "operator"))
    skip = {"task": "plane", "region": "eu", "partition": 0, "offset": 0, "reason": "a defect"}
    simulation.engine.log.append(UPDATES, 0, None, b"no update", ())
    value = operator.of_task(genesis.domain).sign("Skip", skip)
    simulation.engine.log.append(UPDATES, 0, None, value, ())


def test_logs_that_cannot_be_trained_anew_are_named(tmp_path: Path) -> None:
    simulation, _ = ran(tmp_path, versions=1)
    engine, genesis = simulation.engine, simulation.engine.genesis
    guided = layered_policy(explicit='[defence]\nkind = "guide"\n', task={}, defaults="")
    of_guided = msgspec.structs.replace(genesis, policy=msgspec.json.decode(guided.canonical()))
    without = TaskStore(MemoryStore(), "plane")
    for document, store, words in (
        (of_guided, engine.store, "guided"),
        (genesis, without, "no version"),
    ):
        with pytest.raises(FluvialError, match=words) as caught:
            arrivals_of(document, store, engine.log)
        assert caught.value.error_id == "FLV-2270"
    with pytest.raises(FluvialError, match="an operator has parked") as caught:
        ran(tmp_path, versions=1, before=parked)
    assert caught.value.error_id == "FLV-2270"
    engine.log.forget_before(UPDATES, 0, 1)
    with pytest.raises(FluvialError, match="its beginning is gone"):
        arrivals_of(genesis, engine.store, engine.log)


@pytest.mark.parametrize("mode", MODES)
def test_a_run_on_kafka_and_minio_comes_to_the_same_models(tmp_path: Path, mode: str) -> None:
    """``python -m tests.arrivals_run`` recorded it there; ``tests/integration/test_same_models.py`` does so anew."""
    arrivals = read_arrivals(GOLDEN / f"{mode}.json")
    assert arrivals.genesis_document().first_policy.in_rounds == (mode == "rounds")
    assert played(tmp_path, arrivals) == [one.model_sha256 for one in arrivals.versions]
    assert len(arrivals.versions) >= 4


SCAFFOLD: Final = """
import numpy as np
from torch import nn
import learning

CONFIG = {"epochs": 2, "batch_size": 8, "learning_rate": 0.1, "algorithm": "scaffold"}
DATA = "digits"

def model():
    return nn.Linear(64, 10)

def train(model, data, config):
    return learning.fit(model, data, config, **config.extra)

def evaluate(model, data):
    return learning.score(model, data)
"""


def test_a_run_with_control_variates_is_played_with_each_devices_own(tmp_path: Path) -> None:
    (tmp_path / "plane.py").write_text(SCAFFOLD)
    simulation, arrivals = ran(tmp_path, "[control]\ndevices = 8\n")
    made = [simulation.engine.store.manifest(version).model_sha256 for version in range(1, 5)]
    assert played(tmp_path, arrivals) == made
