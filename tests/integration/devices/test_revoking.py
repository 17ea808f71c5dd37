"""Revoking certificates with the command, on the real Kafka and object store."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from backends import keys
from fluvial.cli import main
from schemas.certificates import Role
from schemas.topics import models_topic, updates_topic
from tests.integration.devices.stage import Stage, contribution

if TYPE_CHECKING:
    import pytest


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
