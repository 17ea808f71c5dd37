"""JSON logs of real processes: every line one object with its fields, and no key, device id or payload in any."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from schemas.topics import aggregates_topic
from tests import factories
from tests.integration.pipeline import Federation, Running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backends.settings import Settings

POLICY = factories.policy(window={"updates_max": 2, "seconds_max": 3600.0}, buffer={"updates": 2})
DEVICE, KEY, PAYLOAD = "device-that-is-nobodys-business", b"key-that-is-secret", b"payload-that-is-secret"


@pytest.fixture
def federation(stack: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Federation]:
    monkeypatch.setenv("FLUVIAL_LOG_FORMAT", "json")
    federation = Federation(stack, tmp_path, {"eu": 1}, POLICY)
    yield federation
    federation.end()


def lines(process: Running) -> list[dict[str, Any]]:
    return [json.loads(line) for line in process.log.splitlines()]


def test_every_line_is_json_with_its_place_and_without_what_is_secret(federation: Federation) -> None:
    slot = ("eu", 0)
    federation.append(slot, federation.update(DEVICE, seed=1), KEY)
    federation.append(slot, PAYLOAD * 20, KEY)  # undecodable
    federation.append(slot, federation.device("other").sign_payload("ClientUpdate", PAYLOAD), KEY)
    federation.append(slot, federation.update("d-2", seed=2, update_id="update-that-is-secret"), KEY)
    federation.writer.append_now(aggregates_topic(federation.task, "eu"), PAYLOAD, key=KEY, partition=0)
    worker, merger = federation.start("worker", "worker-7"), federation.start("merger", "merger-7")
    federation.await_version(1, 180.0)
    merger.says("ignored ")
    merger.says("version 1: ")
    assert worker.stop() == merger.stop() == 0
    restarted = federation.start("worker", "worker-8")
    restarted.says("resumes at offset")
    assert restarted.stop() == 0
    said = {one.name: lines(one) for one in (worker, merger, restarted)}  # the last is the command's own
    for name, found in said.items():
        for line in found:
            assert {"timestamp", "level", "logger", "message"} <= line.keys(), line
        ours = [line for line in found if line["logger"].startswith("fluvial") and "role" in line]
        assert {(line["task"], line["process"]) for line in ours} == {(federation.task, name)}
    (window,) = [line for line in said["worker-7"] if "published window" in line["message"]]
    assert [window[field] for field in ("region", "partition", "sequence", "version", "role")] == [
        "eu", 0, 0, 0, "worker",
    ]  # fmt: skip
    assert window["offset"] >= 3
    (version,) = [line for line in said["merger-7"] if line["message"].startswith("version 1: ")]
    assert (version["version"], version["role"]) == (1, "merger")
    (ignored,) = [line for line in said["merger-7"] if line["message"].startswith("ignored ")]
    assert [ignored[field] for field in ("region", "partition", "offset")] == ["eu", 0, 0]
    (resumed,) = [line for line in said["worker-8"] if "resumes at offset" in line["message"]]
    assert resumed["offset"] <= window["offset"] + 1, "the last windows of others are folded again"
    everything = worker.log + merger.log + restarted.log
    for secret in (
        DEVICE,
        KEY.decode(),
        PAYLOAD.decode(),
        PAYLOAD.hex(),
        "update-that-is-secret",
        "PRIVATE KEY",
    ):
        assert secret not in everything


def test_an_unknown_format_does_not_start(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUVIAL_LOG_FORMAT", "xml")
    worker = federation.start("worker")
    assert worker.process.wait(60) == 4
    assert "error[FLV-1002]" in worker.log and "human or json" in worker.log
