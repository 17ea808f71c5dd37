"""Creating a task, devices, a fleet and revocation, on the real Kafka and object store.

The merger's and the workers' parts are played here by the pure fold and a signed announcement, so that each test says
exactly what a device finds; the whole pipeline has suites of its own.
"""

from __future__ import annotations

import json
import shutil
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from aggregation.errors import TimeoutProblem, UsageProblem
from aggregation.fold.events import Verdict
from aggregation.fold.state import PartitionState, initial
from aggregation.fold.transition import fold_into
from aggregation.policy import policy_from_mapping
from backends import keys
from backends.kafka.reading import LogReader
from backends.kafka.writing import LogWriter
from backends.store.factory import open_object_store
from backends.store.task_store import TaskStore
from backends.tasks import TaskFile, keys_folder, read_task_file
from fluvial.cli import main
from fluvial.local.create import create_task
from fluvial.reading.models import load_model
from fluvial.terminal.output import quiet_output
from producers.fleet.behaviours import MISBEHAVIOURS, Behaviour
from producers.fleet.fleet import Fleet
from producers.fleet.journal import read_journal
from producers.fleet.population import FleetConfig
from producers.sdk.announcements import Announcements
from producers.sdk.device import Device
from producers.sdk.updates import Contribution
from schemas.certificates import CONTROL, Role
from schemas.objects import model_key
from schemas.records import decode_record
from schemas.topics import models_topic, updates_topic, verdicts_topic
from tests.factories import verdict_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backends.settings import Settings

REGIONS = {"eu": 2, "us": 1}


@dataclass
class Stage:
    """One task, with what the merger and the workers would do."""

    settings: Settings
    file: TaskFile

    def __post_init__(self) -> None:
        self.task = self.file.task
        self.store = TaskStore(open_object_store(self.settings.store), self.task)
        self.genesis = self.store.genesis(self.file.genesis_sha256)
        self.keys = keys_folder(self.settings.home, self.task)
        self.writer = LogWriter(self.settings, f"test-{self.task}")

    def announce(self, version: int, *, role: Role = Role.MERGER) -> None:
        """Announce the first model once more, as ``version``, to all regions."""
        self.store.store.put(
            model_key(self.task, version), self.store.model_bytes(0, self.genesis.model_sha256)
        )
        region = CONTROL if role is Role.MERGER else "eu"
        key_pair = keys.load_key_pair(keys.issue(self.keys, region, role, "merger"))
        signer = key_pair.of_task(self.genesis.domain)
        for name in self.genesis.regions:
            record = {
                "task": self.task,
                "region": name,
                "version": version,
                "manifest_sha256": "0" * 64,
                "model_sha256": self.genesis.model_sha256,
                "policy_sha256": self.genesis.first_policy.sha256,
            }
            value = signer.sign("ModelAnnouncement", record)
            self.writer.append_now(models_topic(self.task), value, key=name.encode(), partition=0)

    def device(self, name: str, region: str = "eu", **options: Any) -> Device:
        path = keys.issue(self.keys, region, Role.DEVICE, name)
        return Device.open(
            self.settings,
            task=self.task,
            region=region,
            key=path,
            genesis_sha256=self.file.genesis_sha256,
            **options,
        )

    def fold(self) -> dict[tuple[str, int, int], Verdict]:
        """The verdict on every record of every updates topic, by region, partition and offset."""
        verdicts: dict[tuple[str, int, int], Verdict] = {}
        trust = self.genesis.trust
        with LogReader(self.settings, f"test-fold-{self.task}") as reader:
            for region, partition in self.genesis.slots:
                state, topic = self._state(region, partition), updates_topic(self.task, region)
                for record in reader.read(topic, partition, 0, reader.bounds(topic, partition)[1]):
                    event = decode_record(record.value, record.timestamp_ms, trust, state.policy)
                    for effect in fold_into(state, record.offset, event):
                        if isinstance(effect, Verdict):
                            verdicts[region, partition, record.offset] = effect
        return verdicts

    def _state(self, region: str, partition: int) -> PartitionState:
        return initial(
            task=self.task,
            region=region,
            partition=partition,
            partitions=self.genesis.partitions[region],
            layout=self.genesis.tensor_layout,
            policy=self.genesis.first_policy,
            model_sha256=self.genesis.model_sha256,
        )


