"""Live: updates that come at a steady rate, judged by one worker; the time from publishing to the verdict.

    python benchmarks/live.py [--rates 125 250 500] [--seconds 8] [--window 64] [--json]

Updates of 100,000 int8 parameters are signed before, and published at each rate in turn to one worker that is up. Times
run from just before the append to the verdict's LogAppendTime. CPU is the operating system's account of each process
while a rate lasts; taking updates in is the broker's part of it. The highest rate at which verdicts keep up is the live
limit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import psutil

from backends.kafka.reading import LogReader
from benchmarks import ingest, machine, synthetic
from fluvial.local.stack import LocalStack
from fluvial.terminal.output import Output
from schemas.topics import verdicts_topic
from schemas.verdicts import decode_verdict

DEVICES = 400
PARAMETERS = 100_000
SETTLED_S = 3.0
VERDICTS_TIMEOUT_S = 60.0


def updates(made: synthetic.Synthetic) -> Iterator[tuple[str, bytes]]:
    """Every device's updates, signed; one for each base version."""
    tensors = [synthetic.tensors_of(made.layout, seed) for seed in range(8)]
    names = list(made.devices)
    for i in range(len(names) * len(ingest.VERSIONS)):
        device = names[i % len(names)]
        yield device, made.update(device, i // len(names), tensors[i % len(tensors)], f"u-{i}")
    raise SystemExit("every device has contributed to every version: fewer rates, or fewer seconds")


def at_rate(
    made: synthetic.Synthetic,
    source: Iterator[tuple[str, bytes]],
    rate: float,
    seconds: float,
    processes: dict[str, psutil.Process],
) -> dict[str, Any]:
    """Publish at ``rate``, wait for the verdicts, and account for their times and for the processes' CPU."""
    ready = [next(source) for _ in range(round(rate * seconds))]
    before = {name: _cpu_s(process) for name, process in processes.items()}
    published, late_s = [], 0.0
    start_s = time.monotonic()
    for i, (device, value) in zip(count(), ready, strict=False):
        wait_s = start_s + i / rate - time.monotonic()
        if wait_s > 0:
            time.sleep(wait_s)
        late_s = max(late_s, -wait_s)
        published.append((time.time() * 1000, made.publish(device, value)))
        made.writer.poll()
    made.writer.flush()
    places = {
        ((position := future.result()).partition, position.offset): at_ms for at_ms, future in published
    }
    times_ms = _verdict_times(made, places)
    percentiles = statistics.quantiles(times_ms, n=100)
    return {
        "rate": rate,
        "updates": len(times_ms),
        "publisher_late_s": late_s,
        "p50_ms": percentiles[49],
        "p90_ms": percentiles[89],
        "p99_ms": percentiles[98],
        "max_ms": max(times_ms),
        "cpu_ms_per_update": {
            name: 1000 * (_cpu_s(process) - before[name]) / len(times_ms)
            for name, process in processes.items()
        },
    }


def _verdict_times(made: synthetic.Synthetic, places: dict[tuple[int, int], float]) -> list[float]:
    topic = verdicts_topic(made.task, made.region)
    waiting, times_ms = dict(places), []
    deadline_s = time.monotonic() + VERDICTS_TIMEOUT_S
    with LogReader(made.settings, "benchmark-live") as reader:
        nexts = {
            partition: min(offset for number, offset in places if number == partition)
            for partition in {number for number, _ in places}
        }
        while waiting:
            if time.monotonic() > deadline_s:
                raise SystemExit(f"{len(waiting)} verdicts did not come within {VERDICTS_TIMEOUT_S:g} s")
            for partition, start in nexts.items():
                end = reader.bounds(topic, partition)[1]
                for record in reader.read(topic, partition, start, end):
                    at_ms = waiting.pop((partition, decode_verdict(record.value or b"").offset), None)
                    if at_ms is not None:
                        times_ms.append(record.timestamp_ms - at_ms)
                nexts[partition] = max(start, end)
            time.sleep(0.05)
    return times_ms


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rates", type=float, nargs="+", default=[125.0, 250.0, 500.0])
    parser.add_argument("--seconds", type=float, default=8.0, help="of each rate")
    parser.add_argument("--window", type=int, default=64, help="updates a window")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="fluvial-bench-") as folder:
        stack = LocalStack(Path(folder) / ".fluvial", reporter=Output(), secured=False)
        try:
            settings = stack.up()
            window = {**ingest.POLICY["window"], "updates_max": options.window, "seconds_max": 1.0}
            made = synthetic.create(
                settings,
                task="ingest",
                parameters=PARAMETERS,
                partitions=ingest.PARTITIONS,
                devices=DEVICES,
                policy=ingest.POLICY | {"window": window},
            )
            synthetic.write_barriers(made, len(ingest.VERSIONS))
            worker = ingest.start_worker(settings, made.task, "live-1")
            source = updates(made)
            processes = {"worker": psutil.Process(worker.pid)} | {
                service.name: psutil.Process(service.pid) for service in stack.status() if service.pid
            }
            try:
                at_rate(made, source, 50.0, SETTLED_S, processes)  # until it is up and compiled
                rows = [at_rate(made, source, rate, options.seconds, processes) for rate in options.rates]
            finally:
                worker.terminate()
                worker.wait(timeout=30)
        finally:
            stack.down()
    if options.json:
        print(json.dumps({"machine": machine.describe(), "window": options.window, "runs": rows}, indent=2))
        return
    print(
        f"{machine.describe()}\nupdates of {PARAMETERS} int8 parameters, windows of {options.window}, one worker"
    )
    for row in rows:
        cpu = "  ".join(f"{name} {ms:.2f} ms" for name, ms in row["cpu_ms_per_update"].items())
        print(
            f"{row['rate']:6g}/s  p50 {row['p50_ms']:5.0f}  p90 {row['p90_ms']:5.0f}  p99 {row['p99_ms']:5.0f}  "
            f"max {row['max_ms']:5.0f} ms   publisher {row['publisher_late_s']:.2f} s late   an update: {cpu}"
        )


if __name__ == "__main__":
    main()
