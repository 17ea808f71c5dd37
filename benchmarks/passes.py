"""Passes over a model, beside a memory copy of as many bytes in the same run.

    python benchmarks/passes.py [--parameters 10000000] [--rounds 5] [--before PATH] [--json]

What a version costs its merger and its auditors: adding a window, the optimizer's step with the step's direction, the
files and their hashes, and all of it as a merger does it; and FedAvg of ten models. Times are of the processor, medians
of the rounds' medians, after a warm-up. A ratio says how many times as long it takes as copying the bytes that it has
to read and write, at the rate of copying within one run's arrays; results go to fresh memory, whose pages the system
clears first, so that even a copy has a ratio above 1 there (the line "copy into fresh memory"). ``peak`` is what was
allocated at once, results included, in model sizes. ``--before`` measures another checkout the same way, in turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from aggregation.codecs import kernels
from aggregation.layout import Layout
from aggregation.optimizers import initial_state
from aggregation.policy import policy_from_mapping
from aggregation.server.merge import Checkpoint, Step, merge
from aggregation.server.totals import WindowSums, add_sums
from benchmarks import machine
from schemas.checkpoints import encode_direction, encode_model, encode_optimizer
from schemas.objects import sha256_hex
from stream_apps.merger.deriving import derive

MODELS = 10
WINDOWS = 4
REPETITIONS = 5
SERVERS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd"},
    "sgd with momentum": {"optimizer": "sgd", "momentum": 0.9},
    "adam": {"optimizer": "adam"},
    "yogi": {"optimizer": "yogi"},
}
Case = tuple[str, float, Callable[[], object]]
"""A name, the bytes an element that have to be read and written, and the pass."""


def median_ms(action: Callable[[], object]) -> float:
    """Median milliseconds of the processor, after one warm-up."""
    action()
    times = []
    for _ in range(REPETITIONS):
        began = time.thread_time_ns()
        action()
        times.append((time.thread_time_ns() - began) / 1e6)
    return statistics.median(times)


def peak_of(action: Callable[[], object]) -> int:
    """Bytes allocated at once, what the action returns included."""
    tracemalloc.start()
    kept = action()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    del kept
    return peak


def average(models: list[np.ndarray]) -> np.ndarray:
    """FedAvg, as this checkout does it."""
    try:
        from aggregation.server.averaging import exact_mean
    except ModuleNotFoundError:  # before it was one pass
        sums = np.zeros(models[0].size, dtype=np.int64)
        for model in models:
            kernels.accumulate_float32_into(sums, model, float(1 << 32))
        return (sums / float(1 << 32) / len(models)).astype(np.float32)
    return exact_mean(models, 32)


def cases(parameters: int) -> list[Case]:
    """Every pass, over a model of so many parameters in three tensors."""
    rows = parameters // 2000
    layout = Layout.of([("a", (rows, 1000)), ("b", (10,)), ("c", (parameters - 1000 * rows - 10,))])
    rng = np.random.default_rng(0)
    total = rng.integers(-(1 << 40), 1 << 40, parameters)
    model = rng.standard_normal(parameters, dtype=np.float32)
    models = [model + np.float32(n) for n in range(MODELS)]
    window = np.frombuffer(total.tobytes(), dtype=np.int64)
    made: list[Case] = [
        ("copy into fresh memory", 16, total.copy),
        (f"FedAvg of {MODELS} models", 4 * MODELS + 4, lambda: average(models)),
        ("add a window", 24, lambda: add_sums([window], parameters)),
    ]
    for name, server in SERVERS.items():
        policy = policy_from_mapping({"format": "fluvial/policy/v2", "server": server})
        state = {key: rng.random(parameters) for key in initial_state(policy.server, 1)}

        def step(policy: Any = policy, state: Any = state) -> Any:
            parent = Checkpoint(model, state)
            return merge(
                parent,
                total,
                updates=10,
                weight_total=10 << 16,
                policy=policy,
                server=policy.server,
                layout=layout,
            )

        made.append((f"{name}: mean, step, direction", 8 + 4 + 4 + 8 + 1 + 16 * len(state), step))
    policy = policy_from_mapping({"server": {"optimizer": "adam"}})
    parent = Checkpoint(model, {key: rng.random(parameters) for key in initial_state(policy.server, 1)})

    def version() -> object:
        windows = (WindowSums(window) for _ in range(WINDOWS))
        return derive(
            parent,
            windows,
            updates=10,
            weight_total=10 << 16,
            policy=policy,
            server=policy.server,
            layout=layout,
        )

    last = made[-1][2]()
    assert isinstance(last, Step)
    arrays, direction = last.checkpoint.optimizer, last.reference
    file = encode_optimizer(arrays)
    return [
        *made,
        ("model file", 8, lambda: encode_model(model, layout)),
        ("optimizer file of yogi", 32, lambda: encode_optimizer(arrays)),
        ("direction file", 2, lambda: encode_direction(direction)),
        ("hash of the optimizer file", 16, lambda: sha256_hex(file)),
        (f"adam's version of {WINDOWS} windows", 24 * WINDOWS + 57 + 42 + 21, version),
    ]


def measured(parameters: int) -> dict[str, dict[str, float]]:
    """Every case of this process' own checkout: milliseconds, ratio to a copy, peak in model sizes."""
    source, target = np.ones(parameters), np.ones(parameters)
    copied = median_ms(lambda: np.copyto(target, source))
    found = {"copy": {"ms": copied, "ratio": 1.0, "peak": 0.0}}
    for name, width, action in cases(parameters):
        taken = median_ms(action)
        again = median_ms(lambda: np.copyto(target, source))  # the neighbours change
        ratio = taken / (width / 16 * (copied + again) / 2)
        copied = again
        found[name] = {"ms": taken, "ratio": ratio, "peak": peak_of(action) / (4 * parameters)}
    return found