def create(settings: Settings, name: str, **options: Any) -> TaskFile:
    arguments: dict[str, Any] = {
        "reference": "digits",
        "regions": REGIONS,
        "output": quiet_output(),
    } | options
    return create_task(settings, name=name, **arguments)


@pytest.fixture(scope="module")
def counter() -> Iterator[int]:
    return iter(range(1000))


@pytest.fixture
def name(counter: Iterator[int]) -> str:
    """A task name that no other test has."""
    return f"devices-{next(counter)}"


@pytest.fixture
def stage(stack: Settings, name: str) -> Stage:
    return Stage(stack, create(stack, name))


def contribution(stage: Stage, value: float = 0.001) -> Contribution:
    return Contribution(np.full(stage.genesis.tensor_layout.parameters, value, dtype=np.float32), 10, 0.5)


# -- creating a task


def test_creating_a_task_twice_changes_nothing(stack: Settings, name: str) -> None:
    first = create(stack, name)
    store = TaskStore(open_object_store(stack.store), name)
    before = store.manifest_bytes(0)
    assert create(stack, name) == first == read_task_file(stack.home, name)
    assert store.manifest_bytes(0) == before
    assert store.has_checkpoint(0)
    policy = store.genesis(first.genesis_sha256).first_policy
    assert store.policy(policy.sha256) == policy


def test_a_task_from_before_policies_had_formats_is_found_unchanged_by_the_same_command(
    stack: Settings, name: str
) -> None:
    first = create(stack, name, policy_text='format = "fluvial/policy/v1"')
    assert (
        "format"
        not in json.loads(TaskStore(open_object_store(stack.store), name).manifest_bytes(0))["policy"]
    )
    assert create(stack, name) == first
    with pytest.raises(UsageProblem, match="differs in policy") as caught:
        create(stack, name, policy_text='format = "fluvial/policy/v2"')
    assert caught.value.error_id == "FLV-2403"


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"regions": {"eu": 2}}, "regions"),
        ({"policy_text": "[buffer]\nupdates = 7"}, "policy"),
        ({"seed": 1}, "model_sha256"),
    ],
    ids=["other regions", "another policy", "another seed"],
)
def test_another_task_of_the_same_name_is_refused(
    stage: Stage, options: dict[str, Any], difference: str
) -> None:
    with pytest.raises(UsageProblem, match=difference) as caught:
        create(stage.settings, stage.task, **options)
    assert caught.value.error_id == "FLV-2403"
    assert stage.store.genesis(stage.file.genesis_sha256) == stage.genesis
    assert stage.store.model_bytes(0, stage.genesis.model_sha256)


def test_a_machine_without_the_tasks_keys_cannot_create_it_again(stage: Stage, tmp_path: Path) -> None:
    elsewhere = msgspec.structs.replace(stage.settings, home=tmp_path)
    with pytest.raises(UsageProblem, match="not on this machine") as caught:
        create(elsewhere, stage.task)
    assert caught.value.error_id == "FLV-2403"
    assert not keys_folder(tmp_path, stage.task).exists()


def test_of_two_who_create_a_task_at_once_with_keys_of_their_own_one_wins(
    stack: Settings, name: str, tmp_path: Path
) -> None:
    outcomes: list[object] = []

    def run(number: int) -> None:
        try:
            outcomes.append(create(msgspec.structs.replace(stack, home=tmp_path / str(number)), name))
        except UsageProblem as problem:
            outcomes.append(problem)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    (winner,) = [outcome for outcome in outcomes if isinstance(outcome, TaskFile)]
    assert {o.error_id for o in outcomes if isinstance(o, UsageProblem)} == {"FLV-2403"}
    genesis = TaskStore(open_object_store(stack.store), name).genesis(winner.genesis_sha256)
    assert genesis.task == name


