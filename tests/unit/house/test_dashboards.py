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


def panels() -> list[Any]:
    return [
        pytest.param(document, panel, id=f"{name}: {panel['title']}")
        for name, document in documents().items()
        for panel in document["panels"]
        if panel["type"] != "row"
    ]


def test_the_committed_files_are_what_the_code_builds() -> None:
    built = build()
    assert {path.name for path in FOLDER.glob("*.json")} == set(built)
    for name, text in built.items():
        assert (FOLDER / name).read_text() == text, (
            f"run python -m infra.grafana.build: {name} is not as built"
        )


@pytest.mark.parametrize(("document", "panel"), panels())
def test_a_panel_has_a_unit_a_description_and_the_datasource_variable(
    document: dict[str, Any], panel: dict[str, Any]
) -> None:
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert len(panel["description"]) > 10 and panel["description"].endswith(".")
    assert panel["datasource"]["uid"] == "${datasource}"
    assert panel["targets"]
    known = {variable["name"] for variable in document["templating"]["list"]} | {"__rate_interval"}
    for target in panel["targets"]:
        assert target["datasource"]["uid"] == "${datasource}"
        assert set(re.findall(r"\$(\w+)", target["expr"])) <= known
        assert 'task="$task"' in target["expr"], "another task's series would be in it"


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


def queries() -> list[Any]:
    return [
        pytest.param(query, id=f"{name}: {panel.title}: {query.legend}")
        for name, board in BOARDS.items()
        for panel in board.panels
        for query in panel.queries
    ]


@pytest.mark.parametrize("query", queries())
def test_a_query_asks_for_metrics_and_labels_of_the_catalogue(query: Query) -> None:
    """Also behind ``or vector(0)``, where a wrong name would look like nothing to worry about for ever."""
    known = declared()
    selectors = re.findall(r"(\w+)\{([^}]*)\}", query.expr)
    assert selectors
    labels: set[str] = set()
    for name, matchers in selectors:
        assert name in known, f"no exporter declares {name}"
        labels |= known[name]
        for label in re.findall(r'(\w+)(?:=~|!~|!=|=)"', matchers):
            assert label in known[name] | TARGET_LABELS, f"{name} has no label {label}"
    grouped = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", query.expr))))
    assert grouped <= labels | TARGET_LABELS
    assert set(re.findall(r"\{\{(\w+)\}\}", query.legend)) <= grouped
