"""``fluvial devices`` and ``fluvial pardon`` against the real stack, as a person or a script calls them."""

from __future__ import annotations

import json
import shutil
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from backends.kafka.reading import LogReader
from fluvial import cli
from fluvial.proof.audit import audit_task
from schemas.topics import updates_topic
from tests import factories
from tests.integration.test_park_command import write_operator_key
from tests.small_federation import PARTITIONS, SmallFederation, declare

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backends.settings import Settings

TASK, BEFORE_V3, PARDONS = "suspects", "suspects-of-v2", "pardons"
DEVICE, HONEST = factories.devices(2)
WORKER_S = 60.0


@pytest.fixture(scope="module")
def federation(stack: Settings) -> Iterator[SmallFederation]:
    """A task with shares that has a version; beside it one that keeps none."""
    made = []
    for task, policy in ((BEFORE_V3, "fluvial/policy/v2"), (TASK, "fluvial/policy/v3")):
        declare(stack, task, PARTITIONS)
        made.append(SmallFederation(stack, task=task, policy=factories.policy(format=policy)))
        made[-1].write_task_file()
    made[-1].rounds(1, per_partition=2)
    yield made[-1]
    for task in (TASK, BEFORE_V3):
        (stack.home / "tasks" / task / "task.json").unlink()


def call(federation: SmallFederation, *arguments: str, task: str = TASK) -> int:
    return cli.main(["--home", str(federation.settings.home), "devices", "--task", task, *arguments])


def test_a_table_and_one_document(federation: SmallFederation, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(federation) == 0
    text = capsys.readouterr().out
    assert text.startswith("device") and "showing 6 of 6   0 in quarantine" in text and "0 of 1" in text
    assert call(federation, "--json", "--region", "eu", "--limit", "3") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["total"], document["shown"], len(document["devices"])) == (4, 3, 3)
    assert {one["region"] for one in document["devices"]} == {"eu"}
    assert [one["accepted"] for one in document["devices"]] == [1, 1, 1]


def test_nobody_in_quarantine_is_said(
    federation: SmallFederation, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(federation, "--quarantined") == 0
    assert capsys.readouterr().out == "no device is in quarantine\n"


@pytest.mark.parametrize(
    ("arguments", "error_id", "word"),
    [(("--region", "asia"), "FLV-6204", "eu, us"), (("--limit", "0"), "FLV-6001", "0 is not in the range")],
)
def test_what_there_is_not_is_refused(
    arguments: tuple[str, ...],
    error_id: str,
    word: str,
    federation: SmallFederation,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(federation, *arguments) == 4
    err = capsys.readouterr().err
    assert error_id in err and word in err


def test_a_task_before_v3_says_that_it_keeps_no_shares(
    federation: SmallFederation, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(federation, "--json", task=BEFORE_V3) == 4
    answer = capsys.readouterr()
    assert json.loads(answer.out)["error"]["id"] == "FLV-6208"
    assert "fluvial/policy/v2, before v3" in answer.err


# -- pardons


@pytest.fixture(scope="module")
def strict(stack: Settings) -> Iterator[SmallFederation]:
    """A task of v5 in which one update of zeros is enough: its device is in quarantine until version 9."""
    declare(stack, PARDONS, {"eu": 1})
    defence = {"quarantine_refusals": 1, "quarantine_versions": 9}
    policy = factories.policy(format="fluvial/policy/v5", defence=defence)
    made = SmallFederation(stack, task=PARDONS, policy=policy, partitions={"eu": 1})
    made.write_task_file()
    write_operator_key(made)
    zeros = factories.encoded(np.zeros(made.layout.parameters, np.float32), "float32", layout=made.layout)
    made.append("eu", 0, made.update("eu", DEVICE, tensors=zeros, codec="float32"))
    made.append("eu", 0, made.update("eu", HONEST))
    made.close_windows()
    made.fold()
    made.merge()
    yield made
    shutil.rmtree(stack.home / "tasks" / PARDONS)


def end_of_log(federation: SmallFederation) -> int:
    with LogReader(federation.settings, "test-end") as reader:
        return reader.bounds(updates_topic(federation.task, "eu"), 0)[1]


@contextmanager
def worker(federation: SmallFederation) -> Iterator[None]:
    """Folds what is written while the block runs."""
    failed: list[BaseException] = []
    end = end_of_log(federation)

    def run() -> None:
        try:
            deadline = time.monotonic() + WORKER_S
            while end_of_log(federation) == end:
                assert time.monotonic() < deadline, "nobody wrote anything"
                time.sleep(0.05)
            federation.fold()
        except BaseException as error:  # noqa: BLE001 - shown below
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield
    thread.join(WORKER_S)
    assert not failed, failed


def pardon(
    federation: SmallFederation,
    capsys: pytest.CaptureFixture[str],
    device: str,
    *more: str,
    task: str = PARDONS,
) -> tuple[int, dict[str, Any], str]:
    """Run the command with --json: exit code, document, stderr."""
    arguments = ["--home", str(federation.settings.home), "pardon", device, "--task", task, "--region", "eu"]
    code = cli.main([*arguments, "--reason", " its data are mended ", "--yes", "--json", *more])
    captured = capsys.readouterr()
    return code, json.loads(captured.out), captured.err


def test_an_operator_ends_a_quarantine(strict: SmallFederation, capsys: pytest.CaptureFixture[str]) -> None:
    end = end_of_log(strict)
    code, document, _ = pardon(strict, capsys, HONEST)
    assert (code, document["error"]["id"]) == (4, "FLV-6435")
    assert end_of_log(strict) == end
    with worker(strict):
        code, document, told = pardon(strict, capsys, DEVICE)
    lifted_at = document["offset"]
    assert (code, document["lifted"], document["until"], document["reason"]) == (
        0,
        True,
        9,
        "its data are mended",
    )
    assert (
        document["verdict"]["detail"]
        == f"the quarantine of {DEVICE} until version 9 ends here: its data are mended"
    )
    assert f"{DEVICE} is in quarantine since version 0, until 9" in told
    with worker(strict):
        code, document, _ = pardon(strict, capsys, DEVICE)
    assert (code, document["lifted"], document["verdict"]["outcome"]) == (0, False, "control")
    code, document, _ = pardon(strict, capsys, DEVICE, "--timeout", "0.5")
    assert (code, document["error"]["id"]) == (3, "FLV-6436")
    assert call(strict, "--json", task=PARDONS) == 0
    stands = {one["device_id"]: one for one in json.loads(capsys.readouterr().out)["devices"]}
    assert (stands[DEVICE]["quarantined"], stands[DEVICE]["lifted_at"]) == (False, lifted_at)
    strict.append("eu", 0, strict.update("eu", DEVICE, seed=5))
    strict.close_windows()
    strict.fold()
    assert strict.merge().accepted == 1
    code, document, _ = pardon(strict, capsys, DEVICE)
    assert (code, document["error"]["id"]) == (4, "FLV-6435")
    assert audit_task(strict.settings, strict.task_file, jobs=1).identical


def test_a_task_before_v5_knows_no_pardon(
    federation: SmallFederation, capsys: pytest.CaptureFixture[str]
) -> None:
    write_operator_key(federation)
    code, document, _ = pardon(federation, capsys, DEVICE, task=TASK)
    assert (code, document["error"]["id"]) == (4, "FLV-6434")
