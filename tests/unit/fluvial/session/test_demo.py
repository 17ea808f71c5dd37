"""What a run is summed up to: exactly one verdict an update, the curve, the document, the chaos."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from aggregation.errors import EnvironmentProblem, FluvialError, UsageProblem
from aggregation.fold.events import Verdict
from aggregation.policy import policy_from_toml
from fluvial.cli import main
from fluvial.local.policies import quick_policy
from fluvial.processes.supervisor import ChildStatus
from fluvial.proof.audit import AuditReport, Findings
from fluvial.reading.progress import Place, Published, RunFacts, read_journal, sparkline
from fluvial.session.going_on import free_task_name
from fluvial.session.plan import RunPlan, RunResult, warnings_about
from fluvial.session.progress_view import PlainView, live_panel, open_view, plain_line
from fluvial.session.strikes import Chaos
from fluvial.session.summary import check_json_target, check_report_folder, honest_refused_line
from fluvial.terminal.output import Output, quiet_output

if TYPE_CHECKING:
    from pathlib import Path

CHILDREN = [ChildStatus("worker-eu-0", "running", 11, 0), ChildStatus("merger", "restarting", 12, 1)]


def verdict(offset: int, outcome: str = "accepted") -> Verdict:
    return Verdict(offset, outcome, norm=float("nan"))


def test_a_repeated_verdict_counts_once() -> None:
    facts = RunFacts()
    for _ in range(2):
        facts.add_verdict("eu", 0, verdict(5), 1)
    assert facts.outcomes() == {"accepted": 1}
    assert facts.duplicates == 1 and not facts.conflicts


def test_two_verdicts_that_differ_are_a_conflict() -> None:
    facts = RunFacts()
    facts.add_verdict("eu", 0, verdict(5), 1)
    facts.add_verdict("eu", 0, verdict(5, "duplicate"), 2)
    assert list(facts.conflicts) == [Place("eu", 0, 5)]
    assert facts.outcomes() == {"accepted": 1}


def test_equal_offsets_of_other_partitions_are_other_updates() -> None:
    facts = RunFacts()
    facts.add_verdict("eu", 0, verdict(5), 1)
    facts.add_verdict("eu", 1, verdict(5, "duplicate"), 2)
    assert not facts.conflicts and sum(facts.outcomes().values()) == 2


def test_control_records_are_no_updates() -> None:
    facts = RunFacts()
    facts.add_verdict("eu", 0, verdict(1, "control"), 1)
    assert facts.outcomes() == {}


def test_missing_names_what_has_no_verdict() -> None:
    facts = RunFacts()
    facts.add_verdict("eu", 0, verdict(1), 1)
    assert facts.missing([Place("eu", 0, 1), Place("eu", 0, 2)]) == [Place("eu", 0, 2)]


def test_records_of_other_kinds_are_no_evaluations() -> None:
    facts = RunFacts()
    facts.add_evaluation({"kind": "lag", "seconds": 3})
    facts.add_evaluation({"kind": "evaluation", "version": 1, "loss": 0.5})
    assert facts.version() == 1
    assert "accuracy" not in facts.curve()[0].values


def journal_line(offset: int, **changes: Any) -> str:
    entry = {"time": 1.0, "device": "d-1", "region": "eu", "partition": 0, "offset": offset}
    return json.dumps(entry | {"behaviour": "honest", "base_version": 0, "update_id": "u"} | changes) + "\n"


def test_a_journal_line_that_a_crash_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(journal_line(1) + journal_line(2)[:-9])
    assert [published.place.offset for published in read_journal(path)] == [1]
    assert read_journal(tmp_path / "none") == []


def test_a_damaged_journal_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(journal_line(1) + "{}\n" + journal_line(2))
    with pytest.raises(FluvialError, match="line 2") as caught:
        read_journal(path)
    assert caught.value.error_id == "FLV-6302"


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], ""), ([0.5], "▁"), ([0.0, 1.0], "▁█"), ([1.0, 1.0], "▁▁"), ([0.0, 0.5, 1.0], "▁▅█")],
)
def test_sparklines(values: list[float], expected: str) -> None:
    assert sparkline(values) == expected


def test_a_long_sparkline_keeps_its_ends() -> None:
    line = sparkline([float(value) for value in range(1000)], width=10)
    assert len(line) == 10 and line[0] == "▁" and line[-1] == "█"


def test_the_plain_line_says_everything_at_once() -> None:
    facts = RunFacts()
    facts.add_evaluation({"kind": "evaluation", "version": 3, "accuracy": 0.912, "loss": 0.2})
    facts.add_verdict("eu", 0, verdict(1), 1)
    line = plain_line("training", 9, facts, CHILDREN)
    for part in ("training: version 3/9", "accuracy 0.912", "1 accepted", "1 of 2 processes up"):
        assert part in line


def test_the_panel_shows_processes_and_verdicts() -> None:
    output = Output()
    facts = RunFacts()
    facts.add_verdict("eu", 0, verdict(1, "anomalous"), 1)
    with output.err.capture() as capture:
        output.err.print(live_panel("demo", "training", 9, facts, CHILDREN, seconds=3.0))
    for part in ("anomalous", "worker-eu-0", "restarting", "version 0/9", "Ctrl-C"):
        assert part in capture.get()


def test_the_panel_keeps_the_consoles_address_where_nothing_draws_over_it() -> None:
    output = Output()
    with output.err.capture() as capture:
        footer = "watch it live: http://127.0.0.1:8440/"
        output.err.print(live_panel("demo", "training", 9, RunFacts(), [], seconds=3.0, footer=footer))
    assert footer in capture.get()


class Lines(Output):
    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, text: str, style: str = "") -> None:
        self.lines.append(text)


def test_the_plain_view_speaks_by_the_clock_and_at_every_new_phase() -> None:
    output, facts = Lines(), RunFacts()
    view = PlainView(output, 5, every_s=60.0)
    for phase in ("training", "training", "draining"):
        view.show(phase, facts, CHILDREN)
    assert [line.split(":")[0] for line in output.lines] == ["training", "draining"]


def test_the_plain_view_can_tell_every_version_once() -> None:
    output, facts = Lines(), RunFacts()
    view = PlainView(output, 5, every_s=60.0, each_version=True)
    for version in (1, 2):
        facts.add_evaluation({"kind": "evaluation", "version": version, "accuracy": 0.5, "loss": 1.0})
        view.show("training", facts, CHILDREN)
    assert [line for line in output.lines if line.startswith("version")] == [
        "version 1/5  accuracy 0.5000  loss 1.0000",
        "version 2/5  accuracy 0.5000  loss 1.0000",
    ]


def test_a_version_that_comes_with_the_end_has_its_line_too() -> None:
    output, facts = Lines(), RunFacts()
    with open_view(output, "a run", 3, each_version=True, first=1) as view:
        view.show("training", facts, CHILDREN)
        for version in (1, 2, 3):
            facts.add_evaluation({"kind": "evaluation", "version": version, "accuracy": 0.5, "loss": 1.0})
        view.finish(facts)
        view.finish(facts)
    assert [line.split()[1] for line in output.lines if line.startswith("version")] == ["2/3", "3/3"]


def result_of(journal: list[tuple[str, str]]) -> RunResult:
    """A result of which only the journal and the verdicts matter: (behaviour, outcome) of each update."""
    facts, published = RunFacts(), []
    for offset, (behaviour, outcome) in enumerate(journal):
        facts.add_verdict("eu", 0, verdict(offset, outcome), 1)
        published.append(Published(Place("eu", 0, offset), "d-1", behaviour, 0, str(offset)))
    unused: Any = None
    return RunResult(
        plan=unused, task_file=unused, settings=unused, facts=facts, journal=unused, published=published,
        missing=[], strikes=[], rows=[], audit=unused, training_seconds=1.0, seconds=1.0, started_at=0.0,
    )  # fmt: skip


def test_who_was_refused_although_honest_is_counted_apart() -> None:
    result = result_of(
        [("honest", "accepted"), ("honest", "anomalous"), ("sign_flip", "anomalous"), ("honest", "too_stale")]
    )
    assert result.honest_refused == {"anomalous": 1, "too_stale": 1}
    line = honest_refused_line(result.honest_refused)
    assert (
        line.startswith("1 anomalous, 1 too_stale although their devices are honest: ")
        and "defence.*" in line
    )
    assert honest_refused_line({}) == ""


class FakeSupervisor:
    """Children that are only names."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def running(self, name: str) -> bool:
        return True

    def kill9(self, name: str) -> int:
        self.log.append(f"kill {name}")
        return 1

    def restart(self, name: str) -> int:
        self.log.append(f"start {name}")
        return 2


