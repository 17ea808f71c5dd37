"""Export: records a second from Kafka to Parquet files, and what reading alone costs.

    python benchmarks/export.py [--records 500000] [--json]

A real broker; records like those of windows (some 800 bytes, 40 fields), and one in a hundred an evaluation.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import uuid
from pathlib import Path

from backends.kafka.admin import declare_topics
from backends.kafka.reading import LogReader
from backends.kafka.writing import LogWriter
from backends.settings import Settings
from benchmarks import machine
from fluvial.export.parquet import export_partition
from fluvial.local.stack import LocalStack
from fluvial.terminal.offsets import Start
from fluvial.terminal.output import Output
from schemas.metrics import encode_metric
from schemas.topics import metrics_topic, topics_of

GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "metrics.v1.jsonl"


def fill(settings: Settings, task: str, count: int) -> int:
    """Write the records; their bytes."""
    declare_topics(settings, topics_of(task, {"eu": 1}))
    documents = {one["kind"]: one for one in map(json.loads, GOLDEN.read_text().splitlines())}
    writer = LogWriter(settings, "benchmark-export")
    size = 0
    for number in range(count):
        kind = "evaluation" if number % 100 == 0 else "region_minute" if number % 2 else "window"
        value = encode_metric(documents[kind] | {"at_ms": number, "sequence": number})
        size += len(value)
        writer.append(metrics_topic(task), value, partition=0)
    writer.flush()
    return size


def run(settings: Settings, count: int) -> dict[str, object]:
    """Fill a topic, read it, export it, and export it again."""
    task = f"export-{uuid.uuid4().hex[:8]}"
    size = fill(settings, task, count)
    topic = metrics_topic(task)
    with LogReader(settings, "benchmark-export") as reader, tempfile.TemporaryDirectory() as folder:
        began_s = time.perf_counter()
        read = sum(len(batch) for batch in reader.read_batches(topic, 0, 0, count))
        read_s = time.perf_counter() - began_s
        began_s = time.perf_counter()
        done = export_partition(reader, topic, 0, Start(), Path(folder))
        export_s = time.perf_counter() - began_s
        began_s = time.perf_counter()
        export_partition(reader, topic, 0, Start(), Path(folder))
        again_s = time.perf_counter() - began_s
        stored = sum(path.stat().st_size for path in Path(folder).iterdir())
    if not read == done.records == count:
        message = f"read {read} and exported {done.records} of {count} records"
        raise AssertionError(message)
    return {
        "records": count,
        "record_bytes": round(size / count),
        "read_records_per_s": round(count / read_s),
        "export_records_per_s": round(count / export_s),
        "again_seconds": round(again_s, 3),
        "parquet_bytes_per_record": round(stored / count, 1),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=500_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stack = LocalStack(Path(folder), reporter=Output(quiet=True), secured=False)
        settings = stack.up()
        try:
            result = run(settings, arguments.records)
        finally:
            stack.down()
    if arguments.json:
        print(json.dumps({"machine": machine.describe(), **result}, indent=2))
        return
    print(machine.describe())
    for name, value in result.items():
        print(f"{name:<26} {value}")


if __name__ == "__main__":
    main()
