"""What a dashboard is made of: panels with queries, in rows, as data; and how they become Grafana's JSON.

Every panel has a unit and a description, and asks the data source of the variable ``$datasource``. ``measures`` names
which of the field's ten measures (M1 to M10) a panel shows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from grafana_foundation_sdk.builders import bargauge, common, prometheus, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models

Kind = Literal["timeseries", "stat", "bargauge"]
DATASOURCE: Final = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
COLUMNS: Final = 24
TASK: Final = 'task="$task"'
REGION: Final = 'task="$task",region="$region"'
RATE: Final = "[$__rate_interval]"
TAG: Final = "fluvial"
_LETTERS: Final = "ABCDEFGHIJ"


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression and how its series are called."""

    expr: str
    legend: str = "__auto"


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. ``unit`` is one of Grafana's unit ids."""

    title: str
    description: str
    unit: str
    queries: Sequence[Query]
    kind: Kind = "timeseries"
    width: int = 8
    height: int = 7
    measures: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    decimals: int | None = None
    no_value: str = ""
    stacked: bool = False
    link: tuple[str, str] | None = None
    """Title and address that a click on a series leads to."""
    thresholds: tuple[tuple[float, str], ...] = ()
    """(from, colour), after green."""


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading, laid out from left to right."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard. ``uid`` stands in links and bookmarks: it never changes."""

    uid: str
    title: str
    description: str
    rows: Sequence[Row]
    span: str = "now-1h"
    refresh: str = "10s"
    by_region: bool = False
    tags: tuple[str, ...] = field(default=(TAG,))

    @property
    def panels(self) -> list[Panel]:
        """All panels, in order."""
        return [panel for row in self.rows for panel in row.panels]


# -- pieces of PromQL


def rate(metric: str, labels: str = TASK, by: str = "") -> str:
    """The rate of a counter, summed."""
    return f"sum{_by(by)}(rate({metric}{{{labels}}}{RATE}))"


def quantile(q: float, histogram: str, labels: str = TASK, by: str = "") -> str:
    """A quantile of a histogram, over all its series or by some labels."""
    inner = ", ".join(["le", *([by] if by else [])])
    return f"histogram_quantile({q:g}, sum by ({inner}) (rate({histogram}_bucket{{{labels}}}{RATE})))"


def quantiles(histogram: str, labels: str = TASK) -> tuple[Query, ...]:
    """Median and 99th percentile."""
    return tuple(Query(quantile(q, histogram, labels), name) for q, name in ((0.5, "median"), (0.99, "99 %")))


def none_is_zero(expr: str) -> str:
    """Where a counter has no series before the first event, and zero is the truth."""
    return f"{expr} or vector(0)"


def since_success(action: str, labels: str = TASK) -> str:
    """Seconds since an action last succeeded anywhere."""
    newest = f'max(fluvial_last_success_timestamp_seconds{{{labels},action="{action}"}})'
    return f"time() - {newest}"


def _by(labels: str) -> str:
    return f" by ({labels}) " if labels else " "


# -- to Grafana


def dashboard_json(board: Board, others: Sequence[Board]) -> str:
    """The committed form: stable, so that a difference is a change of meaning."""
    built = _dashboard(board, others).build()
    return json.dumps(json.loads(JSONEncoder().encode(built)), indent=2, sort_keys=True) + "\n"


def _dashboard(board: Board, others: Sequence[Board]) -> builders.Dashboard:
    result = (
        builders.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags(list(board.tags))
        .time(board.span, "now")
        .refresh(board.refresh)
        .timezone("browser")
        .readonly()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(
            builders.DatasourceVariable("datasource")
            .label("Data source")
            .description("The Prometheus that scrapes this federation.")
            .type("prometheus")
        )
        .with_variable(_label_variable("task", "Task", "label_values(fluvial_build_info, task)"))
    )
    if board.by_region:
        query = 'label_values(fluvial_region_expected{task="$task"}, region)'
        result = result.with_variable(_label_variable("region", "Region", query))
    for other in others:
        if other.uid != board.uid:
            result = result.link(
                builders.DashboardLink(other.title)
                .type(models.DashboardLinkType.LINK)
                .url(f"/d/{other.uid}")
                .tooltip(other.description)
                .include_vars(include_vars=True)
                .keep_time(keep_time=True)
            )
    return _with_rows(result, board.rows)


def _with_rows(result: builders.Dashboard, rows: Sequence[Row]) -> builders.Dashboard:
    y, number = 0, 0
    for row in rows:
        number += 1
        heading = builders.Row(row.title).id(number).grid_pos(models.GridPos(h=1, w=COLUMNS, x=0, y=y))
        result = result.with_row(heading)
        y, x, height = y + 1, 0, 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                y, x, height = y + height, 0, 0
            number += 1
            place = models.GridPos(h=panel.height, w=panel.width, x=x, y=y)
            result = result.with_panel(_panel(panel).id(number).grid_pos(place))
            x, height = x + panel.width, max(height, panel.height)
        y += height
    return result


def _label_variable(name: str, label: str, query: str) -> builders.QueryVariable:
    return (
        builders.QueryVariable(name)
        .label(label)
        .query(query)
        .datasource(DATASOURCE)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
    )


def _panel(panel: Panel) -> Any:
    kinds: dict[str, Any] = {"timeseries": timeseries.Panel, "stat": stat.Panel, "bargauge": bargauge.Panel}
    built = kinds[panel.kind]()
    built = built.title(panel.title).description(panel.description).unit(panel.unit).datasource(DATASOURCE)
    for letter, query in zip(_LETTERS, panel.queries, strict=False):
        target = prometheus.Dataquery().ref_id(letter).expr(query.expr).legend_format(query.legend).range()
        built = built.with_target(target.datasource(DATASOURCE))
    for name, value in (("min", panel.minimum), ("max", panel.maximum), ("decimals", panel.decimals)):
        if value is not None:
            built = getattr(built, name)(value)
    if panel.no_value:
        built = built.no_value(panel.no_value)
    if panel.thresholds:
        steps = [models.Threshold(value=None, color="green")]
        steps += [models.Threshold(value=value, color=color) for value, color in panel.thresholds]
        config = builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)
        built = built.thresholds(config)
    if panel.link is not None:
        title, url = panel.link
        built = built.data_links([builders.DashboardLink(title).type(models.DashboardLinkType.LINK).url(url)])
    return _drawn(built, panel)


def _drawn(built: Any, panel: Panel) -> Any:
    if panel.kind != "timeseries":
        return built.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    legend = (
        common.VizLegendOptions()
        .display_mode(common_models.LegendDisplayMode.LIST)
        .placement(common_models.LegendPlacement.BOTTOM)
        .show_legend(show_legend=True)
    )
    built = built.legend(legend).fill_opacity(10).line_width(1)
    if panel.stacked:
        built = built.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL))
    return built
