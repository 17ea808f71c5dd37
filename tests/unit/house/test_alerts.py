"""Alerts: promtool passes, and each alert has all that somebody who is woken by it needs."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from aggregation.fold.rejections import ACCEPTED, CONTROL, PARKED, RejectionReason
from fluvial.console.limits import HOST, PORT
from fluvial.console.pages import DocsPages
from fluvial.local.prometheus import configuration
from tests.unit.house.test_runbooks import anchors

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "infra" / "prometheus"
RULES = sorted((FOLDER / "rules").glob("*.yml"))
CASES = sorted((FOLDER / "tests").glob("*.yml"))
AT_ONCE = {
    "FluvialOffsetGap",
    "FluvialUnvouchedVerdicts",
    "FluvialDivergence",
    "FluvialMergerDivergence",
    "FluvialLieMerged",
    "FluvialVersionRefused",
    "FluvialAuditMismatch",
}
"""Critical, with no `for`: proofs, not measurements."""
SWITCH = "FluvialDeadMansSwitch"
DOCS = "{{ $externalLabels.fluvial_docs }}"
"""Where runbooks are served: a label that Prometheus' configuration sets."""
RECORDED = re.compile(r"^[a-z_]+:[a-z_]+:[a-z0-9_]+$")
SERIES = re.compile(r"\b(?:[a-z_]+:)?fluvial_[a-z0-9_]+(?::[a-z0-9_]+)?")
promtool = pytest.mark.needs("promtool")


@cache
def rules(kind: str) -> dict[str, dict[str, Any]]:
    """Every ``alert`` or ``record``, by its name."""
    return {
        rule[kind]: rule
        for path in RULES
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if kind in rule
    }


@cache
def cases() -> tuple[dict[str, Any], ...]:
    return tuple(case for path in CASES for case in yaml.safe_load(path.read_text())["tests"])


def expectations(alert: str, words: str) -> list[dict[str, Any]]:
    """What the cases named ``<alert> <words>…`` expect of that alert."""
    return [
        expected
        for case in cases()
        if case["name"].startswith(f"{alert} {words}")
        for expected in case["alert_rule_test"]
        if expected["alertname"] == alert
    ]


