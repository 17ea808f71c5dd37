"""Edges: bytes upward and publish → announced version, with devices in a region and the same below an edge of it.

    python benchmarks/edges.py [--seconds 15] [--rate 40] [--json]

One worker, one merger, 10k parameters, windows of at most a second, K = 20; the edge's Kafka is the region's. Upward is
what stands in the region's log of updates, or of edges' windows: the values of the records, uncompressed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from aggregation.fold.events import EdgeAggregate
from backends.kafka.admin import declare_topics
from backends.kafka.reading import LogReader
from backends.keys import issue, load_key_pair
from backends.settings import Settings
from backends.store.factory import open_object_store
from backends.store.task_store import TaskStore
from backends.tasks import keys_folder
from benchmarks import latency, machine, synthetic
from fluvial.local.stack import LocalStack
from fluvial.reading.replay import read_aggregates
from fluvial.terminal.output import Output
from schemas.certificates import Role
from schemas.envelope import kind_of, open_envelope
from schemas.records import decode_record
from schemas.topics import aggregates_topic, edge_models_topic, topics_of_edge, updates_topic

EDGE = "eu.e1"
POLICY: dict[str, Any] = {
    "window": {"updates_max": 64, "seconds_max": 1.0},
    "buffer": {"updates": 20, "seconds_max": 5.0},
    "defence": {"kind": "none"},
    "shares": {"per_version": 0, "saved_max": 0},
    "staleness": {"versions_max": 100},
    "edges": {"updates_max": 1000},
}
DEVICES = 400


def made_below(settings: Settings) -> synthetic.Synthetic:
    """A task whose devices are below an edge."""
    made = synthetic.create(
        settings, task="below", parameters=latency.PARAMETERS, partitions=1, devices=0, policy=POLICY
    )
    declare_topics(settings, topics_of_edge(made.task, EDGE))
    keys = keys_folder(settings.home, made.task)
    for role in (Role.WORKER, Role.EDGE):
        issue(keys, EDGE, role, "edge")
    names = [f"d-{number:05d}" for number in range(DEVICES)]
    signers = {
        name: load_key_pair(issue(keys, EDGE, Role.DEVICE, name)).of_task(made.genesis.domain)
        for name in names
    }
    return replace(made, region=EDGE, devices=signers)


def upward(made: synthetic.Synthetic) -> dict[str, Any]:
    """Bytes and records in the region's log, of updates and of edges' windows."""
    topic, found = updates_topic(made.task, "eu"), {"bytes": 0, "records": 0}
    with LogReader(made.settings, "edges-upward") as reader:
        for record in reader.read(topic, 0, *reader.bounds(topic, 0)):
            if kind_of(record.value or b"") in {"ClientUpdate", "EdgeAggregate"}:
                found["bytes"] += len(record.value or b"")
                found["records"] += 1
    return found


def latencies_below(made: synthetic.Synthetic, published: dict[tuple[int, int], float]) -> dict[str, float]:
    """p50 and p99 in milliseconds, by the edge's windows, where they stand above, and what the edge's devices heard."""
    store = TaskStore(open_object_store(made.settings.store), made.task)
    trust, policy = made.genesis.trust, made.genesis.first_policy
    version_at: dict[int, int] = {}  # sequence of the edge's window → version
    with LogReader(made.settings, "edges-results") as reader:
        above, topic = {}, updates_topic(made.task, "eu")
        for record in reader.read(topic, 0, *reader.bounds(topic, 0)):
            event = decode_record(record.value, record.timestamp_ms, trust, policy)
            if isinstance(event, EdgeAggregate):
                above[record.offset] = event.window.sequence
        head = store.head()
        for version in range(1, head.version + 1 if head else 0):
            for tile in store.manifest(version).inputs:
                for offset in range(tile.first_offset, tile.next_offset):
                    if offset in above:
                        version_at[above[offset]] = version
        topic = edge_models_topic(made.task, EDGE)
        announced: dict[int, int] = {}
        for record in reader.read(topic, 0, *reader.bounds(topic, 0)):
            announced.setdefault(open_envelope(record.value or b"").record["version"], record.timestamp_ms)
        end = reader.bounds(aggregates_topic(made.task, EDGE), 0)[1]
        windows = [
            one.aggregate
            for one in read_aggregates(reader, trust.of_edges(), made.task, (EDGE, 0), start=0, end=end)
            if one.aggregate is not None
        ]
    waits = [
        announced[version_at[one.sequence]] - published[(0, offset)]
        for one in windows
        if version_at.get(one.sequence) in announced
        for offset in range(one.first_offset, one.next_offset)
        if (0, offset) in published
    ]
    return latency.summary(waits, len(published))


def run(
    settings: Settings, made: synthetic.Synthetic, commands: list[list[str]], options: argparse.Namespace
) -> dict[tuple[int, int], float]:
    """Publish at a steady rate with these processes; when each update was appended."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        processes += [latency.start(settings, *command) for command in commands]
        time.sleep(4 * latency.SETTLE_S)  # until all have their partitions
        published = latency.publish(made, options.seconds, options.rate)
        time.sleep(latency.SETTLE_S)
        return published
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=30)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--rate", type=float, default=40.0, help="updates a second")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fluvial-bench-") as folder:
        stack = LocalStack(Path(folder) / ".fluvial", reporter=Output(), secured=False)
        try:
            settings = stack.up()
            made = synthetic.create(
                settings,
                task="direct",
                parameters=latency.PARAMETERS,
                partitions=1,
                devices=DEVICES,
                policy=POLICY,
            )
            commands = [["worker", "--task", made.task, "--region", "eu"], ["merger", "--task", made.task]]
            published = run(settings, made, commands, options)
            direct = upward(made) | {"version": latency.latencies(made, published)["version"]}
            below = made_below(settings)
            commands = [
                ["worker", "--task", below.task, "--region", "eu"],
                ["merger", "--task", below.task],
                ["edge", "start", EDGE, "--task", below.task],
            ]
            published = run(settings, below, commands, options)
            edge = upward(below) | {"version": latencies_below(below, published)}
        finally:
            stack.down()
    report: dict[str, dict[str, Any]] = {"direct": direct, "edge": edge}
    if options.json:
        print(json.dumps({"machine": machine.describe(), "rate": options.rate} | report, indent=2))
        return
    print(
        f"{machine.describe()}\n{len(published)} updates at {options.rate:g}/s, windows of at most 1 s, K = 20"
    )
    for name, row in report.items():
        waits = row["version"]
        print(
            f"  {name:6s}  upward {row['bytes'] / 1e6:6.2f} MB in {row['records']:4d} records   publish → version "
            f"p50 {waits['p50_ms']:6.0f} ms  p99 {waits['p99_ms']:6.0f} ms  ({waits['measured']} of {waits['of']})"
        )
    print(f"  {direct['bytes'] / edge['bytes']:.1f} times fewer bytes upward with the edge")


if __name__ == "__main__":
    main()