def test_a_model_whose_updates_would_not_fit_is_refused(stack: Settings, name: str) -> None:
    with pytest.raises(UsageProblem, match=r"updates\.bytes_max") as caught:
        create(stack, name, policy_text="[updates]\nbytes_max = 10000")
    assert caught.value.error_id == "FLV-2404"
    assert TaskStore(open_object_store(stack.store), name).head() is None


def test_a_new_task_does_not_start_on_an_earlier_ones_logs(stage: Stage, tmp_path: Path) -> None:
    stage.writer.append_now(updates_topic(stage.task, "us"), b"old", partition=0)
    store = msgspec.structs.replace(stage.settings.store, kind="file", path=tmp_path / "objects")
    emptied = msgspec.structs.replace(stage.settings, store=store)
    with pytest.raises(UsageProblem, match="1 records") as caught:
        create(emptied, stage.task)
    assert caught.value.error_id == "FLV-2406"


# -- announcements


def test_a_device_that_starts_gets_the_newest_version_not_the_first(stage: Stage) -> None:
    for version in (0, 2, 1):
        stage.announce(version)
    with stage.device("d-1") as device:
        assert device.fetch().version == 2


def test_a_forged_announcement_is_disregarded(stage: Stage) -> None:
    stage.announce(0)
    stage.announce(9, role=Role.DEVICE)
    stage.writer.append_now(models_topic(stage.task), b"nonsense", partition=0)
    with Announcements(stage.settings, stage.genesis) as announcements:
        assert announcements.wait_for("us", 0, 20).version == 0
        with pytest.raises(TimeoutProblem, match="the newest is version 0") as caught:
            announcements.wait_for("us", 1, 0.3)
        assert caught.value.error_id == "FLV-2502"
        stage.announce(1)
        assert announcements.wait_for("us", 1, 20).version == 1


# -- one device


def test_an_update_stands_in_its_devices_partition_and_counts_once(stage: Stage) -> None:
    stage.announce(0)
    with stage.device("d-1") as device:
        base = device.fetch()
        first, second = (device.publish(base, contribution(stage)) for _ in range(2))
    verdicts = stage.fold()
    assert verdicts["eu", first.partition, first.offset].outcome == "accepted"
    assert verdicts["eu", first.partition, first.offset].update_id == first.update_id
    assert verdicts["eu", second.partition, second.offset].outcome == "duplicate"


def test_a_device_learns_what_became_of_its_update_or_that_nobody_judged_it(stage: Stage) -> None:
    stage.announce(0)
    with stage.device("d-1") as device:
        receipt = device.publish(device.fetch(), contribution(stage))
        with pytest.raises(TimeoutProblem, match="is a worker running") as caught:
            device.verdict(receipt, timeout_s=0.5)
        assert caught.value.error_id == "FLV-2503"
        verdict = stage.fold()["eu", receipt.partition, receipt.offset]
        stage.writer.append_now(
            verdicts_topic(stage.task, "eu"),
            verdict_bytes(verdict, stage.genesis.rules),
            partition=receipt.partition,
        )
        assert device.verdict(receipt, timeout_s=180) == verdict


def test_nothing_is_sent_of_an_update_that_is_too_large(stage: Stage) -> None:
    stage.announce(0)
    with stage.device("d-1", codec="float32") as device:
        stricter = replace(device.fetch(), policy=policy_from_mapping({"updates": {"bytes_max": 10_000}}))
        with pytest.raises(UsageProblem) as caught:
            device.publish(stricter, contribution(stage))
    assert caught.value.error_id == "FLV-2501"
    assert stage.fold() == {}


