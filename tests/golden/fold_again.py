"""The recorded logs of this folder, folded and merged anew by the interpreter that runs this: are all bytes the same.

    python -m tests.golden.fold_again

Held against what was recorded: of every record of the federation its verdict's bytes, of every window its aggregate
(which has the hashes of state and sums in it), of every version its model, optimizer and reference; and of the fixed
log of one partition what ``hashes.v1.json`` says. It needs the packages of the pure core alone (``make fold-again``).
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from aggregation.server.aggregates import Slot
from aggregation.server.merge import merge
from aggregation.server.totals import add_sums
from backends.memory.log import MemoryLog, MemoryReader
from backends.store.task_store import TaskStore
from fluvial.reading.parked import parked_in
from fluvial.reading.replay import PartitionReplay, read_aggregates, start_of_log
from schemas.checkpoints import decode_sums, encode_direction, encode_model, encode_optimizer
from schemas.objects import sha256_hex
from schemas.topics import aggregates_topic, updates_topic, verdicts_topic
from schemas.verdicts import decode_verdict, encode_verdict
from schemas.vouching import HeadPlace
from tests.golden import make
from tests.golden.recorded import EXPECTED, TASK, genesis, objects, partitions, records, store_of

SHOWN_MAX: Final = 20


@dataclass
class Again:
    """What came out, and where it is not what was recorded."""

    differences: list[str] = field(default_factory=list)
    verdicts: int = 0
    windows: int = 0
    versions: int = 0

    def hold(self, what: str, recorded: object, got: object) -> None:
        """Note a difference."""
        if got != recorded:
            self.differences.append(f"{what}: recorded {recorded}, got {got}")


def recorded_log() -> MemoryLog:
    """Every topic as it stood."""
    log = MemoryLog(dict(partitions()))
    for topic, count in partitions():
        for partition in range(count):
            for record in records(topic, partition):
                log.load(record)
    return log


def fold_again(again: Again, slot: Slot, log: MemoryLog, store: TaskStore) -> dict[int, bytes]:
    """Fold one partition; the sums of its windows by their sequence."""
    task, reader = genesis(), MemoryReader(log)
    place = f"{slot[0]}[{slot[1]}]"
    end = log.end(aggregates_topic(TASK, slot[0]), slot[1])
    read = [one.aggregate for one in read_aggregates(reader, task.trust, TASK, slot, start=0, end=end)]
    published = {one.sequence: one for one in read if one is not None}
    parked = parked_in(
        reader, task.trust, TASK, HeadPlace.of(task.canonical(), slot), published.values()
    ).by_offset
    said: dict[int, set[bytes]] = {}
    for record in records(verdicts_topic(TASK, slot[0]), slot[1]):
        said.setdefault(decode_verdict(record.value or b"").offset, set()).add(record.value or b"")
    replay = PartitionReplay(start_of_log(task, slot), task.trust, store, parked)
    sums: dict[int, bytes] = {}
    for record in records(updates_topic(TASK, slot[0]), slot[1]):
        replayed = replay.step(record)
        replay.state.validate()
        verdict = encode_verdict(replayed.verdict, task.trust.rules)
        again.verdicts += 1
        if verdict not in said.get(record.offset, set()):
            again.hold(f"verdict {place}@{record.offset}", said.get(record.offset), verdict)
        if replayed.encoded is not None:
            window = replayed.encoded.aggregate
            again.windows += 1
            again.hold(f"aggregate {window.sequence} of {place}", published.get(window.sequence), window)
            sums[window.sequence] = replayed.encoded.objects.get(window.sum_sha256, b"")
    return sums


def merge_again(again: Again, sums: Mapping[Slot, Mapping[int, bytes]], store: TaskStore) -> None:
    """Merge every version of the windows that its manifest names."""
    task = genesis()
    layout, policy = task.tensor_layout, task.first_policy
    checkpoint = store.checkpoint(0, task.model_sha256, task.optimizer_sha256, layout)
    for number in range(1, len(EXPECTED["versions"])):
        manifest = store.manifest(number)
        taken = [sums[one.region, one.partition][one.sequence] for one in manifest.inputs]
        step = merge(
            checkpoint,
            add_sums((decode_sums(data, layout) for data in taken if data), layout.sum_elements),
            updates=manifest.accepted,
            weight_total=manifest.weight_total,
            policy=policy,
            server=policy.server,
            layout=layout,
        )
        checkpoint = step.checkpoint
        made = {
            "model": sha256_hex(encode_model(checkpoint.model, layout)),
            "optimizer": sha256_hex(encode_optimizer(checkpoint.optimizer)),
            "reference": sha256_hex(encode_direction(step.reference)),
        }
        again.versions += 1
        for name, sha256 in made.items():
            again.hold(f"{name} of version {number}", getattr(manifest, f"{name}_sha256"), sha256)


def all_again(log: MemoryLog, kept: Mapping[str, bytes]) -> Again:
    """Both recorded logs; ``log`` and ``kept`` are the federation's."""
    again, store = Again(), store_of(kept)
    merge_again(again, {slot: fold_again(again, slot, log, store) for slot in genesis().slots}, store)
    released = json.loads((Path(__file__).parent / "hashes.v1.json").read_text())
    for name, value in make.hashes().items():
        again.hold(f"{name} of the fixed log", released[name], value)
    return again


def main() -> int:
    """Say what was compared; 1 if anything differs."""
    again = all_again(recorded_log(), objects())
    compiled = "as they are written" if os.environ.get("NUMBA_DISABLE_JIT") == "1" else "compiled"  # noqa: TID251
    sys.stdout.write(
        f"Python {platform.python_version()}, numpy {np.__version__}, loops {compiled}: {again.verdicts} verdicts, "
        f"{again.windows} windows, {again.versions} versions, {len(again.differences)} differences\n"
    )
    for line in again.differences[:SHOWN_MAX]:
        sys.stdout.write(f"  {line}\n")
    return 1 if again.differences else 0


if __name__ == "__main__":
    sys.exit(main())