def strikes(seed: int, times: int = 4) -> FakeSupervisor:
    supervisor = FakeSupervisor()
    chaos = Chaos(supervisor, ["a", "b", "merger"], times=times, versions=10, seed=seed)  # type: ignore[arg-type]
    version = 0
    while not chaos.finished:
        chaos.act(version, 0.0, quiet_output())
        chaos._back_at = 0.0
        version += 1
        assert version < 100
    assert [strike.version for strike in chaos.strikes] == sorted(strike.version for strike in chaos.strikes)
    assert len(chaos.strikes) == times
    return supervisor


def test_every_victim_is_started_again_before_the_next_one_is_killed() -> None:
    log = strikes(1).log
    assert len(log) == 8
    for kill, start in zip(log[::2], log[1::2], strict=True):
        assert kill.removeprefix("kill ") == start.removeprefix("start ")


def test_the_same_seed_kills_the_same_processes() -> None:
    assert strikes(7).log == strikes(7).log
    assert len({tuple(strikes(seed).log) for seed in range(6)}) > 1


def test_more_kills_than_versions_are_all_made() -> None:
    strikes(0, times=20)


def test_no_chaos_is_finished_at_once() -> None:
    assert Chaos(FakeSupervisor(), ["a"], times=0, versions=5, seed=0).finished  # type: ignore[arg-type]


