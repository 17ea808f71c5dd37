"""Recovery: how long a partition, or the chain of versions, stands still when a process dies, is stopped or is paused.

    python benchmarks/recovery.py [--times 5] [--only killed_restarted,merger_killed] [--json]

Two workers share four partitions; every partition has an open window when it happens. For a worker, time runs from the
signal until every partition has a verdict on a record that was appended after the signal (the slowest partition
counts); for the merger, from the signal to the announcement of a version made of such records. Both ends are wall-clock
times of this machine: ours and the broker's LogAppendTime. Starting an interpreter and its imports is part of it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from backends.environment import child_environment
from backends.kafka.consumer_groups import describe_groups
from backends.kafka.reading import LogReader
from backends.settings import Settings
from backends.store.factory import open_object_store
from backends.store.task_store import TaskStore
from benchmarks import machine, synthetic
from fluvial.local.stack import LocalStack
from fluvial.terminal.output import Output
from schemas.envelope import open_envelope
from schemas.topics import models_topic, updates_topic, verdicts_topic
from schemas.verdicts import decode_verdict

POLICY = {
    "window": {"updates_max": 64, "seconds_max": 0.5},
    "buffer": {"updates": 20, "seconds_max": 2.0},
    "defence": {"kind": "none"},
    "staleness": {"versions_max": 100},
}
PARAMETERS = 10_000
PARTITIONS = 4
DEVICES = 400
BURST = 40
WORKERS = ("worker-0", "worker-1")
MERGER = "merger-0"
PAUSE_S = 12.0
WAIT_S = 120.0
POLL_S = 0.05


class Federation:
    """A task with two workers and a merger, and devices that publish when they are asked to."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.made = synthetic.create(
            settings,
            task="recovery",
            parameters=PARAMETERS,
            partitions=PARTITIONS,
            devices=DEVICES,
            policy=POLICY,
        )
        self.store = TaskStore(open_object_store(settings.store), self.made.task)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._tensors = synthetic.tensors_of(self.made.layout, 1)
        self._devices = itertools.cycle(self.made.devices)
        self._numbers = itertools.count()

    def start(self, name: str) -> None:
        """Start a worker or the merger by its name."""
        kind = name.partition("-")[0]
        region = ["--region", self.made.region] if kind == "worker" else []
        with (self.settings.home / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [
                    sys.executable, "-m", "fluvial.cli", "--home", str(self.settings.home),
                    kind, "--task", self.made.task, *region, "--name", name,
                ],
                stderr=log, stdout=log, env=child_environment(), cwd=Path(__file__).parents[1],
            )  # fmt: skip

    def signal(self, name: str, number: signal.Signals) -> float:
        """Send a signal; the wall-clock time just before, in milliseconds."""
        at_ms = time.time() * 1000
        self.processes[name].send_signal(number)
        return at_ms

    def end(self) -> None:
        """Kill what still runs."""
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()

    def settle(self) -> None:
        """Wait until both workers have their halves, every record has a verdict, and windows are open again."""
        group = f"fluvial-{self.made.task}-{self.made.region}"

        def shared() -> bool:
            found = describe_groups(self.settings, [group])[0]
            given = [p for member in found.members for p in member.partitions]
            return (found.state, len(found.members), len(given)) == ("stable", len(WORKERS), PARTITIONS)

        until(shared, "the workers share the partitions")
        self.verdicts_after(self.probe())
        self.burst()

    def burst(self) -> None:
        """Updates of ``BURST`` devices on the newest version."""
        head = self.store.head()
        version = head.version if head else 0
        sha256 = self.store.manifest(version).model_sha256 if version else self.made.genesis.model_sha256
        for device in itertools.islice(self._devices, BURST):
            record = {
                "task": self.made.task, "region": self.made.region, "device_id": device,
                "base_version": version, "base_sha256": sha256, "update_id": f"u-{next(self._numbers)}",
                "num_examples": 1, "local_loss": 0.0, "codec": "int8", "tensors": self._tensors,
                "client_metrics": {}, "created_at": round(time.time() * 1000),
            }  # fmt: skip
            self.made.publish(device, self.made.devices[device].sign("ClientUpdate", record))
        self.made.writer.flush()

    def probe(self) -> dict[int, int]:
        """One record into every partition; its offset there."""
        topic = updates_topic(self.made.task, self.made.region)
        return {
            p: self.made.writer.append_now(topic, b"probe", partition=p).offset for p in range(PARTITIONS)
        }

    def verdicts_after(self, probes: dict[int, int]) -> float:
        """Wall-clock milliseconds at which the last partition's probe had its verdict."""
        topic = verdicts_topic(self.made.task, self.made.region)
        with LogReader(self.settings, "recovery-verdicts") as reader:
            return max(float(self._verdict_ms(reader, topic, *probe)) for probe in probes.items())

    def _verdict_ms(self, reader: LogReader, topic: str, partition: int, offset: int) -> int:
        # An offset has one verdict at least, so its verdict never stands before the same offset.
        start = min(offset, reader.bounds(topic, partition)[1])
        for record in reader.follow({(topic, partition): start}, timeout_s=WAIT_S):
            if record is not None and decode_verdict(record.value or b"").offset == offset:
                return record.timestamp_ms
        message = f"no verdict on {partition}@{offset} within {WAIT_S:g} s; logs in {self.settings.home}"
        raise SystemExit(message)

    def version_after(self, version: int) -> float:
        """Wall-clock milliseconds at which a version above ``version`` was announced."""
        with LogReader(self.settings, "recovery-versions") as reader:
            for record in reader.follow({(models_topic(self.made.task), 0): 0}, timeout_s=WAIT_S):
                if record is not None and open_envelope(record.value or b"").record["version"] > version:
                    return float(record.timestamp_ms)
        message = f"no version after {version} within {WAIT_S:g} s; logs in {self.settings.home}"
        raise SystemExit(message)


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition, with a limit."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {WAIT_S:g} s: {what}")
        time.sleep(POLL_S)


