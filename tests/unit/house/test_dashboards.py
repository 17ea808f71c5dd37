"""The committed dashboards are what the code says, every panel is complete, and the ten measures are all shown."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from backends.observing.metrics import CATALOGUE
from infra.grafana.build import BOARDS, FOLDER, MEASURES, build, panels_of
from infra.grafana.panels import Query

ROOT = Path(__file__).parents[3]


def documents() -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def test_the_committed_files_are_what_the_code_builds() -> None:
    built = build()
    assert {path.name for path in FOLDER.glob("*.json")} == set(built)
    for name, text in built.items():
        assert (FOLDER / name).read_text() == text, (
            f"run python -m infra.grafana.build: {name} is not as built"
        )


def problems_of_panel(document: dict[str, Any], panel: dict[str, Any]) -> list[str]:
    known = {variable["name"] for variable in document["templating"]["list"]} | {"__rate_interval"}
    targets = panel["targets"]
    holds = {
        "a unit": panel["fieldConfig"]["defaults"]["unit"],
        "a sentence": len(panel["description"]) > 10 and panel["description"].endswith("."),
        "the datasource variable": all(
            one["datasource"]["uid"] == "${datasource}" for one in (panel, *targets)
        ),
        "a query": targets,
        "variables of its board": all(set(re.findall(r"\$(\w+)", one["expr"])) <= known for one in targets),
        "its task's series only": all('task="$task"' in one["expr"] for one in targets),
    }
    return [what for what, there in holds.items() if not there]


def test_every_panel_has_a_unit_a_description_and_the_datasource_variable() -> None:
    found = {
        (name, panel["title"]): problems_of_panel(document, panel)
        for name, document in documents().items()
        for panel in document["panels"]
        if panel["type"] != "row"
    }
    assert len(found) > 50
    assert {place: missing for place, missing in found.items() if missing} == {}


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_has_a_stable_uid_variables_links_and_room_for_its_panels(name: str) -> None:
    document = documents()[name]
    assert document["uid"] == f"fluvial-{name}"
    variables = [variable["name"] for variable in document["templating"]["list"]]
    assert variables == ["datasource", "task", *(["region"] if name == "region" else [])]
    assert {link["url"] for link in document["links"]} == {f"/d/fluvial-{other}" for other in BOARDS} - {
        f"/d/fluvial-{name}"
    }
    taken: set[tuple[int, int]] = set()
    for panel in document["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
    numbers = [panel["id"] for panel in document["panels"]]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("measure", MEASURES)
def test_each_of_the_fields_measures_has_a_panel(measure: str) -> None:
    assert panels_of(measure), f"{measure}, {MEASURES[measure]}, is on no dashboard"


def test_a_panel_shows_no_measure_that_is_none() -> None:
    assert {m for board in BOARDS.values() for panel in board.panels for m in panel.measures} == set(MEASURES)


def test_titles_are_unique_in_a_row_and_links_lead_to_dashboards() -> None:
    uids = {board.uid for board in BOARDS.values()}
    for board in BOARDS.values():
        for row in board.rows:
            titles = [panel.title for panel in row.panels]
            assert len(set(titles)) == len(titles), row.title
        for panel in board.panels:
            if panel.link:
                assert panel.link[1].removeprefix("/d/").partition("?")[0] in uids


def test_grafana_is_provisioned_with_the_folder_and_a_prometheus() -> None:
    folder = ROOT / "infra" / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "fluvial.yaml").read_text())["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "${PROMETHEUS_URL}")
    (provider,) = yaml.safe_load((folder / "dashboards" / "fluvial.yaml").read_text())["providers"]
    assert provider["options"]["path"] == "${FLUVIAL_DASHBOARDS}"


TARGET_LABELS = {"task", "role", "process", "job", "instance"}
STANDARD = {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"}
"""Metrics of the client library's own collectors."""


def declared() -> dict[str, set[str]]:
    """Series name to its own labels, as the catalogue has them."""
    found: dict[str, set[str]] = {name: set() for name in STANDARD}
    for metric in CATALOGUE:
        ends = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
        for end in ends:
            found[metric.name + end] = {*metric.labels, *(["le"] if end == "_bucket" else [])}
    return found


def problems_of_query(query: Query) -> list[str]:
    known = declared()
    selectors = re.findall(r"(\w+)\{([^}]*)\}", query.expr)
    found = [] if selectors else ["it asks for nothing"]
    labels: set[str] = set()
    for name, matchers in selectors:
        if name not in known:
            found.append(f"no exporter declares {name}")
            continue
        labels |= known[name]
        asked = set(re.findall(r'(\w+)(?:=~|!~|!=|=)"', matchers))
        found += [f"{name} has no label {label}" for label in asked - known[name] - TARGET_LABELS]
    grouped = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", query.expr))))
    found += [f"it groups by {label}" for label in grouped - labels - TARGET_LABELS]
    return found + [
        f"its legend has {name}" for name in set(re.findall(r"\{\{(\w+)\}\}", query.legend)) - grouped
    ]


def test_every_query_asks_for_metrics_and_labels_of_the_catalogue() -> None:
    """Also behind ``or vector(0)``, where a wrong name would look like nothing to worry about for ever."""
    found = {
        (name, panel.title, query.legend): problems_of_query(query)
        for name, board in BOARDS.items()
        for panel in board.panels
        for query in panel.queries
    }
    assert len(found) > 50
    assert {place: problems for place, problems in found.items() if problems} == {}


def test_a_query_for_what_nobody_exports_would_be_found() -> None:
    assert problems_of_query(Query('sum by (color) (fluvial_nothing{task="$task"})', "{{flavour}}")) == [
        "no exporter declares fluvial_nothing",
        "it groups by color",
        "its legend has flavour",
    ]
