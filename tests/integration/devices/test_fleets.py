"""Fleets on the real Kafka and object store: what they publish, when they stop, and the program that a task carries."""

from __future__ import annotations

import shutil
import threading
from typing import TYPE_CHECKING

import msgspec
import pytest

from aggregation.errors import TimeoutProblem, UsageProblem
from backends.tasks import keys_folder
from fluvial.reading.models import load_model
from fluvial.terminal.output import quiet_output
from producers.fleet.behaviours import MISBEHAVIOURS, Behaviour
from producers.fleet.fleet import Fleet
from producers.fleet.journal import read_journal
from producers.fleet.population import FleetConfig
from tests.integration.devices.stage import Stage, create

if TYPE_CHECKING:
    from pathlib import Path

    from backends.settings import Settings


def test_every_record_of_a_fleet_is_in_its_journal_and_gets_the_outcome_it_deserves(
    stage: Stage, tmp_path: Path
) -> None:
    stage.announce(0)
    config = FleetConfig(
        devices=20, attackers=4, misbehaving=9, round_s=0.0, seconds_max=120.0, updates_max=21
    )
    journal = tmp_path / "journal.jsonl"

    summary = Fleet(stage.settings, stage.file, config, speaker=quiet_output(), journal=journal).run()

    verdicts = stage.fold()
    entries = read_journal(journal)
    assert {(entry.region, entry.partition, entry.offset) for entry in entries} == verdicts.keys()
    assert len(entries) == summary.updates == 21
    assert summary.failed == 0
    expected = {behaviour.label: behaviour.expected for behaviour in Behaviour}
    for entry in entries:
        verdict = verdicts[entry.region, entry.partition, entry.offset]
        assert verdict.outcome in expected[entry.behaviour], (entry, verdict)
    assert {behaviour.label for behaviour in MISBEHAVIOURS} <= {entry.behaviour for entry in entries}


def test_a_fleet_waits_for_a_newer_version_and_stops_at_the_one_it_was_told(stage: Stage) -> None:
    stage.announce(0)
    config = FleetConfig(devices=4, round_s=0.0, seconds_max=120.0, version_max=2)
    fleet = Fleet(stage.settings, stage.file, config, speaker=quiet_output())
    timers = [threading.Timer(4.0 * version, stage.announce, [version]) for version in (1, 2)]
    for timer in timers:
        timer.start()

    summary = fleet.run()

    for timer in timers:
        timer.join()
    assert summary.versions == {"eu": 2, "us": 2}
    assert 8 <= summary.updates <= 12, "a region may hear of version 2 before the other"


def test_a_fleet_without_a_merger_says_so_and_one_that_is_stopped_ends_well(stage: Stage) -> None:
    config = FleetConfig(devices=2, announcement_timeout_s=0.5)
    with pytest.raises(TimeoutProblem) as caught:
        Fleet(stage.settings, stage.file, config, speaker=quiet_output()).run()
    assert caught.value.error_id == "FLV-2502"

    stage.announce(0)
    fleet = Fleet(stage.settings, stage.file, FleetConfig(devices=2), speaker=quiet_output())
    threading.Timer(3.0, fleet.stop).start()
    assert fleet.run().updates <= 2


PROGRAM = {
    "mine.py": """
import numpy as np
import learning
from .nets import small as model

def data():
    x = np.arange(80.0).reshape(40, 2) / 80
    return learning.Dataset(train=(x, x[:, 0] > 0.5), test=(x, x[:, 0] > 0.5))

def train(model, data, config):
    return learning.fit(model, data, config)

def evaluate(model, data):
    return learning.score(model, data)
""",
    "nets.py": "from torch import nn\n\ndef small():\n    return nn.Linear(2, 2)\n",
}


def test_a_machine_without_the_task_file_trains_with_what_the_task_carries(
    stack: Settings, name: str, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    for file, text in PROGRAM.items():
        (here / file).write_text(text)
    stage = Stage(stack, create(stack, name, reference=str(here / "mine.py")))
    assert create(stack, name, reference=str(here / "mine.py")) == stage.file
    (here / "nets.py").write_text(PROGRAM["nets.py"] + "# edited")
    with pytest.raises(UsageProblem, match="differs in code"):
        create(stack, name, reference=str(here / "mine.py"))

    shutil.rmtree(here)
    elsewhere = msgspec.structs.replace(stack, home=tmp_path / "elsewhere")
    shutil.copytree(stage.keys, keys_folder(elsewhere.home, name))
    stage.announce(0)
    fleet = Fleet(elsewhere, stage.file, FleetConfig(devices=2, updates_max=2), speaker=quiet_output())
    assert fleet.run().updates == 2
    assert {verdict.outcome for verdict in stage.fold().values()} == {"accepted"}
    (root,) = (elsewhere.home / "cache" / "programs").iterdir()
    assert {path.name: path.read_text() for path in root.iterdir()} == PROGRAM
    module = load_model(name, settings=elsewhere, genesis_sha256=stage.file.genesis_sha256).module()
    assert type(module).__name__ == "Linear"
    with pytest.raises(UsageProblem) as caught:  # nothing says that this genesis is the right one
        load_model(name, settings=elsewhere).module()
    assert caught.value.error_id == "FLV-2218"
