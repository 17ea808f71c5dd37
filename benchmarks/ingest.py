"""Ingest: signed int8 updates that are already in Kafka, drained by 1 and by 2 worker processes.

    python benchmarks/ingest.py [--updates 20000] [--devices 200] [--parameters 100000] [--json] [--security]

The same log is drained twice: between the runs only the workers' outputs are deleted. Time runs from the first
update's verdict to the last's (LogAppendTime), so interpreter start-up is left out; CPU is the operating system's own
account of each process over that time.

With ``--security`` one worker drains the log in turn over a Kafka without TLS and over the same one with mutual TLS and
ACLs, and what is told is the ratio.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from backends.environment import child_environment
from backends.kafka.admin import admin_client, declare_topics
from backends.kafka.reading import LogReader
from backends.outages import retry_through_outage
from backends.settings import Settings
from benchmarks import machine, synthetic
from fluvial.local.stack import LocalStack
from fluvial.terminal.output import Output
from schemas.topics import aggregates_topic, topics_of, updates_topic, verdicts_topic

PARTITIONS = 4
DRAIN_TIMEOUT_S = 300.0
POLICY: dict[str, Any] = {
    "updates": {"norm_clip": 10.0},
    "staleness": {"versions_max": 200},
    "window": {"updates_max": 512, "records_max": 10_000, "seconds_max": 30.0},
    "defence": {"kind": "peers", "cosine_min": -1.0},
}


def publish(made: synthetic.Synthetic, updates: int) -> float:
    """Write the log: ``updates`` updates, every device one for each base version. Returns its size in bytes."""
    tensors = [synthetic.tensors_of(made.layout, seed) for seed in range(8)]
    names = list(made.devices)
    size = 0
    for i in range(updates):
        device = names[i % len(names)]
        value = made.update(device, i // len(names), tensors[i % len(tensors)], f"u-{i}")
        size += len(value)
        made.publish(device, value)
    made.writer.flush()
    return size


def drain(made: synthetic.Synthetic, workers: int, updates: int) -> dict[str, Any]:
    """Start ``workers`` processes on the log, wait for the last verdict, and account for time and CPU."""
    settings = made.settings
    broker_and_store = _services(settings.home)
    processes = [start_worker(settings, made.task, f"bench-{workers}-{i}") for i in range(workers)]
    try:
        with LogReader(settings, "benchmark-drain") as reader:
            start_cpu = _await_verdicts(reader, made, 1, processes, broker_and_store)
            end_cpu = _await_verdicts(reader, made, updates, processes, broker_and_store)
            first_ms, last_ms = _times(reader, made)
        peak = max(_peak_rss_mb(process.pid) for process in processes)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=30)
    seconds = (last_ms - first_ms) / 1000
    worker_s, service_s = (end_cpu[i] - start_cpu[i] for i in range(2))
    drained = updates - start_cpu[2]
    return {
        "workers": workers,
        "seconds": seconds,
        "updates_per_second": updates / seconds,
        "worker_cpu_ms_per_update": 1000 * worker_s / drained,
        "all_cpu_ms_per_update": 1000 * (worker_s + service_s) / drained,
        "peak_rss_mb": peak,
    }


def start_worker(settings: Settings, task: str, name: str) -> subprocess.Popen[bytes]:
    """A worker process of the region ``eu``; its log lies in the stack's folder."""
    log = (settings.home / f"{name}.log").open("wb")
    command = [
        sys.executable,
        "-m",
        "fluvial.cli",
        "--home",
        str(settings.home),
        "worker",
        "--task",
        task,
        "--region",
        "eu",
        "--name",
        name,
    ]
    return subprocess.Popen(
        command, stderr=log, stdout=log, env=child_environment(), cwd=Path(__file__).parents[1]
    )


def _await_verdicts(
    reader: LogReader,
    made: synthetic.Synthetic,
    wanted: int,
    processes: list[subprocess.Popen[bytes]],
    services: list[psutil.Process],
) -> tuple[float, float, int]:
    """Wait for ``wanted`` update verdicts (control records have verdicts too); (worker CPU s, service CPU s, count)."""
    topic = verdicts_topic(made.task, made.region)
    updates = updates_topic(made.task, made.region)
    control = made.partitions * len(VERSIONS)
    deadline = time.monotonic() + DRAIN_TIMEOUT_S
    while time.monotonic() < deadline:
        for process in processes:
            if process.poll() is not None:
                raise SystemExit(
                    f"a worker ended with {process.returncode}; see its log in {made.settings.home}"
                )
        ends = [
            retry_through_outage("see how far the workers are", partial(_ends, reader, topic, updates, p))
            for p in range(made.partitions)
        ]
        count = sum(written for written, _ in ends) - control
        done = all(written >= wanted_end for written, wanted_end in ends)
        if count >= wanted and (wanted == 1 or done):
            workers = sum(_cpu_s(psutil.Process(process.pid)) for process in processes)
            return workers, sum(_cpu_s(service) for service in services), count
        time.sleep(0.05)
    raise SystemExit(f"{wanted} verdicts did not come within {DRAIN_TIMEOUT_S} s")


