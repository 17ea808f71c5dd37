"""Latency: publish → verdict, and publish → the announced version that contains the update.

    python benchmarks/latency.py [--seconds 20] [--rate 40] [--json]

One worker, one merger, 10k parameters, K = 20. Devices publish at a steady rate against the newest announced version.
Times run from just before the append to the LogAppendTime of the verdict, or of the version's announcement.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from backends.environment import child_environment
from backends.kafka.reading import LogReader
from backends.settings import Settings
from backends.store.factory import open_object_store
from backends.store.task_store import TaskStore
from benchmarks import machine, synthetic
from fluvial.local.stack import LocalStack
from fluvial.terminal.output import Output
from schemas.envelope import open_envelope
from schemas.topics import models_topic, verdicts_topic
from schemas.verdicts import decode_verdict

POLICY = {
    "window": {"updates_max": 8, "seconds_max": 0.5},
    "buffer": {"updates": 20, "seconds_max": 5.0},
    "defence": {"kind": "none"},
    "staleness": {"versions_max": 100},
}
PARAMETERS = 10_000
DEVICES = 400
SETTLE_S = 6.0


def publish(made: synthetic.Synthetic, seconds: float, rate: float) -> dict[tuple[int, int], float]:
    """Publish steadily; wall-clock milliseconds of each append by (partition, offset)."""
    tensors = synthetic.tensors_of(made.layout, 1)
    store = TaskStore(open_object_store(made.settings.store), made.task)
    waiting = []
    version, sha256 = 0, made.genesis.model_sha256
    with LogReader(made.settings, "latency-announcements") as reader:
        announced = reader.follow({(models_topic(made.task), 0): 0})
        start = time.monotonic()
        for i, device in zip(itertools.count(), itertools.cycle(made.devices)):
            while time.monotonic() < start + i / rate:
                record = next(announced)
                if record is not None:
                    version = max(version, open_envelope(record.value or b"").record["version"])
                    sha256 = store.manifest(version).model_sha256 if version else sha256
            if time.monotonic() > start + seconds:
                break
            value = _update(made, device, version, sha256, tensors, i)
            waiting.append((time.time() * 1000, made.publish(device, value)))
            made.writer.poll()
    made.writer.flush()
    return {((position := future.result()).partition, position.offset): at_ms for at_ms, future in waiting}


def _update(
    made: synthetic.Synthetic, device: str, version: int, sha256: str, tensors: list[Any], i: int
) -> bytes:
    record = {
        "task": made.task, "region": made.region, "device_id": device, "base_version": version, "base_sha256": sha256,
        "update_id": f"u-{i}", "num_examples": 1, "local_loss": 0.0, "codec": "int8", "tensors": tensors,
        "client_metrics": {}, "created_at": round(time.time() * 1000),
    }  # fmt: skip
    return made.devices[device].sign("ClientUpdate", record)


def latencies(
    made: synthetic.Synthetic, published: dict[tuple[int, int], float]
) -> dict[str, dict[str, float]]:
    """p50 and p99 in milliseconds, from the logs alone."""
    verdict_ms: list[float] = []
    accepted: set[tuple[int, int]] = set()
    version_ms: list[float] = []
    store = TaskStore(open_object_store(made.settings.store), made.task)
    with LogReader(made.settings, "latency-results") as reader:
        for partition in range(made.partitions):
            for record in reader.read(
                verdicts_topic(made.task, made.region),
                partition,
                *reader.bounds(verdicts_topic(made.task, made.region), partition),
            ):
                verdict = decode_verdict(record.value or b"")
                at = (partition, verdict.offset)
                if at in published:
                    verdict_ms.append(record.timestamp_ms - published[at])
                    if verdict.outcome == "accepted":
                        accepted.add(at)
        low, high = reader.bounds(models_topic(made.task), 0)
        announced: dict[int, int] = {}
        for record in reader.read(models_topic(made.task), 0, low, high):
            announced.setdefault(open_envelope(record.value or b"").record["version"], record.timestamp_ms)
    head = store.head()
    for version in range(1, head.version + 1 if head else 0):
        for tile in store.manifest(version).inputs:
            for offset in range(tile.first_offset, tile.next_offset):
                if (tile.partition, offset) in accepted and version in announced:
                    version_ms.append(announced[version] - published[(tile.partition, offset)])
    return {"verdict": summary(verdict_ms, len(published)), "version": summary(version_ms, len(accepted))}


def summary(values: list[float], wanted: int) -> dict[str, float]:
    """Percentiles in milliseconds of what was measured, of so many that there were."""
    percentiles = statistics.quantiles(values, n=100)
    return {"p50_ms": percentiles[49], "p99_ms": percentiles[98], "measured": len(values), "of": wanted}


def start(settings: Settings, *arguments: str) -> subprocess.Popen[bytes]:
    """A `fluvial` process with a log of its own."""
    log = (settings.home / f"{arguments[0]}.log").open("wb")
    command = [
        sys.executable,
        "-m",
        "fluvial.cli",
        "--home",
        str(settings.home),
        *arguments,
        "--name",
        arguments[0],
    ]
    return subprocess.Popen(
        command, stderr=log, stdout=log, env=child_environment(), cwd=Path(__file__).parents[1]
    )


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=40.0, help="updates a second")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fluvial-bench-") as folder:
        stack = LocalStack(Path(folder) / ".fluvial", reporter=Output(), secured=False)
        processes: list[subprocess.Popen[bytes]] = []
        try:
            settings = stack.up()
            made = synthetic.create(
                settings, task="latency", parameters=PARAMETERS, partitions=2, devices=DEVICES, policy=POLICY
            )
            processes = [
                start(settings, "worker", "--task", made.task, "--region", made.region),
                start(settings, "merger", "--task", made.task),
            ]
            time.sleep(SETTLE_S)
            published = publish(made, options.seconds, options.rate)
            time.sleep(SETTLE_S)
            report = latencies(made, published)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(timeout=30)
            stack.down()
    if options.json:
        print(json.dumps({"machine": machine.describe(), "rate": options.rate} | report, indent=2))
        return
    print(
        f"{machine.describe()}\n{len(published)} updates at {options.rate:g}/s, K = 20, windows of 8 updates or 0.5 s"
    )
    for name, row in report.items():
        print(
            f"  publish → {name:8s} p50 {row['p50_ms']:7.0f} ms   p99 {row['p99_ms']:7.0f} ms   "
            f"({row['measured']:.0f} of {row['of']:.0f})"
        )


if __name__ == "__main__":
    main()
