"""What is broken, and where along the way of an update: rate, errors, duration of each stage, defence, resources."""

from __future__ import annotations

from infra.grafana.executive import UPDATE_OUTCOMES
from infra.grafana.on_call_defence import DEFENCE
from infra.grafana.on_call_resources import RESOURCES
from infra.grafana.panels import (
    RATE,
    TASK,
    Board,
    Panel,
    Query,
    Row,
    none_is_zero,
    quantile,
    quantiles,
    rate,
    since_success,
)

REFUSED = f'{TASK},outcome!~"accepted|control|skipped|aggregated"'
TO_REGION = ("Debug this region", "/d/fluvial-region?var-task=${task}&var-region=${__field.labels.region}")

SYMPTOMS = Row(
    "Symptoms",
    [
        Panel(
            "Ready processes",
            "Processes that answer as ready, by role. One that is missing was stopped, has crashed or waits.",
            "none",
            [Query(f"sum by (role) (fluvial_ready{{{TASK}}})", "{{role}}")],
            kind="bargauge",
            width=6,
            minimum=0,
        ),
        Panel(
            "Lag in seconds",
            "How long the oldest record that is not folded yet has been waiting, the worst partition of each region. "
            "Click a region to debug it.",
            "s",
            [Query(f"max by (region) (fluvial_lag_seconds{{{TASK}}})", "{{region}}")],
            width=9,
            minimum=0,
            link=TO_REGION,
            thresholds=((30, "yellow"), (120, "red")),
        ),
        Panel(
            "Time since the last success",
            "Of each action, anywhere. A line that climbs is an action that does not succeed any more.",
            "s",
            [
                Query(
                    f"time() - max by (action) (fluvial_last_success_timestamp_seconds{{{TASK}}})",
                    "{{action}}",
                )
            ],
            width=9,
            minimum=0,
        ),
        Panel(
            "Canary: time to verdict",
            "What a device waits from publishing until it reads its verdict, measured by a real device of the region, "
            "99 %.",
            "s",
            [Query(quantile(0.99, "fluvial_canary_verdict_seconds", TASK, "region"), "{{region}}")],
            measures=("M2",),
            minimum=0,
            link=TO_REGION,
        ),
        Panel(
            "Canary: failures",
            "Canaries' updates a second that were late, judged wrongly or not taken by the broker.",
            "cps",
            [
                Query(
                    none_is_zero(rate("fluvial_canary_failures_total", TASK, "region, reason")),
                    "{{region}} {{reason}}",
                )
            ],
            minimum=0,
            link=TO_REGION,
        ),
        Panel(
            "Stopped partitions",
            "Partitions whose worker stopped at a record and folds no more, by region.",
            "none",
            [Query(f"sum by (region) (fluvial_partition_stopped{{{TASK}}})", "{{region}}")],
            minimum=0,
            link=TO_REGION,
            thresholds=((1, "red"),),
        ),
    ],
)

PUBLISH = Row(
    "1. Publish: device to log",
    [
        Panel(
            "Rate",
            "Updates that the broker acknowledged, by region, as devices of the fleet count them.",
            "cps",
            [Query(rate("fluvial_updates_published_total", TASK, "region"), "{{region}}")],
            minimum=0,
        ),
        Panel(
            "Errors",
            "Updates that the broker did not acknowledge.",
            "cps",
            [Query(none_is_zero(rate("fluvial_publish_errors_total", TASK, "error_id")), "{{error_id}}")],
            minimum=0,
        ),
        Panel(
            "Duration",
            "From the producer to the broker's acknowledgement.",
            "s",
            quantiles("fluvial_publish_seconds"),
            minimum=0,
        ),
    ],
)

VERDICT = Row(
    "2. Verdict: log to fold",
    [
        Panel(
            "Rate",
            "Verdicts by outcome. Canaries' updates are not among them.",
            "cps",
            [Query(rate("fluvial_verdicts_total", TASK, "outcome"), "{{outcome}}")],
            stacked=True,
            minimum=0,
        ),
        Panel(
            "Errors: refused",
            "Share of the judged updates that were refused, all together and by reason.",
            "percentunit",
            [
                Query(
                    f"({none_is_zero(rate('fluvial_verdicts_total', REFUSED))}) "
                    f"/ {rate('fluvial_verdicts_total', UPDATE_OUTCOMES)}",
                    "all",
                ),
                Query(
                    f"{rate('fluvial_verdicts_total', REFUSED, 'outcome')} "
                    f"/ scalar({rate('fluvial_verdicts_total', UPDATE_OUTCOMES)})",
                    "{{outcome}}",
                ),
            ],
            measures=("M5", "M8"),
            minimum=0,
        ),
        Panel(
            "Duration",
            "From the broker's time of an update until its verdict is handed to the producer.",
            "s",
            quantiles("fluvial_verdict_seconds"),
            measures=("M2",),
            minimum=0,
        ),
    ],
)