def _ends(reader: LogReader, verdicts: str, updates: str, partition: int) -> tuple[int, int]:
    return reader.bounds(verdicts, partition)[1], reader.bounds(updates, partition)[1]


def _times(reader: LogReader, made: synthetic.Synthetic) -> tuple[int, int]:
    topic = verdicts_topic(made.task, made.region)
    first, last = [], []
    for partition in range(made.partitions):
        low, high = reader.bounds(topic, partition)
        begin = low + len(VERSIONS)  # the barriers stand before the updates, and every offset has one verdict
        first.append(next(reader.read(topic, partition, begin, begin + 1)).timestamp_ms)
        last.append(next(reader.read(topic, partition, high - 1, high)).timestamp_ms)
    return min(first), max(last)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _peak_rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def _services(home: Path) -> list[psutil.Process]:
    return [psutil.Process(service.pid) for service in LocalStack(home).status() if service.pid]


def delete_outputs(made: synthetic.Synthetic) -> None:
    """Delete verdicts and aggregates, so that the log may be drained again."""
    admin = admin_client(made.settings)
    names = [verdicts_topic(made.task, made.region), aggregates_topic(made.task, made.region)]
    for future in admin.delete_topics(names).values():
        future.result()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and any(name in admin.list_topics(timeout=10).topics for name in names):
        time.sleep(0.1)
    declare_topics(made.settings, topics_of(made.task, {made.region: made.partitions}))


def compare_security(made: synthetic.Synthetic, home: Path, updates: int) -> list[dict[str, Any]]:
    """Drain the log by one worker, in turn without TLS and with mutual TLS: the broker is started again between."""
    rows = []
    for secured in (False, True) * SECURITY_ROUNDS:
        settings = LocalStack(home, reporter=Output(), secured=secured).up()
        made = dataclasses.replace(made, settings=settings)
        rows.append({"secured": secured, **drain(made, 1, updates)})
        delete_outputs(made)
    return rows


def security_ratio(rows: list[dict[str, Any]]) -> float:
    """Updates a second with mutual TLS in those without, by the medians of their rounds."""
    plain, secured = (
        statistics.median(row["updates_per_second"] for row in rows if row["secured"] is kind)
        for kind in (False, True)
    )
    return float(secured / plain)


SECURITY_ROUNDS = 3
VERSIONS = range(1, 101)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--updates", type=int, default=20_000)
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--parameters", type=int, default=100_000)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--security", action="store_true", help="compare with mutual TLS, by one worker")
    options = parser.parse_args()
    if options.updates > options.devices * len(VERSIONS):
        parser.error(
            f"a device contributes once a base version: at most {options.devices * len(VERSIONS)} updates"
        )
    with tempfile.TemporaryDirectory(prefix="fluvial-bench-") as folder:
        stack = LocalStack(Path(folder) / ".fluvial", reporter=Output(), secured=False)
        try:
            settings = stack.up()
            made = synthetic.create(
                settings,
                task="ingest",
                parameters=options.parameters,
                partitions=PARTITIONS,
                devices=options.devices,
                policy=POLICY,
            )
            synthetic.write_barriers(made, len(VERSIONS))
            size = publish(made, options.updates)
            if options.security:
                rows = compare_security(made, stack.home, options.updates)
                report = {"machine": machine.describe(), "ratio": security_ratio(rows), "runs": rows}
                print(json.dumps(report, indent=2))
                return
            rows = []
            for workers in (1, 2):
                rows.append(drain(made, workers, options.updates))
                rows[-1]["mb_per_second"] = size / rows[-1]["seconds"] / 1e6
                rows[-1]["float32_gb_per_second"] = (
                    4 * options.parameters * options.updates / rows[-1]["seconds"] / 1e9
                )
                delete_outputs(made)
        finally:
            stack.down()
    report = {
        "machine": machine.describe(),
        "updates": options.updates,
        "parameters": options.parameters,
        "runs": rows,
    }
    if options.json:
        print(json.dumps(report, indent=2))
        return
    print(
        f"{machine.describe()}\n{options.updates} updates of {options.parameters} int8 parameters, "
        f"{size / 1e6:.0f} MB of log"
    )
    print("workers  updates/s   MB/s  float32 GB/s  worker ms/update  all ms/update  peak RSS MB")
    for row in rows:
        print(
            f"{row['workers']:7d}  {row['updates_per_second']:9.0f}  {row['mb_per_second']:5.0f}  "
            f"{row['float32_gb_per_second']:12.2f}  {row['worker_cpu_ms_per_update']:16.3f}  "
            f"{row['all_cpu_ms_per_update']:13.3f}  {row['peak_rss_mb']:11.0f}"
        )


if __name__ == "__main__":
    main()
