"""The report: self-contained, complete, and honest about what went wrong."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import click
import pytest

from aggregation.errors import EnvironmentProblem
from aggregation.fold.events import Verdict
from aggregation.fold.rejections import RejectionReason
from backends.settings import Settings, StoreSettings
from backends.tasks import TaskFile
from fluvial.cli import cli
from fluvial.proof.audit import AuditReport, Findings
from fluvial.reading.progress import Place, Published, RunFacts
from fluvial.session.plan import RunPlan, RunResult, VersionRow
from fluvial.session.report import charts
from fluvial.session.report.render import behaviours, render, write_report
from fluvial.session.strikes import Strike
from fluvial.session.summary import document, summarize
from fluvial.terminal.output import Output
from schemas.manifests import Input, Manifest

if TYPE_CHECKING:
    from pathlib import Path

SHA = "ab" * 32
COMMAND = "fluvial demo --task digits --seed 3"


def manifest(version: int, *, first_offset: int = 0, next_offset: int = 10) -> Manifest:
    known: dict[str, Any] = {
        "task": "digits",
        "version": version,
        "parent_sha256": SHA,
        "policy_sha256": SHA,
        "inputs": (
            Input(
                region="eu",
                partition=0,
                sequence=0,
                first_offset=first_offset,
                next_offset=next_offset,
                accepted=2,
                sum_sha256=SHA,
                sha256=SHA,
            ),
        ),
        "cursors": {"eu": (1,)},
        "counts": {"accepted": 2, "control": 1, "anomalous": 1},
        "accepted": 2,
        "weight_total": 131072,
        "staleness_total": 1,
        "staleness_max": 1,
        "model_sha256": SHA,
        "optimizer_sha256": SHA,
        "reference_sha256": SHA,
        "floor": 0,
        "update_bytes": 4096,
    }
    fields = set(Manifest.__struct_fields__)
    return Manifest(**{name: value for name, value in known.items() if name in fields})


def facts() -> RunFacts:
    made = RunFacts()
    for version, accuracy in ((0, 0.1), (1, 0.6), (2, 0.93)):
        made.add_evaluation(
            {"kind": "evaluation", "version": version, "accuracy": accuracy, "loss": 1.0 - accuracy}
        )
    outcomes = [
        ("control", "", -1),
        ("accepted", "d-1", 0),
        ("accepted", "d-2", 1),
        ("anomalous", "<script>", 0),
    ]
    for offset, (outcome, device, staleness) in enumerate(outcomes):
        verdict = Verdict(
            offset, outcome, device_id=device, staleness=staleness, weight=65536, clip=1.0, norm=0.5
        )
        made.add_verdict("eu", 0, verdict, 1_000_000 + 700 * offset)
    return made


def audit(findings: Findings | None = None) -> AuditReport:
    return AuditReport("digits", SHA, 1, 2, 2, "d1" * 32, (), 2, findings or Findings(), 1.0, 1)


def result(tmp_path: Path, **changes: Any) -> RunResult:
    published = [
        Published(Place("eu", 0, 1), "d-1", "honest", 0, "u1"),
        Published(Place("eu", 0, 2), "d-2", "honest", 0, "u2"),
        Published(Place("eu", 0, 3), "d-3", "sign_flip", 0, "u3"),
    ]
    values: dict[str, Any] = {
        "plan": RunPlan(
            reference="digits", name="digits", regions={"eu": 1}, devices=3, versions=2, attackers=1
        ),
        "task_file": TaskFile(task="digits", genesis_sha256=SHA, reference="digits", regions=("eu",)),
        "settings": Settings(
            home=tmp_path, bootstrap_servers="127.0.0.1:1", store=StoreSettings(kind="file", path=tmp_path)
        ),
        "facts": facts(),
        "journal": tmp_path / "journal.jsonl",
        "published": published,
        "missing": [],
        "strikes": [],
        "rows": [
            VersionRow(1, SHA, manifest(1, next_offset=2)),
            VersionRow(2, SHA, manifest(2, first_offset=2)),
        ],
        "audit": audit(),
        "training_seconds": 2.0,
        "seconds": 5.0,
        "started_at": 1_700_000_000.0,
    }
    return RunResult(**(values | changes))


class Outline(HTMLParser):
    """What a page loads from elsewhere, and its ids."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.outside: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in {"src", "href", "xlink:href", "data"} and not (value or "").startswith("#"):
                self.outside.append(f"{tag} {name}={value}")


def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    return parser


def test_the_page_needs_nothing_but_a_browser(tmp_path: Path) -> None:
    page = render(result(tmp_path), command=COMMAND)
    found = outline(page)
    assert found.outside == []
    assert not {"script", "link", "iframe", "img"} & set(found.tags)
    assert "@import" not in page and "url(http" not in page


def test_ids_are_unique_though_many_drawings_share_the_page(tmp_path: Path) -> None:
    ids = outline(render(result(tmp_path), command=COMMAND)).ids
    assert len(ids) == len(set(ids)) and ids


