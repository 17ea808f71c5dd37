"""A comparison as one HTML file that needs nothing but a browser: curves against everything that training costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jinja2

from aggregation.errors import EnvironmentProblem
from fluvial.session.report import charts
from fluvial.simulating.compare import AXES, columns_of, in_words, rows_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fluvial.simulating.compare import Compared, Run
    from fluvial.simulating.plan import Plan


def render(found: Sequence[Compared], plan: Plan, task: str, *, command: str) -> str:
    """The page. ``command`` is what made it."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fluvial.simulating"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = list(
        dict.fromkeys(name for one in found for run in one.runs for name in run.outcome.quality.names)
    )
    return environment.get_template("compare.html.j2").render(
        task=task,
        plan=plan,
        seeds=[run.seed for run in found[0].runs],
        columns=columns_of(found),
        rows=rows_of(found, has_target=plan.aim.until is not None),
        words=in_words(found),
        charts=[chart for name in names for chart in _charts(found, name)],
        policies=[(one.name, one.policy.sha256, one.policy.canonical().decode()) for one in found],
        command=command,
    )


def _charts(found: Sequence[Compared], name: str) -> list[dict[str, str]]:
    made = []
    for axis, label in AXES.items():
        lines = {one.name: [_line(run, axis, name) for run in one.runs] for one in found}
        svg = charts.curves(f"{axis}-{name}", label, name, lines)
        if svg:
            made.append({"title": f"{name} against {label}", "svg": svg})
    return made


def _line(run: Run, axis: str, name: str) -> list[tuple[float, float]]:
    points = run.outcome.points
    return [(getattr(points[version - 1], axis), value) for version, value in run.outcome.quality.curve(name)]


def write_page(path: Path, page: str) -> None:
    """Write it. EnvironmentProblem FLV-6308: it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise EnvironmentProblem(
            "FLV-6308",
            f"the report cannot be written: {error.strerror or error}",
            where=str(path),
            hint="choose another file with `--report FILE`",
        ) from error
