"""Snapshots: what being able to recover costs a worker, as a share of the time in which it folds and publishes.

    python benchmarks/snapshots.py [--updates 10000] [--devices 200] [--parameters 100000]
                                   [--window 64] [--json]

The worker's own pipeline, without Faust, folds the log of ``benchmarks/ingest.py`` from the real Kafka and publishes to
the real Kafka and object store, in one process and one run. Counted as recovery are: encoding a partition's state,
storing it, and publishing the window's record. Sums and verdicts are output. The share is one of processor time: while
one partition waits for its window to be stored, the others fold. What is read on assignment comes once an assignment
and is told apart, for two of them: at the start, and with everything published. Without Faust the rest is smaller, so
the shares are above a real worker's. Shorter windows mean more states.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

from backends.kafka.reading import LogReader
from backends.keys import load_key_pair, signer_path
from backends.log import Outgoing, Together
from backends.tasks import keys_folder
from benchmarks import ingest, machine, synthetic
from fluvial.local.stack import LocalStack
from fluvial.terminal.output import Output
from schemas import windows as sealing
from schemas.certificates import Role
from schemas.objects import sha256_hex
from schemas.topics import aggregates_topic, updates_topic
from stream_apps.process_context import ProcessContext, open_process_context
from stream_apps.worker.region import RegionWorker

READ_AT_ONCE = 32
RECOVERY = ("encode states", "store states", "publish windows")


@dataclass
class Account:
    """What each thing took: seconds of processor, and seconds by the clock, with waiting for broker and store."""

    cpu_s: dict[str, float] = field(default_factory=dict)
    clock_s: dict[str, float] = field(default_factory=dict)
    state_bytes: list[int] = field(default_factory=list)

    @contextmanager
    def charge(self, what: str) -> Iterator[None]:
        """Charge the block's time to ``what``."""
        clock_s, cpu_s = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            self.clock_s[what] = self.clock_s.get(what, 0.0) + time.perf_counter() - clock_s
            self.cpu_s[what] = self.cpu_s.get(what, 0.0) + time.thread_time() - cpu_s


class AccountedStore:
    """The task's store; the state objects, known by what ``encode_state`` has just returned, are charged."""

    def __init__(self, store: Any, account: Account, states: set[str]) -> None:
        self._store, self._account, self._states = store, account, states

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put_object(self, data: bytes) -> str:
        """As the store's."""
        sha256 = sha256_hex(data)
        what = "store states" if sha256 in self._states else "store sums"
        with self._account.charge(what):
            return str(self._store.put_object(data))


class AccountedWriter:
    """The worker's producer. Its flush right after an aggregate's append is that of the aggregate."""

    def __init__(self, writer: Any, account: Account, topic: str) -> None:
        self._writer, self._account, self._topic = writer, account, topic
        self._aggregate = False

    def append(self, topic: str, value: bytes, **options: Any) -> Any:
        """As the writer's."""
        if topic != self._topic:
            return self._writer.append(topic, value, **options)
        self._aggregate = True
        with self._account.charge("publish windows"):
            return self._writer.append(topic, value, **options)

    def append_together(self, topic: str, records: Sequence[Outgoing], *, partition: int) -> Together:
        """As the writer's."""
        done: Together = self._writer.append_together(topic, records, partition=partition)
        return done

    def flush(self, timeout_s: float) -> None:
        """As the writer's."""
        what = "publish windows" if self._aggregate else "flush verdicts"
        self._aggregate = False
        with self._account.charge(what):
            self._writer.flush(timeout_s)

    def poll(self) -> None:
        """As the writer's."""
        self._writer.poll()


@contextmanager
def accounted_states(account: Account, states: set[str]) -> Iterator[None]:
    """Charge every call of ``encode_state``, and remember its objects."""
    encode: Callable[[Any], bytes] = sealing.encode_state

    def encode_state(state: Any) -> bytes:
        with account.charge("encode states"):
            data = encode(state)
        states.add(sha256_hex(data))
        account.state_bytes.append(len(data))
        return data

    with mock.patch.object(sealing, "encode_state", encode_state):
        yield


def accounted(outside: ProcessContext, account: Account, states: set[str], topic: str) -> ProcessContext:
    """The same outside, with store and writer charged."""
    store: Any = AccountedStore(outside.store, account, states)
    writer: Any = AccountedWriter(outside.writer, account, topic)
    return replace(outside, store=store, writer=writer)


