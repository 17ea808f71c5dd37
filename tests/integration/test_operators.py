"""The operators' commands against the real stack, each as a person or a script would call it."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from aggregation.fold.rejections import REJECTIONS
from backends.settings import Settings
from fluvial import cli
from tests import factories
from tests.integration.pipeline import fork
from tests.small_federation import SmallFederation, declare
from tests.waiting import WAIT_S, until

TASK = "operated"


@pytest.fixture(scope="module")
def federation(stack: Settings) -> Iterator[SmallFederation]:
    """Three versions of four partitions' worth of updates; eu[0] begins with five records that are refused."""
    declare(stack, TASK, {"eu": 2, "us": 1})
    federation = SmallFederation(stack, task=TASK)
    home, away = (factories.devices(1, partition=p, partitions=2)[0] for p in (0, 1))
    federation.append("eu", 0, b"garbage")
    federation.append("eu", 0, federation.update("eu", away))
    federation.append(
        "eu", 0, federation.update("eu", home, by=factories.device_signer(home, "eu", secret=" of another"))
    )
    forged = bytearray(federation.update("eu", home))
    forged[-10] ^= 1  # inside of the signature, which stands last
    federation.append("eu", 0, bytes(forged))
    federation.append("eu", 0, federation.update("eu", home, base_sha256=factories.sha("another")))
    federation.rounds(3)
    for version in range(4):
        federation.evaluated(version, 0.5 + version / 10)
    federation.send(1, seed=5000)
    federation.write_task_file()
    yield federation
    (stack.home / "tasks" / TASK / "task.json").unlink()


def command(settings: Settings, *arguments: str) -> list[str]:
    return ["--home", str(settings.home), *arguments, "--task", TASK]


class Answer(NamedTuple):
    stdout: str
    stderr: str


Call = Callable[..., Answer]


@pytest.fixture
def fluvial(federation: SmallFederation, capsys: pytest.CaptureFixture[str]) -> Call:
    """The command in this process (a new one would spend its time on imports), with the exit code checked."""

    def call(*arguments: str, code: int = 0) -> Answer:
        capsys.readouterr()
        got = cli.main(command(federation.settings, *arguments))
        answer = Answer(*capsys.readouterr())
        assert got == code, answer.stderr
        return answer

    return call


@pytest.fixture
def document(fluvial: Call) -> Callable[..., Any]:
    """The one JSON document of a command."""
    return lambda *arguments, code=0: json.loads(fluvial(*arguments, "--json", code=code).stdout)


def test_status_shows_head_lag_and_that_nobody_works(document: Callable[..., Any]) -> None:
    found = document("status")
    assert found["head"]["version"] == 3
    assert found["accuracy"][-1] == {"version": 3, "accuracy": 0.8}
    assert [(group["group"], group["members"]) for group in found["groups"]] == [
        (f"fluvial-{TASK}-eu", []),
        (f"fluvial-{TASK}-us", []),
    ]
    by_slot = {(one["region"], one["partition"]): one for one in found["partitions"]}
    first = by_slot["eu", 0]
    # The last version's barrier, and one update, wait to be folded.
    assert first["lag_records"] == first["log_end"] - first["folded_to"] == 2
    assert first["lag_seconds"] > 0 and first["trend"] == "steady"
    assert 0 < found["refused_share"] < 0.5


def test_status_shows_people_the_curve_and_a_table_for_every_region(fluvial: Call) -> None:
    shown = fluvial("status").stdout
    assert "accuracy 0.8000 (version 3)   ▁▃▆█  0.5000 at version 0" in shown
    assert "workers fluvial-operated-eu: " in shown and "nobody" in shown
    tables = [line.split() for line in shown.splitlines() if line.startswith("partition ")]
    assert len(tables) == 2, "one a region"
    assert [line.split()[0] for line in shown.splitlines() if "[" in line[:5]] == ["eu[0]", "eu[1]", "us[0]"]
    assert "\x1b" not in shown, "no colour off a terminal"


def test_versions_lists_them_with_their_accuracy(
    federation: SmallFederation, document: Callable[..., Any], fluvial: Call
) -> None:
    found = document("versions")
    assert [(one["version"], one["accuracy"]) for one in found["versions"]] == [
        (0, 0.5),
        (1, 0.6),
        (2, 0.7),
        (3, 0.8),
    ]
    manifest = federation.manifests[0]
    assert found["versions"][1]["model_sha256"] == manifest.model_sha256
    assert found["versions"][1]["refused"] == sum(manifest.counts.values()) - manifest.accepted == 5
    text = fluvial("versions", "--limit", "2").stdout
    assert "showing 2 of 4" in text and federation.manifests[2].model_sha256[:12] in text


@pytest.mark.parametrize("options", [[], ["--refold"]])
def test_lineage_names_every_update_that_counts(
    federation: SmallFederation, document: Callable[..., Any], options: list[str]
) -> None:
    found = document("lineage", "2", *options)
    manifest = federation.manifests[1]
    contributors = [one for tile in found["inputs"] for one in tile["contributors"]]
    assert found["consistent"] and len(contributors) == manifest.accepted
    assert [(tile["first_offset"], tile["next_offset"]) for tile in found["inputs"]] == [
        (one.first_offset, one.next_offset) for one in manifest.inputs
    ]
    assert sum(one["weight"] for one in contributors) == found["weight_total"]
    assert all(one["device_id"].startswith("d-") and one["base_version"] == 1 for one in contributors)
    assert sum(one["share"] for one in contributors) == pytest.approx(1.0)


def test_lineage_by_verdicts_and_by_refolding_agree(document: Callable[..., Any]) -> None:
    by_verdicts, refolded = (document("lineage", "3", *options) for options in ([], ["--refold"]))
    assert by_verdicts["inputs"] == refolded["inputs"]