def run_promtool(*arguments: str, cwd: Path | None = None) -> None:
    command = ["promtool", *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@promtool
def test_promtool_takes_the_rules() -> None:
    run_promtool("check", "rules", "--lint-fatal", *map(str, RULES))


@promtool
@pytest.mark.parametrize("name", ["home", 'a "quoted" [home]*', "back\\slash"])
def test_promtool_takes_the_configuration_of_a_local_stack(tmp_path: Path, name: str) -> None:
    targets, config = tmp_path / name / "run" / "metrics", tmp_path / name / "config"
    targets.mkdir(parents=True)
    (targets / "digits-w1.json").write_text('[{"targets": ["127.0.0.1:20001"], "labels": {}}]')
    shutil.copytree(FOLDER / "rules", config / "rules")
    path = config / "prometheus.yml"
    path.write_text(configuration())
    assert "${" not in re.sub(r"#.*", "", path.read_text())
    run_promtool("check", "config", "config/prometheus.yml", cwd=tmp_path / name)


@promtool
def test_an_alerts_runbook_is_a_link_to_the_address_that_is_set(tmp_path: Path) -> None:
    """As in the configuration that `fluvial up` writes: the console's, which serves runbooks at this path."""
    labels = yaml.safe_load(configuration())["global"]["external_labels"]
    assert labels == {"fluvial_docs": f"http://{HOST}:{PORT}"}
    cases = yaml.safe_load((FOLDER / "tests" / "flow.yml").read_text())
    cases["rule_files"] = [str(path) for path in RULES]
    for case in cases["tests"]:
        case["external_labels"] = labels
        for one in [one for test in case.get("alert_rule_test", []) for one in test["exp_alerts"]]:
            path = one["exp_annotations"]["runbook_url"]
            one["exp_annotations"]["runbook_url"] = f"{labels['fluvial_docs']}{path}"
            assert path.removeprefix("/docs/").partition("#")[0] in DocsPages().names()
    (tmp_path / "flow.yml").write_text(yaml.safe_dump(cases))
    run_promtool("test", "rules", str(tmp_path / "flow.yml"))


@promtool
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_promtool_runs_the_cases(path: Path) -> None:
    run_promtool("test", "rules", str(path))


@promtool
def test_a_case_that_expects_another_text_fails(tmp_path: Path) -> None:
    """The cases above compare whole texts: a changed word in a description turns them red."""
    shutil.copytree(FOLDER, tmp_path / "prometheus")
    path = tmp_path / "prometheus" / "rules" / "alerts.yml"
    text = path.read_text()
    assert "stands still" in text
    path.write_text(text.replace("stands still", "stands"))
    done = subprocess.run(
        ["promtool", "test", "rules", str(tmp_path / "prometheus" / "tests" / "flow.yml")],
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1


@pytest.mark.parametrize("alert", sorted(rules("alert")))
def test_an_alert_fires_with_its_full_text_in_one_case_and_stays_quiet_in_another(alert: str) -> None:
    fires = [one for expected in expectations(alert, "fires") for one in expected["exp_alerts"]]
    assert fires
    wanted = set(rules("alert")[alert]["annotations"])
    assert all(set(one["exp_annotations"]) == wanted and "severity" in one["exp_labels"] for one in fires)
    quiet = expectations(alert, "stays quiet")
    assert quiet
    assert all(expected["exp_alerts"] == [] for expected in quiet)


@pytest.mark.parametrize("alert", sorted(rules("alert")))
def test_an_alert_says_how_bad_it_is_and_waits_unless_it_is_a_proof(alert: str) -> None:
    rule = rules("alert")[alert]
    severity = rule["labels"]["severity"]
    assert severity in {"critical", "warning", "none"}
    assert (severity == "none") == (alert == SWITCH)
    assert ("for" not in rule) == (alert in AT_ONCE | {SWITCH})
    assert alert not in AT_ONCE or severity == "critical"


@pytest.mark.parametrize("alert", sorted(rules("alert")))
def test_an_alert_has_its_texts_and_a_runbook_that_exists(alert: str) -> None:
    annotations = rules("alert")[alert]["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url"}
    assert len(annotations["description"]) > len(annotations["summary"])
    assert annotations["runbook_url"].startswith(f"{DOCS}/docs/runbooks/")
    page, _, anchor = annotations["runbook_url"].removeprefix(f"{DOCS}/").partition("#")
    assert (ROOT / page).is_file()
    assert anchor in anchors(ROOT / page)


@pytest.mark.parametrize("alert", sorted(rules("alert")))
def test_a_comment_says_how_the_threshold_was_chosen(alert: str) -> None:
    lines = (FOLDER / "rules" / "alerts.yml").read_text().splitlines()
    above = lines[: lines.index(f"      - alert: {alert}")]
    comment: list[str] = []
    while above and above[-1].lstrip().startswith("#"):
        comment.insert(0, above.pop().strip(" #"))
    assert comment
    assert comment[0].startswith("Threshold: ")


@pytest.mark.parametrize("alert", sorted(rules("alert")))
def test_the_index_of_the_runbooks_has_the_alert_with_its_severity_and_page(alert: str) -> None:
    rule = rules("alert")[alert]
    index = (ROOT / "docs" / "runbooks" / "README.md").read_text()
    (row,) = [line for line in index.splitlines() if f"| `{alert}" in line or f", `{alert}`" in line]
    assert f"| {rule['labels']['severity']} |" in row
    page = Path(rule["annotations"]["runbook_url"].partition("#")[0]).name
    assert f"({page}" in row


@pytest.mark.parametrize("record", sorted(rules("record")))
def test_a_recorded_series_is_named_level_metric_operations(record: str) -> None:
    assert RECORDED.match(record)
    labels = set(re.findall(r"[a-z]+", record.partition(":")[0]))
    aggregated = re.findall(r"(?:by|on) \(([a-z, _]+)\)", rules("record")[record]["expr"])
    named = {label.strip() for group in aggregated for label in group.split(",")} - {"le"}
    assert not aggregated or labels <= named


def test_what_a_rule_reads_of_recorded_series_is_recorded() -> None:
    read = {
        name
        for kind in ("alert", "record")
        for rule in rules(kind).values()
        for name in SERIES.findall(rule["expr"])
        if ":" in name
    }
    assert read
    assert sorted(read - set(rules("record"))) == []


def test_the_outcomes_that_rules_name_exist() -> None:
    outcomes = {ACCEPTED, CONTROL, PARKED} | {rejection.outcome for rejection in RejectionReason}
    text = "\n".join(path.read_text() for path in RULES)
    named = {one for group in re.findall(r'outcome!?=~?"([^"]+)"', text) for one in group.split("|")}
    assert named
    assert sorted(named - outcomes) == []


def test_the_ids_that_rules_name_have_pages() -> None:
    named = {name for path in RULES for name in re.findall(r"FLV-\d{4}", path.read_text())}
    assert named
    assert sorted(one for one in named if not (ROOT / "docs" / "errors" / f"{one}.md").is_file()) == []