def test_every_reference_in_a_drawing_has_its_target(tmp_path: Path) -> None:
    page = render(result(tmp_path), command=COMMAND)
    ids = set(outline(page).ids)
    assert set(re.findall(r'href="#([^"]+)"', page)) | set(re.findall(r"url\(#([^)]+)\)", page)) <= ids


def test_colours_of_drawings_come_from_the_page(tmp_path: Path) -> None:
    page = render(result(tmp_path), command=COMMAND)
    assert "var(--series-1)" in page
    assert "#0a0b0" not in page


def test_every_chart_has_the_table_behind_it(tmp_path: Path) -> None:
    page = render(result(tmp_path), command=COMMAND)
    for title in ("Accuracy", "Loss", "Verdicts", "Updates a second", "Staleness"):
        assert f"<h3>{title}</h3>" in page
    assert page.count("<svg") == page.count("The numbers") == 5


def test_the_page_says_what_was_found_and_how_to_check_it(tmp_path: Path) -> None:
    page = render(result(tmp_path), command=COMMAND)
    for text in (
        "Audit identical",
        "d1" * 32,
        SHA,
        COMMAND,
        "fluvial audit --task digits",
        "eu[0]@2",
        "0.9300",
    ):
        assert text in page
    assert "<script>" not in page


def test_the_page_shows_a_finding(tmp_path: Path) -> None:
    findings = Findings()
    findings.add(
        "FLV-5003",
        "manifest of version 2",
        "digits/versions/2/manifest.json",
        "model_sha256",
        expected="aa",
        got="bb",
    )
    page = render(result(tmp_path, audit=audit(findings)), command=COMMAND)
    assert "FLV-6306" in page and "manifest of version 2" in page
    assert "Audit identical" not in page


def test_kills_are_listed(tmp_path: Path) -> None:
    page = render(result(tmp_path, strikes=[Strike("worker-eu-0", 1, 3.5, 4711, 4712)]), command=COMMAND)
    assert "Processes killed on purpose" in page and "4711" in page


def test_a_task_without_accuracy_has_a_report_too(tmp_path: Path) -> None:
    bare = facts()
    for version in list(bare.evaluations):
        bare.add_evaluation({"kind": "evaluation", "version": version, "loss": 0.5})
    made = result(tmp_path, facts=bare)
    page = render(made, command=COMMAND)
    assert "<h3>Accuracy</h3>" not in page and "<h3>Loss</h3>" in page
    assert document(made)["accuracy"] == []


def test_lineage_names_the_updates_of_the_last_version_only(tmp_path: Path) -> None:
    page = render(result(tmp_path), command=COMMAND)
    after = page[page.index("What made version 2") :]
    assert "d-2" in after and "d-1" not in after
    assert "Showing 1 of 1 updates" in after


def test_behaviours_join_journal_and_verdicts(tmp_path: Path) -> None:
    assert behaviours(result(tmp_path)) == [
        ("honest", 2, {"accepted": 2}),
        ("sign_flip", 1, {"anomalous": 1}),
    ]


def test_the_commands_of_the_last_lines_can_be_run_as_they_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summarize(result(tmp_path), Output(), report=tmp_path / "report.html", command="fluvial --home x")
    printed = re.findall(r"fluvial --home x (.*?)(?:   .*)?$", capsys.readouterr().out, re.MULTILINE)
    assert [line.split()[0] for line in printed] == [
        "model",
        "audit",
        "lineage",
        "verdicts",
        "console",
        "down",
    ]
    for line in printed:
        name, *arguments = line.split()
        command = cli.get_command(click.Context(cli), name)
        if isinstance(command, click.Group):
            name, *arguments = arguments
            command = command.get_command(click.Context(command), name)
        assert command is not None
        command.make_context(name, arguments)  # raises when an option is unknown or missing


def test_many_outcomes_make_a_tall_chart(tmp_path: Path) -> None:
    many = facts()
    for offset, rejection in enumerate(RejectionReason, start=50):
        many.add_verdict("eu", 0, Verdict(offset, rejection.outcome), 1)
    assert '<figure class="tall">' in render(result(tmp_path, facts=many), command=COMMAND)
    assert '<figure class="tall">' not in render(result(tmp_path), command=COMMAND)


def test_the_page_names_the_command_as_its_reader_calls_it(tmp_path: Path) -> None:
    page = render(result(tmp_path), command=COMMAND, program=".venv/bin/fluvial")
    assert "<code>.venv/bin/fluvial audit --task digits</code>" in page


def test_equal_charts_give_equal_bytes() -> None:
    one = charts.curve("a", "accuracy", [(1, 0.5), (2, 0.7)])
    assert one == charts.curve("a", "accuracy", [(1, 0.5), (2, 0.7)])
    assert charts.curve("a", "accuracy", []) == ""


def test_the_model_lies_beside_the_page(tmp_path: Path) -> None:
    page = write_report(result(tmp_path), b"weights", tmp_path / "out", command=COMMAND)
    assert page.is_file()
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == b"weights"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem) as caught:
        write_report(result(tmp_path), b"", tmp_path / "file", command=COMMAND)
    assert caught.value.error_id == "FLV-6308"
