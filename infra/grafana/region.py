"""One region from the inside: its partitions, windows, verdicts and what its devices send."""

from __future__ import annotations

from infra.grafana.panels import (
    RATE,
    REGION,
    Board,
    Panel,
    Query,
    Row,
    none_is_zero,
    quantile,
    quantiles,
    rate,
)

PARTITION = "partition {{partition}}"


def _each(metric: str) -> list[Query]:
    return [Query(f"max by (partition) ({metric}{{{REGION}}})", PARTITION)]


PARTITIONS = Row(
    "Partitions",
    [
        Panel(
            "Lag in seconds",
            "How long the oldest record that is not folded yet has been waiting. It grows while a partition is stopped "
            "or nobody has it.",
            "s",
            _each("fluvial_lag_seconds"),
            minimum=0,
            thresholds=((30, "yellow"), (120, "red")),
        ),
        Panel(
            "Lag in records",
            "Records that are not folded yet.",
            "none",
            _each("fluvial_lag_records"),
            minimum=0,
        ),
        Panel(
            "Stopped",
            "1 while a partition's worker stands at a record that it must not fold; its log says why, "
            "and `fluvial status`.",
            "none",
            _each("fluvial_partition_stopped"),
            minimum=0,
            maximum=1,
            thresholds=((1, "red"),),
        ),
        Panel(
            "Offsets",
            "The next offset to fold, and the end of the log. Two lines that part are a lag; an end that falls is a "
            "log that was cut.",
            "none",
            [
                Query(f"max by (partition) (fluvial_next_offset{{{REGION}}})", "next of {{partition}}"),
                Query(f"max by (partition) (fluvial_log_end_offset{{{REGION}}})", "end of {{partition}}"),
            ],
        ),
        Panel(
            "Records folded",
            "A second. Zero with a lag above 0 is a partition that is stuck.",
            "cps",
            [Query(rate("fluvial_records_folded_total", REGION, "partition"), PARTITION)],
            minimum=0,
        ),
        Panel(
            "Version",
            "The version that each partition has seen the barrier of. One that stays behind refuses what is new.",
            "none",
            _each("fluvial_partition_version"),
        ),
    ],
)

WINDOWS = Row(
    "Windows",
    [
        Panel(
            "Fill",
            "Updates in the open window, as a share of those that close it.",
            "percentunit",
            _each("fluvial_window_fill_ratio"),
            minimum=0,
            maximum=1,
        ),
        Panel(
            "Age",
            "How long the open window has been open; 0 when it is empty.",
            "s",
            _each("fluvial_window_age_seconds"),
            minimum=0,
        ),
        Panel(
            "Windows closed",
            "Windows that closed, a second.",
            "cps",
            [Query(rate("fluvial_windows_total", REGION, "partition"), PARTITION)],
            minimum=0,
        ),
        Panel(
            "From close to published",
            "Objects stored, verdicts and aggregate acknowledged.",
            "s",
            quantiles("fluvial_window_publish_seconds", REGION),
            minimum=0,
        ),
        Panel(
            "Age of the newest window",
            "A worker that comes back folds again from here: the older, the longer it takes.",
            "s",
            [
                Query(
                    f"time() - max by (partition) (fluvial_snapshot_timestamp_seconds{{{REGION}}})",
                    PARTITION,
                )
            ],
            minimum=0,
        ),
        Panel(
            "Stops",
            "Stopped partitions by the error that they stopped with.",
            "cps",
            [Query(none_is_zero(rate("fluvial_partition_stops_total", REGION, "error_id")), "{{error_id}}")],
            minimum=0,
        ),
    ],
)

