"""``fluvial devices`` against the real stack, as a person or a script calls it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from fluvial import cli
from tests import factories
from tests.small_federation import PARTITIONS, SmallFederation, declare

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backends.settings import Settings

TASK, BEFORE_V3 = "suspects", "suspects-of-v2"


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
