"""The audit on the real Kafka and object store: identical with one process and with three, and loud about one bit."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from backends.settings import Settings
from fluvial import cli
from fluvial.proof.audit import audit_task
from schemas.objects import manifest_key, model_key, object_key
from schemas.topics import updates_topic, verdicts_topic
from schemas.verdicts import decode_verdict
from tests import factories
from tests.integration.pipeline import fork, run_command
from tests.small_federation import PARTITIONS, SmallFederation, declare
from tests.waiting import WAIT_S, until

TASK = "audited"


@pytest.fixture(scope="module")
def federation(stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallFederation]:
    declare(stack, TASK, PARTITIONS)
    federation = SmallFederation(stack, task=TASK, layout=factories.BUFFERED)
    federation.append("eu", 0, b"\xc3\x01garbage")
    federation.append("us", 0, federation.update("eu", "d-0001"))
    federation.rounds(3)
    federation.send(2)
    federation.write_task_file()
    yield federation
    (stack.home / "tasks" / TASK / "task.json").unlink()


class Answer(NamedTuple):
    code: int
    stdout: str
    stderr: str


@pytest.fixture
def fluvial(stack: Settings, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """The command in this process: a new one would spend its time on imports."""

    def call(*arguments: str) -> Answer:
        capsys.readouterr()
        code = cli.main(["--home", str(stack.home), *arguments])
        return Answer(code, *capsys.readouterr())

    return call


def test_one_process_and_three_give_the_same_report(federation: SmallFederation) -> None:
    alone = audit_task(federation.settings, federation.task_file, jobs=1)
    together = audit_task(federation.settings, federation.task_file, jobs=3)
    assert alone.identical, [str(one) for one in alone.findings]
    assert alone.versions == 3 and alone.records > 40
    assert alone.document() | {"seconds": 0, "jobs": 0} == together.document() | {"seconds": 0, "jobs": 0}


def test_the_command_says_identical_and_exits_0(
    federation: SmallFederation, fluvial: Callable[..., Answer]
) -> None:
    done = fluvial("audit", "--task", TASK, "--json")
    assert done.code == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["identical"] is True and report["versions"] == 3 and report["findings"] == []


def test_an_audit_from_a_version_says_whom_it_trusts(
    federation: SmallFederation, fluvial: Callable[..., Answer]
) -> None:
    done = fluvial("audit", "--task", TASK, "--from", "3")
    assert done.code == 0 and "trusts version 2" in done.stderr and "identical: 1 versions" in done.stdout


def test_an_auditor_who_has_only_the_hash_of_the_genesis_can_audit(
    federation: SmallFederation, fluvial: Callable[..., Answer], tmp_path: Path
) -> None:
    """Another machine: no task file, the addresses from the environment, the trust anchor from the command line."""
    elsewhere = msgspec.structs.replace(federation.settings, home=tmp_path)
    assert audit_task(elsewhere, federation.task_file, jobs=1).identical
    wrong = fluvial("audit", "--task", TASK, "--genesis", "0" * 64)
    assert wrong.code == 1 and "FLV-5007" in wrong.stderr


@pytest.mark.parametrize("damaged", ["model", "sum", "manifest"])
def test_a_flipped_byte_makes_the_command_exit_1_and_name_it(
    federation: SmallFederation, fluvial: Callable[..., Answer], damaged: str
) -> None:
    key = {
        "model": model_key(TASK, 2),
        "sum": object_key(TASK, federation.manifests[1].inputs[0].sum_sha256),
        "manifest": manifest_key(TASK, 2),
    }[damaged]
    store = federation.objects.store
    good = store.get(key)
    store.put(key, good[:-9] + bytes([good[-9] ^ 1]) + good[-8:])
    try:
        done = fluvial("audit", "--task", TASK)
        as_json = fluvial("audit", "--task", TASK, "--json")
    finally:
        store.put(key, good)
    assert done.code == as_json.code == 1
    assert "error[FLV-5001]" in done.stderr and key in done.stderr
    report = json.loads(as_json.stdout)
    assert report["identical"] is False and report["findings"][0]["where"] == key


def test_what_strangers_write_among_verdicts_is_counted_and_no_difference(
    federation: SmallFederation, fluvial: Callable[..., Answer]
) -> None:
    topic = verdicts_topic(TASK, "us")
    end = len(federation.records(updates_topic(TASK, "us"), 0))
    first = decode_verdict(federation.records(topic, 0)[0].value or b"")
    right = federation.records(topic, 0)[0].value or b""
    at = [
        federation.writer.append_now(topic, value, partition=0).offset
        for value in (b"junk", right, right.replace(first.outcome.encode(), b"x" * len(first.outcome)))
    ]
    report = json.loads(fluvial("audit", "--task", TASK, "--json").stdout)
    said = report["verdicts"]
    assert report["identical"] and said["compared"] > 0 and end >= said["partitions"][2]["compared"] > 0
    assert said["strays"] == {"no_verdict": 1, "other_verdict": 1}
    assert said["partitions"][2]["first_strays"] == [f"{topic}[0]@{at[0]}", f"{topic}[0]@{at[2]}"]
    done = fluvial("audit", "--task", TASK)
    assert done.code == 0 and f"compared the verdicts of {said['compared']} offsets" in done.stdout
    told = " ".join(done.stderr.split())
    assert "1 no verdict at all, 1 other than what the log gives; they prove nothing" in told
    assert f"(first: {topic}[0]@{at[0]})" in told


def test_a_task_that_nobody_created_is_a_usage_error(fluvial: Callable[..., Answer]) -> None:
    done = fluvial("audit", "--task", "nobody", "--json")
    assert done.code == 4 and json.loads(done.stdout)["error"]["id"] == "FLV-2401"


def test_a_stack_that_is_down_is_said_at_once(tmp_path: Path) -> None:
    done = run_command(tmp_path, "audit")
    assert done.returncode == 2 and "FLV-1001" in done.stderr and " up`" in done.stderr


def test_an_audit_again_and_again_goes_on_after_a_difference_and_ends_with_its_sum(
    federation: SmallFederation, tmp_path: Path
) -> None:
    home = federation.settings.home
    key = model_key(TASK, 2)
    store = federation.objects.store
    good = store.get(key)
    log, told = tmp_path / "log", tmp_path / "told"
    arguments = ["--home", str(home), "audit", "--task", TASK, "--every", "0.2", "--json"]
    process = fork(arguments, stdout=told, stderr=log)

    def audits() -> list[dict[str, Any]]:
        whole = told.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def another(*, identical: bool) -> None:
        before = len(audits())
        until(
            lambda: any(one["identical"] is identical for one in audits()[before:]),
            f"identical is {identical}\n{log.read_text()}",
        )

    try:
        another(identical=True)
        store.put(key, good[:-1] + bytes([good[-1] ^ 1]))
        another(identical=False)
        store.put(key, good)
        another(identical=True)
    finally:
        store.put(key, good)
        process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT_S) == 1
    end = audits()[-1]
    assert end["terminal"] is True and end["audits"] >= 3 and end["different"] >= 1
    assert "FLV-5001" in log.read_text()
