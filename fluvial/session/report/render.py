"""From the result of a run to its report: the numbers behind every chart, then the page."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import jinja2

from aggregation.errors import EnvironmentProblem
from aggregation.fold.rejections import ACCEPTED
from aggregation.weights.staleness import WEIGHT_ONE
from fluvial.reading.quality import in_digits
from fluvial.reading.spending import POINT_OF_A_SHARE, money
from fluvial.session.report import charts
from schemas.refusals import Standing, judged_of, standing_of
from schemas.task_metric import way_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fluvial.reading.progress import Place, RunFacts
    from fluvial.reading.quality import Quality
    from fluvial.session.plan import RunResult
    from schemas.manifests import Manifest

LINEAGE_ROWS_MAX: Final = 200
VERSION_ROWS_MAX: Final = 500
CURVES_MAX: Final = 6
"""Numbers of the task's own that have a chart: the metric, the loss and so on. The table of versions has all."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart and the table behind it."""

    title: str
    note: str
    svg: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    tall: bool = False


def write_report(
    result: RunResult, model: bytes, folder: Path, *, command: str, program: str = "fluvial"
) -> Path:
    """Write ``report.html`` and ``model.safetensors``: the page's path. ``command`` is what made the run.

    Raises EnvironmentProblem: FLV-6308, the folder cannot be written.
    """
    page = render(result, command=command, program=program)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.safetensors").write_bytes(model)
        path = folder / "report.html"
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise EnvironmentProblem(
            "FLV-6308",
            f"the report cannot be written: {error.strerror or error}",
            where=str(folder),
            hint="choose another folder with `--report DIR`",
        ) from error
    return path


def render(result: RunResult, *, command: str, program: str = "fluvial") -> str:
    """The page as HTML. ``program`` is how its reader calls ``fluvial``."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fluvial.session.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    lineage, lineage_total = _lineage(result)
    problem = result.problem()
    return environment.get_template("report.html.j2").render(
        result=result,
        plan=result.plan,
        problem=problem,
        tiles=_tiles(result),
        charts=_charts(result),
        regions=sorted(result.plan.regions),
        behaviours=behaviours(result),
        metric_names=result.quality.names,
        versions=_versions(result),
        versions_total=len(result.rows),
        lineage=lineage,
        lineage_total=lineage_total,
        model_place=result.model_place,
        command=command,
        audit_command=f"{program} audit --task {result.task}",
        made_at=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(result.started_at)),
    )


def behaviours(result: RunResult) -> list[tuple[str, int, dict[str, int]]]:
    """What devices of each behaviour published and what became of it: (behaviour, updates, by outcome)."""
    found: dict[str, Counter[str]] = {}
    for published in result.published:
        judged = result.facts.verdicts.get(published.place)
        outcome = judged.verdict.outcome if judged is not None else "no verdict"
        found.setdefault(published.behaviour, Counter())[outcome] += 1
    order = sorted(found, key=lambda behaviour: (behaviour != "honest", behaviour))
    return [
        (behaviour, found[behaviour].total(), dict(found[behaviour].most_common())) for behaviour in order
    ]


def _tiles(result: RunResult) -> list[tuple[str, str]]:
    outcomes = result.facts.outcomes()
    quality = result.quality
    curve, best = quality.curve(), quality.best()
    tiles = [(f"final {quality.name}", in_digits(curve[-1][1]) if curve else "not reported")]
    if best is not None and best[1] != curve[-1][1]:
        tiles.append((f"best {quality.name}", f"{in_digits(best[1])} at version {best[0]}"))
    return [
        *tiles,
        ("versions", str(result.rows[-1].version)),
        ("updates accepted", f"{outcomes.get(ACCEPTED, 0):,}"),
        ("updates refused", f"{judged_of(outcomes).refused:,}"),
        ("updates a second", f"{result.updates_per_second:.1f}"),
        ("training", f"{result.training_seconds:.1f} s"),
        *_cost_tiles(result),
    ]


def _cost_tiles(result: RunResult) -> list[tuple[str, str]]:
    spending = result.spending
    if spending is None:
        return []
    unit, point = spending["currency"], spending["per_point"]
    tiles = [("cost", f"{money(spending['total'])} {unit}")]
    if point is not None:
        what = "a point" if point["point"] == POINT_OF_A_SHARE else "1"
        tiles.append((f"cost of {what} of {result.quality.name}", f"{money(point['cost'])} {unit}"))
    return tiles


def _charts(result: RunResult) -> list[Chart]:
    facts = result.facts
    made = [
        *(
            _curve_chart(result.quality, name, at)
            for at, name in enumerate(result.quality.names[:CURVES_MAX])
        ),
        _verdict_chart(facts, sorted(result.plan.regions)),
        _rate_chart(facts),
        _staleness_chart(facts),
    ]
    return [chart for chart in made if chart.svg]


def _curve_chart(quality: Quality, name: str, at: int) -> Chart:
    points = quality.curve(name)
    note = "On held-out data that no device has."
    if quality.metric is not None and name == quality.name:
        note += f" It judges the task: {way_of(quality.metric)} is better."
    rows = [(version, f"{value:.6g}") for version, value in points]
    svg = charts.curve(f"curve-{at}", name, points, series=at + 1)
    return Chart(f"{name[:1].upper()}{name[1:]}", note, svg, ("version", name), rows)


def _verdict_chart(facts: RunFacts, regions: Sequence[str]) -> Chart:
    outcomes = list(facts.outcomes())
    series = {region: [facts.counts[region, outcome] for outcome in outcomes] for region in regions}
    rows = [(outcome, *(series[region][row] for region in regions)) for row, outcome in enumerate(outcomes)]
    svg = charts.stacked_rows("verdicts", "updates", outcomes, series)
    tall = len(rows) >= charts.TALL_ROWS_MIN
    note = "What became of every update, by region."
    return Chart("Verdicts", note, svg, ("outcome", *regions), rows, tall=tall)


def _canaries(facts: RunFacts, manifest: Manifest) -> int:
    """How many of a version's refusals are of canaries."""
    return sum(
        source.first_offset <= place.offset < source.next_offset
        for source in manifest.inputs
        for place in facts.canaries
        if (place.region, place.partition) == (source.region, source.partition)
    )


