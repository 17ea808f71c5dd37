"""Hints that need a stack to be followed: each situation made, its command typed, and the situation gone."""

from __future__ import annotations

import json
import re
import secrets
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from backends.keys import authority_path
from backends.settings import Settings, stack_path
from backends.tasks import keys_folder
from fluvial import cli
from fluvial.local.stack import LocalStack

COMMAND = re.compile(r"`(fluvial [^`]+)`")


@dataclass
class Place:
    """A home of its own on the session's broker, with a store of its own; ``task`` is made by the first situation."""

    home: Path
    task: str
    store: Path


@pytest.fixture(scope="module")
def task_name() -> str:
    return f"hints-{secrets.token_hex(4)}"


@pytest.fixture
def place(
    stack: Settings, tmp_path_factory: pytest.TempPathFactory, task_name: str, monkeypatch: pytest.MonkeyPatch
) -> Place:
    folder = tmp_path_factory.getbasetemp() / "hints"
    folder.mkdir(exist_ok=True)
    monkeypatch.setenv("FLUVIAL_HOME", str(folder / "home"))
    monkeypatch.setenv("FLUVIAL_BOOTSTRAP_SERVERS", stack.bootstrap_servers)
    monkeypatch.setenv("FLUVIAL_STORE_PATH", str(folder / "objects"))
    return Place(folder / "home", task_name, folder / "objects")


def said_by(text: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    code = cli.main(shlex.split(text))
    out, err = capsys.readouterr()
    return code, out + err


def without_authority(place: Place, _: pytest.MonkeyPatch) -> None:
    authority_path(keys_folder(place.home, place.task), "eu").unlink()


def another_store(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUVIAL_STORE_PATH", str(place.store.with_name("another")))


def nothing(_place: Place, _monkeypatch: pytest.MonkeyPatch) -> None:
    """The situation is the command itself."""


@dataclass(frozen=True)
class Situation:
    error_id: str
    type_it: str
    prepare: Callable[[Place, pytest.MonkeyPatch], None] = nothing
    mends: bool = False
    added: str = ""


SITUATIONS = [
    Situation("FLV-2401", "versions", mends=True, added=" --name {task} --regions eu:1"),
    Situation("FLV-6205", "lineage 99"),
    Situation("FLV-5010", "audit --from 5 --to 9"),
    Situation("FLV-5012", "audit --genesis abc"),
    Situation("FLV-5011", "audit", another_store),
    Situation("FLV-2302", "ca issue --region eu d-1", without_authority, mends=True),
]


@pytest.mark.parametrize("one", SITUATIONS, ids=lambda one: one.error_id)
def test_its_command_mends_it(
    place: Place, one: Situation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if one.error_id != "FLV-2401" and not (place.home / "tasks" / place.task).is_dir():
        assert cli.main(["task", "create", "digits", "--name", place.task, "--regions", "eu:1"]) == 0
    one.prepare(place, monkeypatch)
    code, said = said_by(one.type_it, capsys)
    assert code != 0 and f"error[{one.error_id}]" in said, said
    commands = COMMAND.findall(said.rpartition("hint: ")[2])
    assert commands, said
    if one.mends:
        commands = commands[:1]  # "or" stands before another way
    for command in commands:
        code, said = said_by((command + one.added.format(task=place.task)).removeprefix("fluvial "), capsys)
        assert code == 0, said
    if one.mends:
        code, said = said_by(one.type_it, capsys)
        assert code == 0, said


def test_a_damaged_description_is_written_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "home"
    home.mkdir()
    stack_path(home).write_text("{")
    code, said = said_by(f"--home {home} versions", capsys)
    assert code != 0 and "error[FLV-1003]" in said and "move the file away" in said
    stack_path(home).rename(tmp_path / "away")
    try:
        code, said = said_by(f"--home {home} up --store file", capsys)
        assert code == 0, said
        assert said_by(f"--home {home} config show", capsys)[0] == 0
    finally:
        LocalStack(home).down()


def test_the_doctors_command_mends_a_topic(
    local_stack: LocalStack, stack: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """By Kafka's own tool, as it is printed."""
    name = f"fl.hints-{secrets.token_hex(4)}.updates.eu"
    wrong = {"cleanup.policy": "compact", "message.timestamp.type": "CreateTime", "retention.ms": "600000"}
    admin = AdminClient({"bootstrap.servers": stack.bootstrap_servers})
    admin.create_topics([NewTopic(name, 1, 1, config=wrong)])[name].result(20)
    try:
        before = topics_row(local_stack, capsys)
        assert before["status"] == "problem"
        assert all(f"{setting}={value}" in before["found"] for setting, value in wrong.items())
        subprocess.run(shlex.split(before["mend"]), check=True, capture_output=True)
        assert topics_row(local_stack, capsys)["status"] == "ok"
    finally:
        admin.delete_topics([name])[name].result(20)


def topics_row(stack: LocalStack, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    capsys.readouterr()
    cli.main(["--home", str(stack.home), "doctor", "--json"])
    checks: list[dict[str, str]] = json.loads(capsys.readouterr().out)["checks"]
    return next(check for check in checks if check["name"] == "topics")
