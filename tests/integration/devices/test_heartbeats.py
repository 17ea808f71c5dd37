"""Heartbeats on the real Kafka: who is there, of which cohort, and what it does, though it publishes nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from backends import keys
from backends.kafka.admin import admin_client
from backends.kafka.topic_settings import compare_topics
from backends.tasks import read_task_file
from fluvial.cli import main
from producers.sdk.device import Device
from producers.sdk.eligibility import NotNowProblem
from schemas.certificates import Role
from schemas.topics import heartbeats_topic
from tests.integration.devices.stage import Stage, create

if TYPE_CHECKING:
    from backends.settings import Settings


@pytest.mark.long
def test_devices_that_only_wait_are_heard_with_their_cohorts(
    stack: Settings, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    create(stack, name)
    stage = Stage(stack, create(stack, name, heartbeats=True))  # it may be added later
    assert read_task_file(stack.home, name).has_heartbeats
    topic = heartbeats_topic(name)
    assert not compare_topics(admin_client(stack), [topic], stack).differ
    stage.announce(0)
    keys.issue(stage.keys, "eu", Role.DEVICE, "d-1", cohort="hospitals")
    with stage.device("d-1", heartbeat_s=60.0) as waiting:
        base = waiting.fetch_selected()
        assert base.version == 0 and waiting.author.cohort == "hospitals"
        turn = waiting.next_turn(newer_than=0)
        assert turn.version == 1 and 0.0 < turn.wait_s <= base.policy.buffer.seconds_max
    declining: Device = stage.device("d-2", region="us", heartbeat_s=60.0, can_run=lambda: "no power\x1b[2J")
    with declining, pytest.raises(NotNowProblem, match="no power"):
        declining.fetch_selected(timeout_s=0.1)
    stage.writer.append_now(topic, b"junk", partition=0)
    assert main(["--home", str(stack.home), "devices", "--all", "--task", name, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    by_id = {one["device_id"]: one for one in found["devices"]}
    assert (found["total"], found["heartbeats"], found["strays"]) == (2, True, 1)
    assert (by_id["d-1"]["cohort"], by_id["d-1"]["state"]) == ("hospitals", "waiting")
    assert (by_id["d-2"]["region"], by_id["d-2"]["state"]) == ("us", "declined")
    assert main(["--home", str(stack.home), "devices", "--all", "--task", name]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "no power\\x1b[2J" in shown
    assert main(["--home", str(stack.home), "task", "rm", name, "--yes"]) == 0
    assert topic not in admin_client(stack).list_topics(timeout=10).topics
