"""Is the model getting better, and what does it cost?"""

from __future__ import annotations

from infra.grafana.panels import (
    RATE,
    TASK,
    Board,
    Panel,
    Query,
    Row,
    none_is_zero,
    quantiles,
    rate,
    since_success,
)

ACCEPTED = f'{TASK},outcome="accepted"'
ANOMALOUS = f'{TASK},outcome="anomalous"'
UPDATE_OUTCOMES = f'{TASK},outcome!~"control|skipped|aggregated"'
AGGREGATORS = f'{TASK},role=~"worker|merger"'
ACCEPT_RATE = (
    f"{rate('fluvial_verdicts_total', ACCEPTED)} / {rate('fluvial_verdicts_total', UPDATE_OUTCOMES)}"
)
METRIC = f'fluvial_model_metric{{{TASK},better!=""}}'
"""The series of the number that judges the task; those of its other numbers have no ``better``."""
SECONDS_A_DAY = 86_400

QUALITY = Row(
    "Is the model getting better?",
    [
        Panel(
            "Version",
            "The newest version of the model that a merger committed.",
            "none",
            [Query(f"max(fluvial_version{{{TASK}}})", "version")],
            kind="stat",
            width=4,
            height=5,
        ),
        Panel(
            "The task's metric",
            "The number that judges the task, of the newest evaluated version on held-out data. Its name says which "
            "one it is, and `better` whether higher or lower is better.",
            "none",
            [Query(f"max by (name, better) ({METRIC})", "{{name}} ({{better}} is better)")],
            kind="stat",
            width=5,
            height=5,
            decimals=4,
        ),
        Panel(
            "Versions to target",
            "How many versions the model needed to reach its target. Empty until a target is set and reached.",
            "none",
            [Query(f"max(fluvial_versions_to_target{{{TASK}}})", "versions")],
            kind="stat",
            width=5,
            height=5,
            measures=("M10",),
            no_value="not reached",
        ),
        Panel(
            "Age of the newest version",
            "Time since a version was last committed. It grows without end when training stands still.",
            "s",
            [Query(since_success("version"), "age")],
            kind="stat",
            width=5,
            height=5,
        ),
        Panel(
            "Differences in the last audit",
            "What an independent recomputation of every version found. Anything above 0 means that a checkpoint or a "
            "log is not what was signed.",
            "none",
            [Query(f"max(fluvial_audit_findings{{{TASK}}})", "differences")],
            kind="stat",
            width=5,
            height=5,
            no_value="no auditor runs",
            thresholds=((1, "red"),),
        ),
        Panel(
            "Validation loss",
            "Mean loss of the newest evaluated version on held-out data; lower is better.",
            "none",
            [Query(f"max(fluvial_validation_loss{{{TASK}}})", "loss")],
            width=12,
            measures=("M3",),
            decimals=3,
        ),
        Panel(
            "The task's metric, and its worst decile",
            "The metric over all held-out examples, and over the tenth of the cohorts for which the model is worst. A "
            "gap that grows means that the model gets better for some at the cost of others.",
            "none",
            [
                Query(f"max by (name) ({METRIC})", "{{name}}, all"),
                Query(
                    f"max by (name) (fluvial_model_metric_worst_decile{{{TASK}}})", "{{name}}, worst decile"
                ),
            ],
            width=12,
            measures=("M3",),
            decimals=4,
        ),
    ],
)