def test_the_commands_of_one_device(stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage.announce(0)
    common = ["--task", stage.task, "--region", "eu"]
    home = ["--home", str(stage.settings.home)]
    assert main([*home, "device", "fetch", *common, "--id", "alice"]) == 4
    assert f" ca issue --task {stage.task} --region eu --role device alice`" in capsys.readouterr().err

    assert main([*home, "ca", "issue", *common, "--role", "device", "alice"]) == 0
    out = tmp_path / "model.safetensors"
    capsys.readouterr()
    assert main([*home, "device", "fetch", *common, "--id", "alice", "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == 0
    assert out.read_bytes() == stage.store.model_bytes(0, stage.genesis.model_sha256)

    publish = ["device", "publish", *common, "--id", "alice", "--examples", "3", "--timeout", "1", str(out)]
    assert main([*home, *publish]) == 3
    assert "FLV-2503" in capsys.readouterr().err


# -- a fleet


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


# -- the program that a task carries

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


# -- revocation


def test_a_revoked_device_is_refused_from_then_on(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.announce(0)
    with stage.device("d-1") as device, stage.device("d-2") as other:
        base = device.fetch()
        arguments = ["--home", str(stage.settings.home), "revoke", "--task", stage.task, "--region", "eu"]
        assert main([*arguments, "d-1", "--reason", "lost", "--json"]) == 4
        assert "FLV-6002" in capsys.readouterr().err
        assert main([*arguments, "d-1", "--reason", "lost", "--yes", "--json"]) == 0
        places = json.loads(capsys.readouterr().out)["positions"]
        revoked, welcome = (one.publish(base, contribution(stage)) for one in (device, other))
        assert main([*arguments, "d-2", "--certificate", "--reason", "leaked", "--yes"]) == 0
        capsys.readouterr()
        stage.announce(1)
        barred = other.publish(other.fetch(newer_than=0), contribution(stage))
    verdicts = stage.fold()
    assert [verdicts["eu", place["partition"], place["offset"]].outcome for place in places] == [
        "control"
    ] * 2
    assert verdicts["eu", revoked.partition, revoked.offset].outcome == "revoked"
    assert verdicts["eu", welcome.partition, welcome.offset].outcome == "accepted"
    assert verdicts["eu", barred.partition, barred.offset].outcome == "revoked"


def test_a_worker_s_merger_s_or_operator_s_certificate_is_revoked_where_it_could_sign(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    start = [
        "--home",
        str(stage.settings.home),
        "revoke",
        "--task",
        stage.task,
        "--reason",
        "stolen",
        "--json",
    ]
    assert main([*start, "--region", "eu", "--role", "worker", "--serial", "none", "worker-eu"]) == 4
    assert "FLV-2409" in capsys.readouterr().err
    operator = [*start, "--region", "control", "--role", "operator", "operator"]
    assert main(operator) == 4
    said = capsys.readouterr().err
    assert "this is the certificate that signs here" in said and "FLV-6002" in said
    everywhere = [(updates_topic(stage.task, region), partition) for region, partition in stage.genesis.slots]
    for role, region, name in (("worker", "eu", "worker-eu"), ("merger", "control", "merger")):
        assert main([*start, "--region", region, "--role", role, name, "--yes"]) == 0
        told = json.loads(capsys.readouterr().out)
        path = keys.signer_path(stage.keys, region, Role(role), name)
        assert told["certificate_serial"] == keys.certificate_serial(path) and not told["device_id"]
        places = {(one["topic"], one["partition"]) for one in told["positions"]}
        wanted = {one for one in everywhere if region == "control" or one[0].endswith(f".{region}")}
        assert places == wanted | {(models_topic(stage.task), 0)}
    assert main([*operator, "--yes"]) == 0
    capsys.readouterr()
    assert main([*start, "--region", "eu", "d-9", "--yes"]) == 0, "it is written, and counts no more"
    place = json.loads(capsys.readouterr().out)["positions"][0]
    last = stage.fold()["eu", place["partition"], place["offset"]]
    assert (last.outcome, last.because.reason.code) == ("revoked", 414)
