"""What each defence costs a worker's processor, beside the undefended fold of the same signed updates in one run.

    python benchmarks/defences.py [--parameters 5000 100000] [--updates 256] [--rounds 15] [--json]

"fold" is the fold alone. "read and fold" is what a worker does with a record: decoding it, checking certificate and
signature, folding it. Undefended means without shares and quarantine, too. Times are of the processor, µs an update,
the least of the rounds: whatever else the machine does adds to them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from aggregation.codecs import direction_of
from aggregation.defences import Usual, defence_named
from aggregation.fold.events import Barrier, Event, Guide, RejectedRecord
from aggregation.fold.state import PartitionState, initial
from aggregation.fold.transition import fold_into
from aggregation.policy import Policy, policy_from_mapping
from backends.keys import authority_path, certificate_pem, create_authority, issue, load_key_pair
from benchmarks import machine
from benchmarks.synthetic import layout_of, tensors_of
from schemas.certificates import CONTROL, Role
from schemas.manifests import NEWEST_GENESIS, Genesis, Region, TensorEntry
from schemas.records import decode_record

TASK: Final = "t"
REGION: Final = "eu"
MODEL: Final = "00" * 32
UNDEFENDED: Final = "none"
KINDS: Final = (UNDEFENDED, "peers", "median", "guide")


def policy_of(kind: str) -> Policy:
    """A policy in which every update of the benchmark counts and no window closes."""
    undefended = kind == UNDEFENDED
    return policy_from_mapping(
        {
            "window": {"updates_max": 100_000, "records_max": 1_000_000},
            "defence": {"kind": kind, "quarantine_refusals": 0 if undefended else 6},
            "shares": {"per_version": 0 if undefended else 1},
        }
    )


class Bench:
    """Signed updates of one model's size, each of a device of its own, and who checks them."""

    def __init__(self, parameters: int, updates: int, folder: Path) -> None:
        self.layout = layout_of(parameters)
        for name in (REGION, CONTROL):
            create_authority(folder, name)
        pem = {name: certificate_pem(authority_path(folder, name)) for name in (REGION, CONTROL)}
        genesis = Genesis(
            task=TASK,
            regions={REGION: Region(1, pem[REGION])},
            control_authority=pem[CONTROL],
            layout=tuple(TensorEntry(spec.name, spec.shape) for spec in self.layout.tensors),
            policy=msgspec.json.decode(policy_of(UNDEFENDED).canonical()),
            model_sha256=MODEL,
            optimizer_sha256=MODEL,
            nonce=MODEL,
            format=NEWEST_GENESIS,
        )
        self.trust = genesis.trust
        tensors = [tensors_of(self.layout, seed) for seed in range(8)]
        self.values = [
            load_key_pair(issue(folder, REGION, Role.DEVICE, f"d-{number}"))
            .of_task(genesis.domain)
            .sign("ClientUpdate", self._record(f"d-{number}", tensors[number % len(tensors)]))
            for number in range(updates)
        ]
        rng = np.random.default_rng(0)
        self.direction = direction_of(rng.normal(size=parameters), self.layout)
        self.now_ms = round(time.time() * 1000)

    @staticmethod
    def _record(device: str, tensors: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "task": TASK, "region": REGION, "device_id": device, "base_version": 1, "base_sha256": MODEL,
            "update_id": f"u-{device}", "num_examples": 32, "local_loss": 0.5, "codec": "int8", "tensors": tensors,
            "client_metrics": {}, "created_at": 0,
        }  # fmt: skip

    def state(self, policy: Policy) -> PartitionState:
        """A partition at version 1, which knows what is usual, the last step and a guide."""
        state = initial(
            task=TASK,
            region=REGION,
            partition=0,
            partitions=1,
            layout=self.layout,
            policy=policy,
            model_sha256=MODEL,
        )
        guided = defence_named(policy.defence.kind).guided
        barrier = Barrier(
            TASK, REGION, 1, "00" * 32, MODEL, "11" * 32, policy.sha256, 0, "version", policy, self.direction,
            usual=Usual(1.0, 1, 2), guide_sha256="22" * 32 if guided else "",
            guide=Guide(1, MODEL, self.direction) if guided else None,
        )  # fmt: skip
        fold_into(state, 0, barrier)
        return state

    def decoded(self, policy: Policy) -> list[Event]:
        """Every record, decoded and authenticated."""
        return [decode_record(value, self.now_ms, self.trust, policy) for value in self.values]

    def measure(self, policy: Policy) -> tuple[float, float]:
        """(fold, read and fold), µs of the processor for an update, once."""
        state, count = self.state(policy), len(self.values)
        began = time.thread_time()
        events = self.decoded(policy)
        read = time.thread_time()
        for number, event in enumerate(events):
            fold_into(state, number + 1, event)
        folded = time.thread_time()
        assert state.window.accepted == count, (policy, state.window.counts, events[0])
        assert not isinstance(events[0], RejectedRecord)
        return 1e6 * (folded - read) / count, 1e6 * (folded - began) / count


def measured(parameters: int, updates: int, rounds: int) -> dict[str, dict[str, float]]:
    """µs an update and times the undefended, by defence."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(parameters, updates, Path(folder))
    least = {kind: bench.measure(policy_of(kind)) for kind in KINDS}
    for _ in range(rounds):
        for kind in KINDS:
            fold, both = bench.measure(policy_of(kind))
            least[kind] = min(least[kind][0], fold), min(least[kind][1], both)
    base = least[UNDEFENDED]
    return {
        kind: {
            "fold": fold,
            "fold_ratio": fold / base[0],
            "read_and_fold": both,
            "read_and_fold_ratio": both / base[1],
        }
        for kind, (fold, both) in least.items()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parameters", type=int, nargs="+", default=[5_000, 100_000])
    parser.add_argument("--updates", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    found = {size: measured(size, options.updates, options.rounds) for size in options.parameters}
    if options.json:
        print(json.dumps({"machine": machine.describe(), "parameters": found}, indent=2))
        return
    print(machine.describe())
    print(
        f"{'parameters':>10}  {'defence':12}{'fold, µs':>10}{'times':>7}{'read and fold, µs':>20}{'times':>7}"
    )
    for size, kinds in found.items():
        for kind, row in kinds.items():
            print(
                f"{size:>10}  {kind:12}{row['fold']:10.1f}{row['fold_ratio']:7.2f}"
                f"{row['read_and_fold']:20.1f}{row['read_and_fold_ratio']:7.2f}"
            )


if __name__ == "__main__":
    main()
