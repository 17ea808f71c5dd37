"""``docs/metrics.md``, from the catalogue: ``python -m fluvial.documents.metrics_page`` writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from backends.observing.metrics import EVALUATORS, EVERY_PROCESS, GUARDIANS, MERGERS, OTHERS, WORKERS, Metric

PAGE: Final = Path(__file__).parents[2] / "docs" / "metrics.md"

HEAD: Final = """# Metrics

<!-- Written by `python -m fluvial.documents.metrics_page` from backends/observing/metrics.py: change it there. -->

Every long-running process serves its metrics at `http://127.0.0.1:PORT/metrics`, for Prometheus or, by the Accept
header, as OpenMetrics. It takes a free port and prints it; `--metrics-port N` chooses one, `--no-metrics` turns them
off. Beside it are `/livez` (the same as `/healthz`: 503 says that the process should be restarted) and `/readyz` (503
says why it does not do its work now). None of them asks Kafka or the object store.

Each process writes `run/metrics/TASK-PROCESS.PID.json` in the home folder, in Prometheus' file_sd format, with the
labels `task`, `role` and `process`. Prometheus adds those to every series below, so they are not listed there. A
process removes its file when it ends, and those that killed processes of its name have left when it starts.

No label holds a device's id: more devices do not make more series. The updates of canaries are counted apart. The usual
`process_*`, `python_gc_*` and `python_info` metrics are there, too.

## What counts as refused

One definition (`schemas/refusals.py`) holds for metrics, dashboards, `fluvial status`, `fluvial versions`, the
console and the report. An update is *judged* when its verdict is none of `control` (no update), `skipped` (an operator
parked it, and nobody judged it) and `aggregated` (a window of an edge, in whose own log its updates' verdicts are). Of
those that are judged it is accepted, or refused. What a region's canary publishes is refused on purpose: that is in
`fluvial_canary_verdicts_total` and in no other number. The refused share is refused over judged:
`outcome!~"control|skipped|aggregated"` of `fluvial_verdicts_total` is what was judged.

A manifest counts by outcome and knows no canaries; views of versions take them out where the version's record says how
many there were. The alerts on the budget of refusals leave out `duplicate` as well: it is one update, sent twice.
"""

FIELD: Final = (
    ("M1", "participation", ("fluvial_devices_contributing", "fluvial_devices_active")),
    ("M2", "aggregation latency", ("fluvial_verdict_seconds", "fluvial_publish_to_version_seconds")),
    ("M3", "global validation loss", ("fluvial_validation_loss", "fluvial_model_metric")),
    ("M4", "update bytes", ("fluvial_update_bytes",)),
    ("M5", "failed updates", ("fluvial_verdicts_total", "fluvial_publish_errors_total")),
    ("M6", "staleness", ("fluvial_update_staleness_versions",)),
    ("M7", "privacy budget", ("fluvial_privacy_epsilon",)),
    ("M8", "anomalies", ("fluvial_verdicts_total", "fluvial_update_norm_deviations")),
    ("M9", "aggregator CPU", ("process_cpu_seconds_total", "process_resident_memory_bytes")),
    ("M10", "versions to target", ("fluvial_versions_to_target", "fluvial_target_metric")),
)
"""The measures that the field asks for, and the metrics that answer them."""

SECTIONS: Final = (
    ("Every process", EVERY_PROCESS),
    ("Regional worker", WORKERS),
    ("Merger", MERGERS),
    ("Evaluator", EVALUATORS),
    ("Guardian", GUARDIANS),
    ("Fleet, auditor and canary", OTHERS),
)


def page() -> str:
    """The whole page."""
    parts = [HEAD, "## The field's measures\n", "| | measure | metrics |", "|---|---|---|"]
    for number, measure, names in FIELD:
        parts.append(f"| {number} | {measure} | {', '.join(f'`{name}`' for name in names)} |")
    for title, metrics in SECTIONS:
        parts += [
            f"\n## {title}\n",
            "| metric | type, unit | labels | meaning | question |",
            "|---|---|---|---|---|",
        ]
        parts += [_row(metric, roles=title.startswith("Fleet")) for metric in metrics]
    return "\n".join(parts) + "\n"


def _row(metric: Metric, *, roles: bool) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels) or "–"
    who = f" ({', '.join(metric.roles)})" if roles else ""
    kind = f"{metric.kind}, {metric.unit}"
    return f"| `{metric.name}`{who} | {kind} | {labels} | {metric.meaning} | {metric.question} |"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
