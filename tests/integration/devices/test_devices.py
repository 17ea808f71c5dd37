"""Devices on the real Kafka and object store: what they fetch, what becomes of their updates, and their commands."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from aggregation.errors import TimeoutProblem, UsageProblem
from aggregation.policy import policy_from_mapping
from fluvial.cli import main
from producers.sdk.announcements import Announcements
from schemas.certificates import Role
from schemas.topics import models_topic, verdicts_topic
from tests.factories import verdict_bytes
from tests.integration.devices.stage import Stage, contribution

if TYPE_CHECKING:
    from pathlib import Path


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