VERDICTS = Row(
    "Verdicts",
    [
        Panel(
            "By outcome",
            "Verdicts a second. Canaries' updates are not among them.",
            "cps",
            [Query(rate("fluvial_verdicts_total", REGION, "outcome"), "{{outcome}}")],
            width=12,
            measures=("M5", "M8"),
            stacked=True,
            minimum=0,
        ),
        Panel(
            "From log to verdict",
            "From the broker's time of an update until its verdict is handed to the producer.",
            "s",
            quantiles("fluvial_verdict_seconds", REGION),
            width=6,
            measures=("M2",),
            minimum=0,
        ),
        Panel(
            "Fold",
            "Decoding, checking and folding one record.",
            "s",
            quantiles("fluvial_fold_seconds", REGION),
            width=6,
            minimum=0,
        ),
        Panel(
            "Canary",
            "What a device of this region waits for its verdict.",
            "s",
            quantiles("fluvial_canary_verdict_seconds", REGION),
            measures=("M2",),
            minimum=0,
        ),
        Panel(
            "Canary: updates and failures",
            "The canary's updates a second, the worker's verdicts on them, and its failures.",
            "cps",
            [
                Query(rate("fluvial_canary_published_total", REGION), "published"),
                Query(rate("fluvial_canary_verdicts_total", REGION, "outcome"), "judged {{outcome}}"),
                Query(
                    none_is_zero(rate("fluvial_canary_failures_total", REGION, "reason")), "failed {{reason}}"
                ),
            ],
            minimum=0,
        ),
        Panel(
            "Published by the fleet",
            "Updates a second that the broker acknowledged, by codec.",
            "cps",
            [Query(rate("fluvial_updates_published_total", REGION, "codec"), "{{codec}}")],
            minimum=0,
        ),
    ],
)

UPDATES = Row(
    "What devices send",
    [
        Panel(
            "Staleness",
            "Versions between an update's base and the partition's version. Stale updates weigh less, and none beyond "
            "the policy's limit counts.",
            "none",
            [
                *quantiles("fluvial_update_staleness_versions", REGION),
                Query(
                    f"{rate('fluvial_update_staleness_versions_sum', REGION)} "
                    f"/ {rate('fluvial_update_staleness_versions_count', REGION)}",
                    "mean",
                ),
            ],
            measures=("M6",),
            minimum=0,
        ),
        Panel(
            "Norm: deviations from the median",
            "How unlike the others' an update's norm is, in robust standard deviations. A tail that rises comes before "
            "anomalous verdicts.",
            "none",
            quantiles("fluvial_update_norm_deviations", REGION),
            measures=("M8",),
        ),
        Panel(
            "Size of an update",
            "The whole record, 99 %, by codec, and the mean.",
            "bytes",
            [
                Query(quantile(0.99, "fluvial_update_bytes", REGION, "codec"), "{{codec}}, 99 %"),
                Query(
                    f"{rate('fluvial_update_bytes_sum', REGION)} / {rate('fluvial_update_bytes_count', REGION)}",
                    "mean",
                ),
            ],
            measures=("M4",),
            minimum=0,
        ),
        Panel(
            "Active devices",
            "Distinct devices that contributed to any live version, by partition.",
            "none",
            _each("fluvial_devices_active"),
            measures=("M1",),
            minimum=0,
        ),
        Panel(
            "Participation",
            "Devices that contributed to the version before the current one, as a share of the active ones.",
            "percentunit",
            [
                Query(
                    f"sum(fluvial_devices_contributing{{{REGION}}}) / sum(fluvial_devices_active{{{REGION}}})",
                    "participation",
                )
            ],
            measures=("M1",),
            minimum=0,
            maximum=1,
        ),
        Panel(
            "Bytes published",
            "By the fleet, a second.",
            "Bps",
            [Query(f"sum(rate(fluvial_updates_published_bytes_total{{{REGION}}}{RATE}))", "bytes")],
            measures=("M4",),
            minimum=0,
        ),
    ],
)

BOARD = Board(
    "fluvial-region",
    "Fluvial: debug one region",
    "Partitions, windows, verdicts and updates of one region.",
    [PARTITIONS, WINDOWS, VERDICTS, UPDATES],
    by_region=True,
)