def test_a_taken_task_name_gets_a_number(tmp_path: Path) -> None:
    assert free_task_name(tmp_path, "digits") == "digits"
    for name in ("digits", "digits-2"):
        folder = tmp_path / "tasks" / name
        folder.mkdir(parents=True)
        (folder / "task.json").write_text("{}")
    assert free_task_name(tmp_path, "digits") == "digits-3"


def test_a_version_never_needs_more_updates_than_there_are_devices() -> None:
    for devices in (1, 2, 12, 40, 400):
        policy = policy_from_toml(quick_policy(devices))
        assert 1 <= policy.buffer.updates <= devices


def test_a_json_file_that_cannot_be_written_is_refused_before_the_run(tmp_path: Path) -> None:
    check_json_target(None)
    check_json_target("-")
    check_json_target(str(tmp_path / "out.json"))
    for target in (tmp_path, tmp_path / "none" / "out.json"):
        with pytest.raises(UsageProblem) as caught:
            check_json_target(str(target))
        assert caught.value.error_id == "FLV-6307"


def test_a_report_folder_that_cannot_be_written_is_refused_before_the_run(tmp_path: Path) -> None:
    check_report_folder(None)
    check_report_folder(tmp_path / "new" / "folder")
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem) as caught:
        check_report_folder(tmp_path / "file" / "below")
    assert caught.value.error_id == "FLV-6308"


def test_the_demos_json_needs_no_file_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--home", str(tmp_path / "home"), "demo", "--json", "--regions", "eu,eu"]) == 4
    assert json.loads(capsys.readouterr().out)["error"]["id"] == "FLV-2405"


@pytest.mark.parametrize(("attackers", "told"), [(0, False), (1, False), (2, True), (3, True)])
def test_a_fleet_without_an_honest_majority_is_told(attackers: int, *, told: bool) -> None:
    plan = RunPlan(reference="x", name="x", regions={"eu": 1}, devices=3, versions=1, attackers=attackers)
    assert bool(warnings_about(plan)) == told


@pytest.mark.parametrize(
    ("arguments", "error_id"),
    [
        (["demo", "--devices", "3", "--attackers", "4"], "FLV-2505"),
        (["demo", "--regions", "eu,eu"], "FLV-2405"),
        (["demo", "--task", "nothing-like-it"], "FLV-2200"),
        (["demo", "--chaos", "-1"], "FLV-6001"),
        (["run", "none.py"], "FLV-2200"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_starts(
    arguments: list[str], error_id: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--home", str(tmp_path / "home"), *arguments]) == 4
    assert error_id in capsys.readouterr().err
    assert not (tmp_path / "home").exists()


def test_new_writes_a_task_that_can_be_simulated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "mine", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["file"] == str(tmp_path / "mine.py")
    assert main(["run", "mine.py", "--simulate", "--versions", "3", "--json"]) == 0
    out = capsys.readouterr()
    told = json.loads(out.out)
    assert told["versions"] == len(told["accuracy"]) == 3
    assert "version 3/3" in out.err
    assert not (tmp_path / ".fluvial").exists()


def test_an_audit_without_findings_is_identical() -> None:
    assert AuditReport("t", "", 1, 1, 1, "", (), 1, Findings(), 0.0, 1).identical


def test_published_is_whatever_stands_in_the_log_also_what_the_fleet_was_not_told_of() -> None:
    """A fleet that ends before the broker's answer: more would be accepted than published."""
    result = result_of([("honest", "accepted")] * 4)
    result.published = result.published[:3]
    assert result.updates_published == 4
    result.facts.add_verdict("eu", 0, Verdict(99, "control"), 0)
    assert result.updates_published == 4