async def fold_all(
    made: synthetic.Synthetic, outside: ProcessContext, account: Account
) -> tuple[float, float]:
    """Resume, fold everything, and resume once more as a new owner would.

    Gives what the folding took: (seconds by the clock, seconds of processor). Each partition has a task of its own, as
    under Faust, so that one folds while another waits for its window to be stored.
    """
    partitions = range(made.partitions)
    worker = RegionWorker(outside, made.region)
    with account.charge("resume from nothing"):
        await worker.resume(partitions)
    clock_s, cpu_s = time.perf_counter(), time.process_time()
    await asyncio.gather(*(fold_partition(made, worker, partition) for partition in partitions))
    await asyncio.to_thread(outside.writer.flush, 60.0)
    took = time.perf_counter() - clock_s, time.process_time() - cpu_s
    with account.charge("resume from the newest window"):
        await RegionWorker(outside, made.region).resume(partitions)
    return took


async def fold_partition(made: synthetic.Synthetic, worker: RegionWorker, partition: int) -> None:
    """Fold one partition to its end."""
    topic = updates_topic(made.task, made.region)
    with LogReader(made.settings, f"benchmark-updates-{partition}") as reader:
        records = reader.read(topic, partition, 0, reader.bounds(topic, partition)[1])
        while batch := await asyncio.to_thread(lambda: list(itertools.islice(records, READ_AT_ONCE))):
            for record in batch:
                await worker.process(record)


def measure(made: synthetic.Synthetic, updates: int) -> dict[str, Any]:
    """One run, accounted."""
    keys = keys_folder(made.settings.home, made.task)
    signer = load_key_pair(signer_path(keys, made.region, Role.WORKER, f"worker-{made.region}"))
    genesis_sha256 = sha256_hex(made.genesis.canonical())
    account, states = Account(), set[str]()
    outside = accounted(
        open_process_context(made.settings, made.task, genesis_sha256, signer, "snapshots"),
        account,
        states,
        aggregates_topic(made.task, made.region),
    )
    with accounted_states(account, states):
        clock_s, cpu_s = asyncio.run(fold_all(made, outside, account))
    recovery_s = sum(account.cpu_s[what] for what in RECOVERY)
    return {
        "updates_per_second": updates / clock_s,
        "clock_s": clock_s,
        "cpu_s": cpu_s,
        "parts_clock_s": account.clock_s,
        "parts_cpu_s": account.cpu_s,
        "recovery_cpu_share": recovery_s / cpu_s,
        "states": len(account.state_bytes),
        "state_bytes_max": max(account.state_bytes),
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--updates", type=int, default=10_000)
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--parameters", type=int, default=100_000)
    parser.add_argument("--window", type=int, default=64, help="updates a window")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fluvial-bench-") as folder:
        stack = LocalStack(Path(folder) / ".fluvial", reporter=Output(), secured=False)
        try:
            made = synthetic.create(
                stack.up(),
                task="snapshots",
                parameters=options.parameters,
                partitions=ingest.PARTITIONS,
                devices=options.devices,
                policy=ingest.POLICY | {"window": ingest.POLICY["window"] | {"updates_max": options.window}},
            )
            synthetic.write_barriers(made, len(ingest.VERSIONS))
            ingest.publish(made, options.updates)
            row = measure(made, options.updates)
        finally:
            stack.down()
    report = {
        "machine": machine.describe(),
        "updates": options.updates,
        "parameters": options.parameters,
    } | row
    if options.json:
        print(json.dumps(report, indent=2))
        return
    print(f"{machine.describe()}\n{options.updates} updates of {options.parameters} int8 parameters")
    print(
        f"{row['updates_per_second']:.0f} updates/s in one process without Faust; {row['states']} states, "
        f"the largest {row['state_bytes_max'] / 1024:.0f} KiB"
    )
    print("                                  CPU s  of all    clock s")
    for what, seconds in sorted(row["parts_cpu_s"].items()):
        share, clock_s = seconds / row["cpu_s"], row["parts_clock_s"][what]
        print(f"  {what:30s} {seconds:6.2f}  {share:6.2%}  {clock_s:9.2f}")
    print(f"{', '.join(RECOVERY)}: {row['recovery_cpu_share']:.2%} of {row['cpu_s']:.1f} s of processor")


if __name__ == "__main__":
    main()
