"""Observing: what verdicts, metrics and records for analysts cost of a worker's ingest.

    python benchmarks/observing.py [--updates 25000] [--rounds 3] [--json]

One log is folded again and again in this process without Faust, in turn with nothing but its windows published, with
verdicts too, and with all observers of a worker besides, scraped once a second. Ratios are of processor time, round by
round.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import urllib3

from backends.keys import load_key_pair, signer_path
from backends.log import Outgoing, Position, Together
from backends.observer import UNOBSERVED, Observer
from backends.tasks import keys_folder
from benchmarks import ingest, machine, snapshots, synthetic
from fluvial.local.stack import LocalStack
from fluvial.processes.identity import ProcessIdentity
from fluvial.processes.observing import observing
from fluvial.terminal.output import Output
from schemas.certificates import Role
from schemas.objects import sha256_hex
from schemas.topics import verdicts_topic
from stream_apps.process_context import ProcessContext, open_process_context

VARIANTS = ("windows only", "with verdicts", "with all observers")
SCRAPE_EVERY_S = 1.0


class WithoutVerdicts:
    """The worker's producer, which says that it has every verdict and writes none."""

    def __init__(self, writer: Any, topic: str) -> None:
        self._writer, self._topic = writer, topic

    def append(self, topic: str, value: bytes, **options: Any) -> Any:
        """As the writer's, but for verdicts."""
        if topic != self._topic:
            return self._writer.append(topic, value, **options)
        done: Future[Position] = Future()
        done.set_result(Position(topic, options["partition"], 0))
        return done

    def append_together(self, topic: str, records: Sequence[Outgoing], *, partition: int) -> Together:
        """As the writer's, but for verdicts."""
        if topic != self._topic:
            sent: Together = self._writer.append_together(topic, records, partition=partition)
            return sent
        done = Together(records)
        for _ in records:
            done.answer()
        return done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)


@contextmanager
def scraped(address: str) -> Iterator[None]:
    """Somebody asks for ``/metrics`` once a second."""
    ended = threading.Event()

    def scrape() -> None:
        while not ended.wait(SCRAPE_EVERY_S):
            urllib3.request("GET", address, timeout=5)

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def outside_of(made: synthetic.Synthetic, observer: Observer = UNOBSERVED) -> ProcessContext:
    """A worker's outside on the real Kafka and store."""
    keys = keys_folder(made.settings.home, made.task)
    signer = load_key_pair(signer_path(keys, made.region, Role.WORKER, f"worker-{made.region}"))
    genesis_sha256 = sha256_hex(made.genesis.canonical())
    return open_process_context(
        made.settings, made.task, genesis_sha256, signer, "observing", observer=observer
    )


def run(made: synthetic.Synthetic, variant: str) -> tuple[float, float]:
    """Fold the whole log: (seconds by the clock, seconds of processor)."""
    account = snapshots.Account()
    if variant == "with all observers":
        said: list[str] = []
        identity = ProcessIdentity(made.task, "worker", "observing", made.region)
        with observing(made.settings, identity, say=said.append) as observer:
            address = said[0].rpartition(" ")[2]
            with scraped(address):
                return asyncio.run(snapshots.fold_all(made, outside_of(made, observer), account))
    outside = outside_of(made)
    if variant == "windows only":
        writer: Any = WithoutVerdicts(outside.writer, verdicts_topic(made.task, made.region))
        outside = replace(outside, writer=writer)
    return asyncio.run(snapshots.fold_all(made, outside, account))


def measure(made: synthetic.Synthetic, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Every variant once a round, after one of each that is not counted."""
    found: dict[str, list[tuple[float, float]]] = {variant: [] for variant in VARIANTS}
    for number in range(rounds + 1):
        for variant in VARIANTS:
            took = run(made, variant)
            ingest.delete_outputs(made)
            if number:
                found[variant].append(took)
    return found


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--updates", type=int, default=25_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--parameters", type=int, default=100_000)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fluvial-bench-") as folder:
        stack = LocalStack(Path(folder) / ".fluvial", reporter=Output(), secured=False)
        try:
            made = synthetic.create(
                stack.up(),
                task="observing",
                parameters=options.parameters,
                partitions=ingest.PARTITIONS,
                devices=options.devices,
                policy=ingest.POLICY,
            )
            synthetic.write_barriers(made, len(ingest.VERSIONS))
            ingest.publish(made, options.updates)
            found = measure(made, options.rounds)
        finally:
            stack.down()
    base = [cpu_s for _, cpu_s in found[VARIANTS[0]]]
    rows = {
        variant: {
            "updates_per_second": options.updates / statistics.median(clock_s for clock_s, _ in runs),
            "cpu_ms_per_update": 1000 * statistics.median(cpu_s for _, cpu_s in runs) / options.updates,
            "cpu_ratio": statistics.median(cpu_s / of for (_, cpu_s), of in zip(runs, base, strict=True)),
        }
        for variant, runs in found.items()
    }
    report = {"machine": machine.describe(), "seconds": round(time.monotonic() - began_s), "variants": rows}
    if options.json:
        print(json.dumps(report, indent=2))
        return
    print(f"{machine.describe()}\n{options.updates} updates of {options.parameters} int8 parameters")
    print("                        updates/s  CPU ms/update  CPU ratio")
    for variant, row in rows.items():
        print(
            f"{variant:22s}  {row['updates_per_second']:9.0f}  {row['cpu_ms_per_update']:13.3f}  "
            f"{row['cpu_ratio']:9.3f}"
        )


if __name__ == "__main__":
    main()