def _rate_chart(facts: RunFacts) -> Chart:
    standings = [
        (one, standing_of(one.verdict.outcome, place.region, one.verdict.device_id))
        for place, one in facts.verdicts.items()
    ]
    updates = [pair for pair in standings if pair[1] in {Standing.ACCEPTED, Standing.REFUSED}]
    first = min((one.timestamp_ms for one, _ in updates), default=0)
    last = max((one.timestamp_ms for one, _ in updates), default=0)
    seconds = (last - first) // 1000 + 1
    series = {"accepted": [0] * seconds, "refused": [0] * seconds}
    for one, standing in updates:
        series[standing.value][(one.timestamp_ms - first) // 1000] += 1
    rows = [(second, series["accepted"][second], series["refused"][second]) for second in range(seconds)]
    svg = charts.stacked_seconds("rate", "updates/s", series) if updates else ""
    return Chart(
        "Updates a second",
        "Verdicts by the second in which they were written.",
        svg,
        ("second", *series),
        rows,
    )


def _staleness_chart(facts: RunFacts) -> Chart:
    counts = Counter(
        one.verdict.staleness for one in facts.verdicts.values() if one.verdict.outcome == ACCEPTED
    )
    ordered = dict(sorted(counts.items()))
    note = "How many versions the model had moved on while a device trained: accepted updates."
    svg = charts.histogram("staleness", "staleness in versions", ordered)
    return Chart("Staleness", note, svg, ("staleness", "updates"), list(ordered.items()))


def _versions(result: RunResult) -> list[dict[str, Any]]:
    evaluations = result.facts.evaluations
    rows = []
    for row in result.rows[-VERSION_ROWS_MAX:]:
        manifest, evaluation = row.manifest, evaluations.get(row.version)
        rows.append(
            {
                "version": row.version,
                "values": [
                    _decimal(evaluation.values.get(name) if evaluation else None)
                    for name in result.quality.names
                ],
                "accepted": manifest.accepted,
                "refused": judged_of(manifest.counts, _canaries(result.facts, manifest)).refused,
                "windows": len(manifest.inputs),
                "staleness_mean": _decimal(
                    manifest.staleness_total / manifest.accepted if manifest.accepted else None
                ),
                "staleness_max": manifest.staleness_max,
                "model": manifest.model_sha256,
                "manifest": row.manifest_sha256,
                "parent": manifest.parent_sha256,
            }
        )
    return rows


def _lineage(result: RunResult) -> tuple[list[dict[str, Any]], int]:
    """The last version's accepted updates, in the order of its inputs: (the first ones, how many)."""
    rows: list[dict[str, Any]] = []
    last = result.rows[-1].manifest
    by_slot: dict[tuple[str, int], list[Place]] = {}
    for place in sorted(result.facts.verdicts):
        by_slot.setdefault((place.region, place.partition), []).append(place)
    for source in last.inputs:
        for place in by_slot.get((source.region, source.partition), []):
            verdict = result.facts.verdicts[place].verdict
            if source.first_offset <= place.offset < source.next_offset and verdict.outcome == ACCEPTED:
                rows.append(
                    {
                        "device": verdict.device_id,
                        "place": f"{place.region}[{place.partition}]@{place.offset}",
                        "base": verdict.base_version,
                        "staleness": verdict.staleness,
                        "weight": f"{verdict.weight / WEIGHT_ONE:.4f}",
                        "clip": f"{verdict.clip:.3f}",
                        "norm": f"{verdict.norm:.4f}",
                    }
                )
    return rows[:LINEAGE_ROWS_MAX], len(rows)


def final_model(result: RunResult) -> bytes:
    """The last version's ``model.safetensors``, checked against its manifest's hash."""
    from backends.store.factory import open_object_store
    from backends.store.task_store import TaskStore

    last = result.rows[-1]
    return TaskStore(open_object_store(result.settings.store), result.task).model_bytes(
        last.version, last.manifest.model_sha256
    )


def _decimal(value: float | None) -> str:
    return "" if value is None else in_digits(value)