WINDOW = Row(
    "3. Window: fold to aggregate",
    [
        Panel(
            "Rate",
            "Windows that closed, by region.",
            "cps",
            [Query(rate("fluvial_windows_total", TASK, "region"), "{{region}}")],
            minimum=0,
        ),
        Panel(
            "Errors: stops",
            "Partitions that stopped, by the error that they stopped with.",
            "cps",
            [
                Query(
                    none_is_zero(rate("fluvial_partition_stops_total", TASK, "region, error_id")),
                    "{{region}} {{error_id}}",
                )
            ],
            minimum=0,
        ),
        Panel(
            "Duration",
            "From the close of a window until its objects, verdicts and aggregate are where they belong.",
            "s",
            quantiles("fluvial_window_publish_seconds"),
            minimum=0,
        ),
    ],
)

VERSION = Row(
    "4. Version: aggregates to model",
    [
        Panel(
            "Rate",
            "Versions that were committed.",
            "cps",
            [Query(rate("fluvial_version_commits_total"), "versions")],
            minimum=0,
        ),
        Panel(
            "Errors: lost races",
            "Commits that another merger made first. Harmless one by one; many mean two mergers that do the same work.",
            "cps",
            [Query(rate("fluvial_version_races_lost_total"), "lost races")],
            minimum=0,
        ),
        Panel(
            "Duration",
            "Merging alone, and the whole way of an accepted update from its publication into a version.",
            "s",
            [
                Query(quantile(0.99, "fluvial_merge_seconds"), "merge, 99 %"),
                Query(quantile(0.5, "fluvial_publish_to_version_seconds"), "publish to version, median"),
                Query(quantile(0.99, "fluvial_publish_to_version_seconds"), "publish to version, 99 %"),
            ],
            measures=("M2",),
            minimum=0,
        ),
        Panel(
            "Stopped mergers",
            "Mergers that ended for good in the last 10 minutes, by the error. FLV-3002 and FLV-3003 mean that two "
            "workers fold one log differently.",
            "none",
            [
                Query(
                    none_is_zero(
                        f"count by (error_id) (max_over_time(fluvial_merger_stopped{{{TASK}}}[10m]) == 1)"
                    ),
                    "{{error_id}}",
                )
            ],
            minimum=0,
            thresholds=((1, "red"),),
        ),
        Panel(
            "Waiting to be merged",
            "Updates in windows that no version holds yet, and how many the policy waits for.",
            "none",
            [
                Query(f"max(fluvial_merge_waiting_updates{{{TASK}}})", "waiting"),
                Query(f"max(fluvial_merge_updates_wanted{{{TASK}}})", "wanted"),
            ],
            minimum=0,
        ),
        Panel(
            "Updates a version",
            "How many updates make a version.",
            "none",
            quantiles("fluvial_version_updates"),
            minimum=0,
        ),
        Panel(
            "Late windows",
            "How many versions late windows are merged, and updates of those that came too late and were dropped.",
            "none",
            [
                *quantiles("fluvial_window_late_versions"),
                Query(
                    f"sum by (region) (increase(fluvial_updates_dropped_total{{{TASK}}}[$__rate_interval]))",
                    "dropped, {{region}}",
                ),
            ],
            minimum=0,
        ),
        Panel(
            "Time since a region's last window",
            "As the merger sees it. A region that is silent adds nothing, and its devices work for nothing.",
            "s",
            [
                Query(
                    f"time() - max by (region) (fluvial_region_last_window_timestamp_seconds{{{TASK}}})",
                    "{{region}}",
                )
            ],
            minimum=0,
            link=TO_REGION,
        ),
        Panel(
            "Waiting windows",
            "Windows that no version holds yet.",
            "none",
            [Query(f"max(fluvial_merge_waiting_windows{{{TASK}}})", "windows")],
            minimum=0,
        ),
    ],
)

EVALUATION = Row(
    "5. Evaluation: model to quality",
    [
        Panel(
            "Rate",
            "Versions that were evaluated, from one query to the next.",
            "none",
            [Query(f"max(delta(fluvial_evaluated_version{{{TASK}}}{RATE}))", "versions")],
        ),
        Panel(
            "Errors: versions not evaluated yet",
            "How far the evaluator is behind the newest version.",
            "none",
            [Query(f"max(fluvial_version{{{TASK}}}) - max(fluvial_evaluated_version{{{TASK}}})", "behind")],
            minimum=0,
        ),
        Panel(
            "Duration",
            "From loading a version until it is evaluated on the held-out data and each of its parts.",
            "s",
            quantiles("fluvial_evaluation_duration_seconds"),
            minimum=0,
        ),
        Panel(
            "Since the last evaluation",
            "Time since an evaluation was last published.",
            "s",
            [Query(since_success("evaluation"), "age")],
            minimum=0,
        ),
    ],
)

BOARD = Board(
    "fluvial-on-call",
    "Fluvial: on call",
    "Where an update's way is broken: rate, errors and duration of each stage, what the defence does, resources.",
    [SYMPTOMS, PUBLISH, VERDICT, WINDOW, VERSION, EVALUATION, DEFENCE, RESOURCES],
)
