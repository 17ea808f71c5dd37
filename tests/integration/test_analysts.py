"""Metrics for analysts on a real stack: live records fit the schema, and every command of docs/analysts.md works."""

from __future__ import annotations

import json
import re
import resource
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import jsonschema
import pyarrow.parquet as pq
import pytest

from fluvial.proof.chaos import disks
from schemas.topics import metrics_topic
from tests import factories, notebook
from tests.integration.pipeline import ROOT, Federation, run_command, start_process
from tests.waiting import WAIT_S, until

if TYPE_CHECKING:
    from backends.settings import Settings

POLICY = factories.policy(window={"updates_max": 2, "seconds_max": 3600.0}, buffer={"updates": 2})
DOC = (ROOT / "docs" / "analysts.md").read_text()
SCHEMA: dict[str, Any] = json.loads((ROOT / "schemas" / "metrics.v1.schema.json").read_text())
VALID = jsonschema.Draft202012Validator(SCHEMA)


@pytest.fixture(scope="module")
def federation(stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """A short run that has ended: two versions of two windows, one refusal, and two records that are none."""
    made = Federation(stack, tmp_path_factory.mktemp("analysts"), {"eu": 1}, POLICY)
    try:
        made.start("worker", "worker")
        made.start("merger", "merger")
        for version in range(2):
            for seed in range(2):
                said = {"cohort": 7.0} if seed else {}
                update = made.update(f"d-{seed}", seed=seed, base=version, client_metrics=said)
                made.append(("eu", 0), update)
            made.await_told(version + 1)
        until(lambda: len(kinds(made)) >= 6, f"records of two windows and versions\n{made.logs()}")
    finally:
        made.end()
    evaluation = {"kind": "evaluation", "schema_version": 1, "task": made.task, "version": 1, "accuracy": 0.5}
    for junk in (json.dumps(evaluation).encode(), b'{"kind":"window","schema_version":2}', b"junk"):
        made.writer.append_now(metrics_topic(made.task), junk, partition=0)
    return made


def documents(federation: Federation) -> list[tuple[int, dict[str, Any]]]:
    return [
        (one.timestamp_ms, json.loads(one.value or b""))
        for one in federation.records(metrics_topic(federation.task), 0)[:6]
    ]


def kinds(federation: Federation) -> list[str]:
    return [document["kind"] for _, document in documents(federation)]


def test_live_records_fit_the_schema_and_have_no_other_fields(
    federation: Federation,
) -> None:
    found = documents(federation)
    assert sorted(kinds(federation)) == ["region_minute"] * 2 + ["version"] * 2 + ["window"] * 2
    for appended_ms, document in found:
        VALID.validate(document)
        kind = SCHEMA["$defs"][document["kind"]]
        known = [re.escape(name) + "$" for name in kind["properties"]] + list(kind["patternProperties"])
        assert all(any(re.match(pattern, name) for pattern in known) for name in document)
        assert not any(str(value).startswith("d-") for value in document.values())
        if document["kind"] == "version":
            assert appended_ms >= document["at_ms"]
    windows = [document for _, document in found if document["kind"] == "window"]
    assert [one["sequence"] for one in windows] == [0, 1]
    assert all(
        one["accepted"] == 2 and one["norm_p50"] > 0 and one["devices_contributing"] == 2 for one in windows
    )


def test_what_a_device_says_of_its_cohort_is_in_the_minutes_of_its_accepted_updates(
    federation: Federation,
) -> None:
    minutes = [document for _, document in documents(federation) if document["kind"] == "region_minute"]
    assert [(one["accepted"], one["cohort_7_accepted"]) for one in minutes] == [(2, 1)] * 2
    for one in minutes:
        assert 0 < one["cohort_7_bytes_up"] < one["bytes_up"]
        assert 0 < one["cohort_7_cost_total"] < one["cost_total"]
        assert one["cohort_7_bytes_down"] * 2 == one["bytes_down"]


def test_tap_leaves_out_what_it_does_not_know_and_says_so(federation: Federation) -> None:
    done = run_command(federation.settings.home, "tap", "--task", federation.task, "--no-follow", "--json")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1]["terminal"] is True
    assert lines[-1]["shown"] == len(lines) - 1 == 7
    assert sum(lines[-1]["left_out"].values()) == 2
    assert "schema 2, this program knows 1" in done.stderr and "not a JSON object" in done.stderr


