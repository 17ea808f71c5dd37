"""Audit: one worker ingests a log, then audits fold it again with 1 process, 2 processes and one a core.

    python benchmarks/audit.py [--updates 20000] [--devices 200] [--parameters 100000] [--json]

The log is that of ``benchmarks/ingest.py``. The audit's time is that of folding every partition again and of comparing
each window and verdict with what the worker has published, objects included; the start of its processes is part of it.
The worker's time runs from its first verdict to its last, as in ``benchmarks/ingest.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from backends.kafka.reading import LogReader
from benchmarks import ingest, machine, synthetic
from fluvial.local.stack import LocalStack
from fluvial.proof.audit.partitions import PartitionJob
from fluvial.proof.audit.pool import Folders
from fluvial.proof.audit.sources import sources_of
from fluvial.proof.audit.verdicts import bound_of
from fluvial.terminal.output import Output
from schemas.objects import sha256_hex
from schemas.topics import aggregates_topic, updates_topic, verdicts_topic


def jobs_of(made: synthetic.Synthetic, spill: Path) -> list[PartitionJob]:
    """One job a partition: everything, from offset 0."""
    with LogReader(made.settings, "benchmark-bounds") as reader:
        return [
            PartitionJob(
                sources=partial(sources_of, made.settings),
                task=made.task,
                genesis_sha256=sha256_hex(made.genesis.canonical()),
                slot=(made.region, partition),
                start=None,
                updates_end=reader.bounds(updates_topic(made.task, made.region), partition)[1],
                aggregates_end=reader.bounds(aggregates_topic(made.task, made.region), partition)[1],
                sequence_stop=None,
                sequence_needed=0,
                spill=spill,
                verdicts=bound_of(reader, verdicts_topic(made.task, made.region), partition),
            )
            for partition in range(made.partitions)
        ]


def _cpu_s() -> float:
    """Processor time of this process and of those that it has waited for, which a busy machine hardly changes."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def refold(work: list[PartitionJob], processes: int, updates: int) -> dict[str, Any]:
    """Fold all of it again, and require that nothing differs."""
    started_s = time.monotonic()
    cpu_before_s = _cpu_s()
    with Folders(processes) as folders:
        folded = folders.fold(work, lambda _slot, _offset: None)
    seconds = time.monotonic() - started_s
    found = [str(finding) for one in folded for finding in one.findings]
    if found or not all(one.complete for one in folded):
        raise SystemExit("the audit found: " + "; ".join(found[:5]))
    return {
        "processes": processes,
        "seconds": seconds,
        "updates_per_second": updates / seconds,
        "cpu_ms_per_update": (_cpu_s() - cpu_before_s) / updates * 1000,
        "windows": sum(len(one.aggregates) for one in folded),
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--updates", type=int, default=20_000)
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--parameters", type=int, default=100_000)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    cores = os.process_cpu_count() if hasattr(os, "process_cpu_count") else len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="fluvial-bench-") as folder:
        stack = LocalStack(Path(folder) / ".fluvial", reporter=Output(), secured=False)
        try:
            made = synthetic.create(
                stack.up(),
                task="audit",
                parameters=options.parameters,
                partitions=ingest.PARTITIONS,
                devices=options.devices,
                policy=ingest.POLICY,
            )
            synthetic.write_barriers(made, len(ingest.VERSIONS))
            ingest.publish(made, options.updates)
            worker = ingest.drain(made, 1, options.updates)
            work = jobs_of(made, Path(folder))
            rows = [refold(work, processes, options.updates) for processes in sorted({1, 2, cores})]
        finally:
            stack.down()
    wanted = worker["updates_per_second"] * cores
    report = {
        "machine": machine.describe(),
        "updates": options.updates,
        "parameters": options.parameters,
        "worker_updates_per_second": worker["updates_per_second"],
        "wanted_updates_per_second": wanted,
        "audits": rows,
    }
    if options.json:
        print(json.dumps(report, indent=2))
        return
    print(f"{machine.describe()}\n{options.updates} updates of {options.parameters} int8 parameters")
    print(
        f"one worker ingests {worker['updates_per_second']:.0f} updates/s; times {cores} cores: {wanted:.0f}"
    )
    print("processes  seconds  updates/s  of worker × cores  CPU, ms an update")
    for row in rows:
        rate = row["updates_per_second"]
        print(
            f"{row['processes']:9d}  {row['seconds']:7.1f}  {rate:9.0f}  {rate / wanted:17.0%}"
            f"  {row['cpu_ms_per_update']:17.2f}"
        )


if __name__ == "__main__":
    main()
