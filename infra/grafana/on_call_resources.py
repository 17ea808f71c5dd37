"""The last row of the page for people on call: what the processes use, and what audits find."""

from __future__ import annotations

from infra.grafana.executive import AGGREGATORS
from infra.grafana.panels import (
    RATE,
    TASK,
    Panel,
    Query,
    Row,
    none_is_zero,
    quantile,
    rate,
)

RESOURCES = Row(
    "Resources",
    [
        Panel(
            "CPU of workers and mergers",
            "Cores that each process uses.",
            "none",
            [
                Query(
                    f"sum by (process) (rate(process_cpu_seconds_total{{{AGGREGATORS}}}{RATE}))",
                    "{{process}}",
                )
            ],
            measures=("M9",),
            minimum=0,
        ),
        Panel(
            "Memory",
            "Resident memory of each process.",
            "bytes",
            [Query(f"max by (process) (process_resident_memory_bytes{{{TASK}}})", "{{process}}")],
            measures=("M9",),
            minimum=0,
        ),
        Panel(
            "Disk free",
            "Free share of the file system that holds the local state, the fullest machine.",
            "percentunit",
            [Query(f"min(fluvial_disk_free_bytes{{{TASK}}} / fluvial_disk_size_bytes{{{TASK}}})", "free")],
            minimum=0,
            maximum=1,
        ),
        Panel(
            "Object store: duration",
            "99 % of each operation.",
            "s",
            [Query(quantile(0.99, "fluvial_store_operation_seconds", TASK, "operation"), "{{operation}}")],
            minimum=0,
        ),
        Panel(
            "Kafka: duration",
            "From handing a record to the producer to its acknowledgement, 99 %, by kind of topic.",
            "s",
            [Query(quantile(0.99, "fluvial_kafka_produce_seconds", TASK, "topic"), "{{topic}}")],
            minimum=0,
        ),
        Panel(
            "Errors of store and Kafka",
            "Operations that failed, by the error.",
            "cps",
            [
                Query(
                    none_is_zero(rate("fluvial_store_errors_total", TASK, "operation, error_id")),
                    "store {{operation}} {{error_id}}",
                ),
                Query(
                    none_is_zero(rate("fluvial_kafka_errors_total", TASK, "topic, error_id")),
                    "Kafka {{topic}} {{error_id}}",
                ),
            ],
            minimum=0,
        ),
        Panel(
            "Open files",
            "File descriptors of each process.",
            "none",
            [Query(f"max by (process) (process_open_fds{{{TASK}}})", "{{process}}")],
            minimum=0,
        ),
        Panel(
            "Certificates expire in",
            "The certificate of each process; one that has expired signs what nobody believes.",
            "s",
            [
                Query(
                    f"min by (process) (fluvial_certificate_expires_timestamp_seconds{{{TASK}}}) - time()",
                    "{{process}}",
                )
            ],
        ),
        Panel(
            "Audit",
            "Differences that the last audit found, and how many versions it recomputed.",
            "none",
            [
                Query(f"max(fluvial_audit_findings{{{TASK}}})", "differences"),
                Query(f"max(fluvial_audit_versions{{{TASK}}})", "versions"),
            ],
            minimum=0,
            no_value="no auditor runs",
        ),
    ],
)