def test_tap_filters_ends_after_max_and_survives_head(federation: Federation) -> None:
    home, task = federation.settings.home, federation.task
    done = run_command(
        home, "tap", "--task", task, "--kind", "window", "--region", "eu", "--since", "@start", "--max", "1"
    )
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1), done.stderr
    assert "window" in done.stdout and "region eu" in done.stdout
    done = run_command(home, "tap", "--task", task, "--region", "mars", "--no-follow")
    assert done.returncode == 4 and "FLV-6204" in done.stderr
    command = (
        f"{sys.executable} -m fluvial.cli --home {home} tap --task {task} --since 1h --format csv | head -n 2"
    )
    piped = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert piped.stdout.startswith("kind,at_ms,"), piped.stderr
    assert "Traceback" not in piped.stderr and "error[" not in piped.stderr


def test_tap_ends_cleanly_on_ctrl_c(federation: Federation, tmp_path: Path) -> None:
    process = start_process(federation.settings.home, tmp_path, ["tap", "--task", federation.task], "tap")
    process.says("following")
    process.signal(signal.SIGINT)
    assert process.process.wait(WAIT_S) == 130
    assert "Traceback" not in process.log


def export(federation: Federation, out: Path, *arguments: str) -> dict[str, Any]:
    done = run_command(
        federation.settings.home, "export", str(out), "--task", federation.task, "--json", *arguments
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_export_again_is_harmless_and_gaps_show(federation: Federation, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    first = export(federation, out)
    assert (first["records"], first["unreadable"]) == (9, 1)
    (only,) = out.glob("*.parquet")
    assert only.name == f"fl.{federation.task}.metrics.0.0-9.parquet"
    assert pq.read_table(only).column("kind").to_pylist().count("window") == 3
    before = only.stat().st_mtime_ns
    again = export(federation, out)
    assert (again["records"], again["partitions"][0]["files_kept"], only.stat().st_mtime_ns) == (0, 1, before)
    only.write_bytes(b"PAR1 cut")
    assert export(federation, out)["records"] == 9
    shorter = only.rename(only.with_name(f"fl.{federation.task}.metrics.0.0-5.parquet"))
    assert export(federation, out)["partitions"][0]["ranges"] == [[0, 9]]
    assert not shorter.exists() and [path.name for path in out.iterdir()] == [only.name]
    shutil.copy(only, only.with_name(f"fl.{federation.task}.metrics.0.12-15.parquet"))
    assert export(federation, out)["partitions"][0]["gaps"] == [[9, 12]]
    verdicts = export(federation, out, "--topic", "verdicts")
    assert verdicts["records"] >= 4 and verdicts["unreadable"] == 0


def test_an_export_that_cannot_be_written_says_so_and_leaves_nothing(
    federation: Federation, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    done = run_command(federation.settings.home, "export", str(tmp_path / "file"), "--task", federation.task)
    assert done.returncode == 4 and "error[FLV-7050]" in done.stderr
    done = run_command(federation.settings.home, "export", "/proc/nothing", "--task", federation.task)
    assert done.returncode == 4 and "error[FLV-7050]" in done.stderr


def refused_for_want_of_room(done: subprocess.CompletedProcess[str], whole: set[str], out: Path) -> None:
    """It says so, with what to do, and nothing is left in the folder but the files that were whole before."""
    assert done.returncode == 2, done.stderr
    assert "error[FLV-7051]: a file of the export could not be written: " in done.stderr
    assert f"{out}/fl." in done.stderr and "Traceback" not in done.stderr
    assert "hint: make room, then run the same `fluvial --home" in done.stderr
    assert " parquet OUT` again" in done.stderr
    assert json.loads(done.stdout)["error"]["id"] == "FLV-7051"
    assert {path.name for path in out.iterdir()} - {"ballast"} == whole


def test_an_export_onto_a_full_disk_leaves_no_half_file_and_ends_once_there_is_room(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disks, "DISK_BYTES_MIN", 1 << 20)
    monkeypatch.setattr(disks, "MEMORY_LEFT_BYTES", 0)
    with disks.Disks(tmp_path / "disks", ["export"], 0.0) as mounted:
        disk = mounted["export"]
        if disk.folder is None:
            pytest.skip(f"nothing may be mounted here: {mounted.reason}")
        out = disk.folder
        export(federation, out)
        (whole,) = (path.name for path in out.iterdir())
        disk.fill(None)
        arguments = ["export", str(out), "--task", federation.task, "--topic", "verdicts", "--json"]
        refused_for_want_of_room(run_command(federation.settings.home, *arguments), {whole}, out)
        disk.empty(None)
        found = export(federation, out, "--topic", "verdicts")
        assert found["records"] >= 4 and found["partitions"][0]["gaps"] == []
        assert export(federation, out)["partitions"][0]["files_kept"] == 1


def test_an_export_beyond_a_quota_leaves_no_half_file_and_ends_once_the_quota_is_lifted(
    federation: Federation, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    quota = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))
    command = ["export", str(out), "--task", federation.task, "--json"]
    done = run_command(federation.settings.home, *command, prepare=quota)
    refused_for_want_of_room(done, set(), out)
    assert export(federation, out)["records"] == 9


def rows_of(query: str, folder: Path) -> list[Any]:
    found = duckdb.sql(query.replace("OUT", str(folder)))
    assert found is not None
    return found.fetchall()


def test_the_documented_sql_and_the_example_script_run(federation: Federation, tmp_path: Path) -> None:
    export(federation, tmp_path / "out")
    queries = [
        line for block in re.findall(r"```sql\n(.*?)```", DOC, re.DOTALL) for line in block.splitlines()
    ]
    assert len(queries) == 4
    for query in queries:
        assert rows_of(query, tmp_path / "out")
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "examples" / "analysis.py"), str(tmp_path / "out")],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "region_minute" in done.stdout and "cost_total" in done.stdout
    (tmp_path / notebook.FOLDER).symlink_to(tmp_path / "out")
    shown = notebook.executed(tmp_path)
    assert "region_minute" in shown and "cost_total" in shown
    by_cohort = rows_of(queries[2], tmp_path / "out")
    assert [(cohort, accepted, cost > 0) for cohort, accepted, cost in by_cohort] == [(7, 2, True)]
    assert re.search(r"^7 +2\.0 ", done.stdout, re.MULTILINE), done.stdout


@pytest.mark.needs("kcat", "jq")
def test_the_documented_pipes_of_kcat_and_jq_run(federation: Federation) -> None:
    commands = re.findall(r"^kcat .*$", DOC, re.MULTILINE)
    assert len(commands) == 2
    for documented in commands:
        command = documented.replace("fl.digits.", f"fl.{federation.task}.")
        command = command.replace("$BROKER", federation.settings.bootstrap_servers)
        # What others left in the topic ends jq: it reads the records before.
        command = command.replace(" -e -q", " -c 7 -q")
        done = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        assert '"accepted": 4' in done.stdout or '"accepted":2' in done.stdout


def test_the_tables_of_the_page_have_every_field_of_the_schema() -> None:
    for kind, schema in SCHEMA["$defs"].items():
        section = DOC.split(f"### {kind}\n")[1].split("### ")[0]
        rows = dict(re.findall(r"^\| `([a-z_0-9]+)` \| [a-z ]+ \| (.*) \|$", section, re.MULTILINE))
        assert rows == {name: field["description"] for name, field in schema["properties"].items()}