def test_a_version_that_does_not_exist_has_no_lineage(document: Callable[..., Any]) -> None:
    assert document("lineage", "9", code=4)["error"]["id"] == "FLV-6205"
    assert document("lineage", "0", code=4)["error"]["id"] == "FLV-6205"


def test_verdicts_of_a_range_are_json_lines_that_end(fluvial: Call) -> None:
    lines = fluvial("verdicts", "--region", "eu", "--partition", "0", "--from", "0:6", "--json").stdout
    records = [json.loads(line) for line in lines.splitlines()]
    assert records[-1] == {"shown": 6, "terminal": True}
    assert [(one["offset"], one["outcome"]) for one in records[:-1]] == [
        (0, "undecodable"),
        (1, "wrong_partition"),
        (2, "bad_certificate"),
        (3, "bad_signature"),
        (4, "unknown_base"),
        (5, "accepted"),
    ]


def test_verdicts_by_outcome_and_limit(fluvial: Call) -> None:
    text = fluvial("verdicts", "--region", "eu", "--outcome", "accepted", "--limit", "3").stdout
    assert [" accepted " in line for line in text.splitlines()] == [True] * 3
    refused = fluvial("verdicts", "--region", "eu", "--outcome", "bad_signature", "--from", "@start")
    assert refused.stdout.startswith("eu[0]@3 ")


def test_verdicts_of_all_regions_need_no_name(fluvial: Call, federation: SmallFederation) -> None:
    lines = [json.loads(line) for line in fluvial("verdicts", "--limit", "500", "--json").stdout.splitlines()]
    assert {line["region"] for line in lines[:-1]} == set(federation.genesis.regions)
    assert "--region" in fluvial("verdicts", "--partition", "0", code=4).stderr


def test_following_shows_what_comes_and_ends_with_ctrl_c(federation: SmallFederation, tmp_path: Path) -> None:
    told, log = tmp_path / "told", tmp_path / "log"
    arguments = command(federation.settings, "verdicts", "--region", "us", "--follow", "--json")
    following = fork(arguments, stdout=told, stderr=log)
    try:
        until(lambda: "following us[0]" in log.read_text(), "it follows")
        federation.fold()
        until(lambda: "\n" in told.read_text(), f"it shows a verdict\n{log.read_text()}")
        shown = json.loads(told.read_text().splitlines()[0])
        assert shown["region"] == "us" and shown["outcome"] == "control"
        following.send_signal(signal.SIGINT)
        assert following.wait(WAIT_S) == 130
        assert json.loads(told.read_text().splitlines()[-1])["terminal"] is True
    finally:
        following.kill()


INSPECTED = [
    (0, "undecodable"),
    (1, "wrong_partition"),
    (2, "bad_certificate"),
    (3, "bad_signature"),
    (4, "unknown_base"),
]


@pytest.mark.parametrize(("offset", "outcome"), INSPECTED, ids=[outcome for _, outcome in INSPECTED])
def test_inspect_explains_a_refusal_with_its_page(
    document: Callable[..., Any], fluvial: Call, offset: int, outcome: str
) -> None:
    found = document("inspect", "eu", "0", str(offset))
    assert found["verdict"]["outcome"] == outcome
    assert (
        found["error_id"] == REJECTIONS[outcome].error_id
        and found["page"] == f"docs/errors/{REJECTIONS[outcome].error_id}.md"
    )
    assert found["hint"]
    text = fluvial("inspect", "eu", "0", str(offset)).stdout
    assert REJECTIONS[outcome].error_id in text and outcome in text


def test_inspect_takes_an_update_apart(federation: SmallFederation, document: Callable[..., Any]) -> None:
    found = document("inspect", "eu", "0", "5")
    assert found["kind"] == "ClientUpdate" and found["verdict"]["outcome"] == "accepted"
    assert found["signer"]["signature_ok"] and found["signer"]["valid_when_appended"]
    assert found["signer"]["name"] == found["payload"]["device_id"]
    assert [tensor["name"] for tensor in found["payload"]["tensors"]] == list(federation.layout.names)
    assert found["payload"]["norm"] == pytest.approx(found["verdict"]["norm"])


def test_inspect_shows_what_a_wrong_signature_and_raw_bytes_are(document: Callable[..., Any]) -> None:
    assert document("inspect", "eu", "0", "3")["signer"]["signature_ok"] is False
    assert document("inspect", "eu", "0", "0")["raw_head"] == b"garbage".hex()
    assert "own CA" in document("inspect", "eu", "0", "2")["hint"]


WRONG = [
    (["inspect", "eu", "0", "@yesterday"], "FLV-6201"),
    (["inspect", "eu", "0", "999999"], "FLV-6202"),
    (["inspect", "mars", "0", "0"], "FLV-6204"),
    (["inspect", "eu", "7", "0"], "FLV-6204"),
    (["verdicts", "--region", "eu", "--from", "5:2"], "FLV-6203"),
    (["verdicts", "--region", "eu", "--outcome", "fine"], "FLV-6001"),
    (["audit", "--to", "99"], "FLV-5010"),
    (["audit", "--genesis", "abc"], "FLV-5012"),
]


@pytest.mark.parametrize(
    ("arguments", "error_id"), WRONG, ids=[" ".join(arguments) for arguments, _ in WRONG]
)
def test_wrong_use_exits_4_with_an_id_and_a_hint(fluvial: Call, arguments: list[str], error_id: str) -> None:
    done = fluvial(*arguments, code=4)
    assert f"error[{error_id}]" in done.stderr and re.search(r"hint: \S", done.stderr)