def killed_restarted(run: Federation, name: str) -> float:
    """SIGKILL, and the same command again at once."""
    at_ms = run.signal(name, signal.SIGKILL)
    run.start(name)
    return run.verdicts_after(run.probe()) - at_ms


def killed(run: Federation, name: str) -> float:
    """SIGKILL, and nobody starts it again: the other worker takes over."""
    at_ms = run.signal(name, signal.SIGKILL)
    taken_ms = run.verdicts_after(run.probe()) - at_ms
    run.start(name)
    return taken_ms


def stopped_restarted(run: Federation, name: str) -> float:
    """SIGTERM, and the same command again as soon as it has ended: one step of a rolling upgrade."""
    at_ms = run.signal(name, signal.SIGTERM)
    run.processes[name].wait(WAIT_S)
    run.start(name)
    return run.verdicts_after(run.probe()) - at_ms


def stopped(run: Federation, name: str) -> float:
    """SIGTERM, and nobody starts it again: scaling down."""
    at_ms = run.signal(name, signal.SIGTERM)
    taken_ms = run.verdicts_after(run.probe()) - at_ms
    run.processes[name].wait(WAIT_S)
    run.start(name)
    return taken_ms


def joined(run: Federation, name: str) -> float:
    """A worker that has been away for long comes back: scaling up. From its start to a verdict everywhere.

    The group is waited for, so this is the time until the partitions are shared anew.
    """
    run.signal(name, signal.SIGTERM)
    run.processes[name].wait(WAIT_S)
    run.verdicts_after(run.probe())
    at_ms = time.time() * 1000
    run.start(name)
    run.settle()
    return run.verdicts_after(run.probe()) - at_ms


def paused(run: Federation, name: str) -> float:
    """SIGSTOP for longer than the session timeout, then SIGCONT: the other takes over, and the zombie joins again."""
    at_ms = run.signal(name, signal.SIGSTOP)
    taken_ms = run.verdicts_after(run.probe()) - at_ms
    time.sleep(max(0.0, PAUSE_S - taken_ms / 1000))
    run.signal(name, signal.SIGCONT)
    return taken_ms


def merger_killed(run: Federation, _: str) -> float:
    """SIGKILL of the merger, and the same command again at once."""
    head = run.store.head()
    version = head.version if head else 0
    at_ms = run.signal(MERGER, signal.SIGKILL)
    run.start(MERGER)
    run.burst()
    return run.version_after(version) - at_ms


SCENARIOS: dict[str, Callable[[Federation, str], float]] = {
    one.__name__: one
    for one in (killed_restarted, killed, stopped_restarted, stopped, joined, paused, merger_killed)
}


def measure(settings: Settings, names: list[str], times: int) -> Iterator[dict[str, Any]]:
    """Each scenario ``times`` times, the workers in turn."""
    run = Federation(settings)
    try:
        for name in (*WORKERS, MERGER):
            run.start(name)
        run.settle()
        for name in names:
            seconds = []
            for victim, _ in zip(itertools.cycle(WORKERS), range(times)):
                run.settle()
                seconds.append(SCENARIOS[name](run, victim) / 1000)
            yield {
                "scenario": name,
                "times": times,
                "p50_s": statistics.median(seconds),
                "max_s": max(seconds),
                "seconds": [round(one, 3) for one in seconds],
            }
    finally:
        run.end()


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=5, help="how often each thing happens")
    parser.add_argument("--only", default=",".join(SCENARIOS), help="scenarios, with commas: %(default)s")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    names = options.only.split(",")
    if unknown := set(names) - set(SCENARIOS):
        parser.error(f"unknown scenarios: {', '.join(sorted(unknown))}")
    if not options.json:
        print(f"{machine.describe()}\n{len(WORKERS)} workers, {PARTITIONS} partitions, one merger")
        print("scenario             times    p50 s    max s")
    rows = []
    with tempfile.TemporaryDirectory(prefix="fluvial-bench-") as folder:
        stack = LocalStack(Path(folder) / ".fluvial", reporter=Output(), secured=False)
        try:
            for row in measure(stack.up(), names, options.times):
                rows.append(row)
                if not options.json:
                    figures = f"{row['times']:5d}  {row['p50_s']:7.2f}  {row['max_s']:7.2f}"
                    print(f"{row['scenario']:20s} {figures}", flush=True)
        finally:
            stack.down()
    if options.json:
        print(json.dumps({"machine": machine.describe(), "scenarios": rows}, indent=2))


if __name__ == "__main__":
    main()
