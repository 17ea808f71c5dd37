"""``fluvial devices`` as a person or a script calls it, on librdkafka's own test cluster."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from fluvial import cli
from tests import factories
from tests.small_federation import SmallFederation, on_mock_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallFederation]:
    """A task with shares that has a version."""
    with on_mock_cluster(tmp_path_factory.mktemp("devices")) as settings:
        federation = SmallFederation(settings, policy=factories.policy(format="fluvial/policy/v3"))
        federation.write_task_file()
        federation.rounds(1, per_partition=2)
        yield federation


@pytest.fixture(autouse=True)
def _on_this_cluster(federation: SmallFederation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUVIAL_BOOTSTRAP_SERVERS", federation.settings.bootstrap_servers)
    monkeypatch.setenv("FLUVIAL_STORE_KIND", "file")
    monkeypatch.setenv("FLUVIAL_STORE_PATH", str(federation.settings.store.path))


def call(federation: SmallFederation, *arguments: str) -> int:
    home = str(federation.settings.home)
    return cli.main(["--home", home, "devices", "--task", federation.task, *arguments])


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