def in_checkout(root: Path, parameters: int) -> dict[str, dict[str, float]]:
    """``measured`` of another checkout's sources, in a process of its own."""
    command = [
        sys.executable,
        "-P",
        str(Path(__file__).resolve()),
        "--alone",
        "--parameters",
        str(parameters),
    ]
    command = ["env", f"PYTHONPATH={root}", *command]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=root)
    found: dict[str, dict[str, float]] = json.loads(printed.stdout)
    return found


def main() -> None:
    """Measure, in turn where there are two, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parameters", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--before", type=Path, help="the root of another checkout")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(measured(options.parameters)))
        return
    roots = {"now": Path(__file__).resolve().parents[1]}
    if options.before:
        roots = {"before": options.before.resolve(), **roots}
    rounds: dict[str, list[dict[str, dict[str, float]]]] = {name: [] for name in roots}
    for _ in range(options.rounds):
        for name, root in roots.items():
            rounds[name].append(in_checkout(root, options.parameters))
    medians = {
        name: {
            case: {
                key: statistics.median(one[case][key] for one in all_rounds) for key in all_rounds[0][case]
            }
            for case in all_rounds[0]
        }
        for name, all_rounds in rounds.items()
    }
    if options.json:
        print(
            json.dumps({"machine": machine.describe(), "parameters": options.parameters, **medians}, indent=2)
        )
        return
    print(machine.describe())
    print(
        f"{options.parameters} parameters, medians of {options.rounds} rounds: ms, times a copy, peak in model sizes"
    )
    print(f"{'':34}" + "".join(f"{name:>26}" for name in medians))
    for case in medians["now"]:
        columns = (
            f"{one[case]['ms']:10.1f}{one[case]['ratio']:8.2f}{one[case]['peak']:8.1f}"
            for one in medians.values()
        )
        print(f"{case:34}" + "".join(columns))


if __name__ == "__main__":
    main()