PARTICIPATION = Row(
    "Who takes part?",
    [
        Panel(
            "Participation",
            "Devices that contributed to the version before the current one, as a share of those active over the live "
            "versions.",
            "percentunit",
            [
                Query(
                    f"sum(fluvial_devices_contributing{{{TASK}}}) / sum(fluvial_devices_active{{{TASK}}})",
                    "all",
                ),
                Query(
                    f"sum by (region) (fluvial_devices_contributing{{{TASK}}}) "
                    f"/ sum by (region) (fluvial_devices_active{{{TASK}}})",
                    "{{region}}",
                ),
            ],
            measures=("M1",),
            minimum=0,
            maximum=1,
        ),
        Panel(
            "Active devices",
            "Distinct devices that contributed to any live version, by region.",
            "none",
            [Query(f"sum by (region) (fluvial_devices_active{{{TASK}}})", "{{region}}")],
            measures=("M1",),
            stacked=True,
            minimum=0,
        ),
        Panel(
            "Accept rate",
            "Share of the judged updates that count. A drop means that devices, their keys or their bases are wrong, "
            "or that somebody attacks.",
            "percentunit",
            [Query(ACCEPT_RATE, "accepted")],
            measures=("M5",),
            minimum=0,
            maximum=1,
        ),
        Panel(
            "Accepted updates a day",
            "By the present rate of accepted updates or versions.",
            "none",
            [
                Query(
                    f"{rate('fluvial_verdicts_total', ACCEPTED, 'region')} * {SECONDS_A_DAY}",
                    "{{region}}",
                )
            ],
            stacked=True,
            minimum=0,
        ),
        Panel(
            "From a device to a version",
            "How long an accepted update takes from its publication until a version holds it.",
            "s",
            quantiles("fluvial_publish_to_version_seconds"),
            measures=("M2",),
            minimum=0,
        ),
        Panel(
            "Privacy budget spent",
            "Epsilon of the differential privacy policy. Empty: no policy has a budget yet.",
            "none",
            [Query(f"max(fluvial_privacy_epsilon{{{TASK}}})", "epsilon")],
            measures=("M7",),
            no_value="no budget in the policy",
        ),
    ],
)

COST = Row(
    "What does it cost?",
    [
        Panel(
            "Bytes received a day",
            "Updates as they stand in the log, at the present rate, by region.",
            "bytes",
            [
                Query(
                    f"{rate('fluvial_update_bytes_sum', TASK, 'region')} * {SECONDS_A_DAY}",
                    "{{region}}",
                )
            ],
            measures=("M4",),
            stacked=True,
            minimum=0,
        ),
        Panel(
            "Bytes an update",
            "Mean size of an update's record.",
            "bytes",
            [
                Query(
                    f"{rate('fluvial_update_bytes_sum')} / {rate('fluvial_update_bytes_count')}",
                    "mean",
                )
            ],
            measures=("M4",),
            minimum=0,
        ),
        Panel(
            "Bytes stored a version",
            "What one version adds to the object store: manifest, model, optimizer, facts.",
            "bytes",
            [
                Query(
                    f"{rate('fluvial_version_stored_bytes_total')} / {rate('fluvial_version_commits_total')}",
                    "mean",
                )
            ],
            minimum=0,
        ),
        Panel(
            "CPU an accepted update",
            "Processor seconds of workers and mergers for one update that counts.",
            "s",
            [
                Query(
                    f"sum(rate(process_cpu_seconds_total{{{AGGREGATORS}}}{RATE})) "
                    f"/ {rate('fluvial_verdicts_total', ACCEPTED)}",
                    "CPU seconds",
                )
            ],
            measures=("M9",),
            minimum=0,
        ),
        Panel(
            "Versions an hour",
            "By the present rate of accepted updates or versions.",
            "none",
            [Query(f"{rate('fluvial_version_commits_total')} * 3600", "versions")],
            minimum=0,
        ),
        Panel(
            "Refused as anomalous",
            "Share of the judged updates whose content is unlike the others'. Attackers, or a faulty device model.",
            "percentunit",
            [
                Query(
                    f"({none_is_zero(rate('fluvial_verdicts_total', ANOMALOUS))}) "
                    f"/ {rate('fluvial_verdicts_total', UPDATE_OUTCOMES)}",
                    "anomalous",
                )
            ],
            measures=("M8",),
            minimum=0,
        ),
    ],
)

BOARD = Board(
    "fluvial-executive",
    "Fluvial: is it getting better, what does it cost",
    "Quality, participation and cost of one training task.",
    [QUALITY, PARTICIPATION, COST],
    span="now-6h",
    refresh="1m",
)
