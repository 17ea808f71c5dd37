"""Algorithms side by side, by client work and by the simulated clock: `fluvial simulate`, a process a run.

    python benchmarks/algorithms.py FOLDER [--only fedbuff,uneven,ablation,rates,convolution] [--plots docs/images]

Each run's JSON document stands in FOLDER; what stands there is not run again, so an interrupted measurement goes on.
All runs of one comparison have the same devices, data splits, delays and first models, by their seeds.

How client work is counted: as Nguyen et al. 2022 (section 5) count it, every client that was told to train costs a
trip, whether its update counted, came too late, was of a client that a round chose in excess, or was still under way
when the target was reached. ``device s`` is for how long they worked, for nothing too, those under way left out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from backends.environment import child_environment
from benchmarks import machine
from benchmarks.plots import Curve, drawn

ROOT: Final = Path(__file__).parents[1]
MLP: Final = "benchmarks/fashion_mlp.py"
TARGET: Final = 0.75
CONVOLUTION_TARGET: Final = 0.70
BUFFER: Final = """
[buffer]
updates = {k}
[window]
updates_max = {k}
[staleness]
versions_max = 100
kind = "{kind}"
exponent = 0.5
"""
ROUNDS: Final = """
[buffer]
mode = "rounds"
updates = 154
quorum = 100
seconds_max = 30.0
"""
COHORT: Final = """
[buffer]
mode = "rounds"
updates = 20
quorum = 10
seconds_max = 30.0
"""
CROWD: Final = (
    *("--devices", "400", "--at-once", "200", "--regions", "local:1", "--alpha", "0.5"),
    *("--delays", "pareto", "--tail", "1.2"),
)
UNEVEN: Final = (
    *("--devices", "100", "--at-once", "26", "--regions", "local:1", "--alpha", "0.1"),
    *("--delays", "pareto", "--tail", "1.2", "--updates", "1000", "--versions", "1000"),
)


@dataclass(frozen=True)
class Run:
    """One policy in a group of them, simulated once a seed. ``every``: versions between two evaluations."""

    group: str
    name: str
    task: str
    policy: str
    crowd: tuple[str, ...]
    target: float | None = None
    every: int = 1
    more: tuple[str, ...] = ()

    def document(self, folder: Path, seed: int) -> dict[str, Any] | None:
        """What stands there of it."""
        path = self._path(folder, seed)
        return json.loads(path.read_bytes()) if path.exists() and path.stat().st_size else None

    def play(self, folder: Path, seed: int) -> None:
        """Simulate it, unless it stands there."""
        if self.document(folder, seed) is not None:
            return
        policy = folder / f"{self.group}-{self.name}.toml"
        policy.write_text(self.policy)
        command = [
            *(sys.executable, "-m", "fluvial.cli", "simulate", self.task, "--json", "--no-check"),
            *("--policy", str(policy), "--seed", str(seed), "--evaluate-every", str(self.every)),
            *(*self.crowd, *self.more),
            *(("--target", f"accuracy={self.target}", "--updates", "15000") if self.target else ()),
        ]
        environment = child_environment(
            {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        )
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=False)
        if done.returncode:
            raise SystemExit(f"{self.group} {self.name}, seed {seed}: ended with {done.returncode}")
        self._path(folder, seed).write_bytes(done.stdout)

    def _path(self, folder: Path, seed: int) -> Path:
        return folder / f"{self.group}-{self.name}-{seed}.json"


def _buffer(group: str, name: str, k: int, kind: str, more: str = "") -> Run:
    policy = BUFFER.format(k=k, kind=kind) + more
    return Run(group, name, MLP, policy, CROWD, TARGET, max(1, 50 // k))


RATE: Final = "[server]\nlearning_rate = {rate}\n"
RUNS: Final = (
    _buffer("fedbuff", "fedbuff", 10, "polynomial"),
    Run("fedbuff", "rounds", MLP, ROUNDS, CROWD, TARGET),
    *(_buffer("rates", f"fedbuff-{rate}", 10, "polynomial", RATE.format(rate=rate)) for rate in (0.4, 1.6)),
    *(
        Run("rates", f"rounds-{rate}", MLP, ROUNDS + RATE.format(rate=rate), CROWD, TARGET)
        for rate in (1.6, 3.2)
    ),
    *(
        _buffer("ablation", f"k{k}-{kind}", k, kind)
        for k, kind in (
            *((k, "polynomial") for k in (1, 5, 10, 20, 50, 100)),
            *((k, "constant") for k in (10, 50)),
        )
    ),
    *(
        Run("uneven", name, MLP, policy, UNEVEN, None, 5, more)
        for name, policy, more in (
            ("fedavg", COHORT, ()),
            ("fedprox-0.1", COHORT, ("--set", "mu=0.1")),
            ("yogi", COHORT + '[server]\noptimizer = "yogi"\nlearning_rate = 0.02\n', ()),
            ("fedbuff", BUFFER.format(k=20, kind="polynomial"), ()),
            (
                "fadas",
                BUFFER.format(k=20, kind="constant")
                + '[server]\noptimizer = "amsgrad"\nlearning_rate = 0.02\ndelay_versions_max = 4\n',
                (),
            ),
        )
    ),
    Run(
        "convolution",
        "fedbuff",
        "fashion",
        BUFFER.format(k=10, kind="polynomial"),
        CROWD,
        CONVOLUTION_TARGET,
        5,
    ),
    Run("convolution", "rounds", "fashion", ROUNDS, CROWD, CONVOLUTION_TARGET),
)


@dataclass
class Reached:
    """Where a run reached a target, else where it ended."""

    reached: bool
    version: int
    accuracy: float
    trips: int
    updates: int
    device_s: float
    seconds: float
    staleness: float = field(default=0.0)


def reached(document: dict[str, Any], target: float | None, fetched: int) -> Reached:
    """The first version at or above ``target``, else the last one. ``fetched``: bytes of a model."""
    curve = document["curve"]
    evaluated = [point for point in curve if point["metrics"]]
    there = next((p for p in evaluated if target is not None and p["metrics"]["accuracy"] >= target), None)
    point = there or evaluated[-1]
    before = [one for one in curve if one["version"] <= point["version"]]
    return Reached(
        there is not None,
        point["version"],
        point["metrics"]["accuracy"],
        point["bytes_down"] // fetched,
        point["updates"],
        point["device_seconds"],
        point["seconds"],
        statistics.fmean(one["staleness"] for one in before),
    )


@cache
def model_bytes(reference: str) -> int:
    """What one trip fetches: the file of the task's model."""
    from learning.binding import anatomy_for
    from learning.task import load_task
    from learning.tensors import first_model
    from schemas.checkpoints import encode_model
    from schemas.manifests import NEWEST_GENESIS

    task = load_task(reference)
    drawn_model = first_model(task, 0)
    anatomy = anatomy_for(NEWEST_GENESIS, task, drawn_model)
    return len(encode_model(task.kind.values(drawn_model, anatomy).astype("float32"), anatomy.layout))


def table(group: str, folder: Path, seeds: int) -> None:
    """A row a run, and the means over the seeds beside the group's first policy."""
    means: dict[str, Reached] = {}
    print(f"\n{group}")
    print(
        "run                  seed  reached  versions  accuracy  trips  updates  device s  virtual s  staleness"
    )
    for run in (one for one in RUNS if one.group == group):
        rows = []
        for seed in range(seeds):
            document = run.document(folder, seed)
            if document is None:
                continue
            row = reached(document, run.target, model_bytes(run.task))
            rows.append(row)
            _print(run.name, str(seed), row)
        if len(rows) > 1:
            means[run.name] = mean = _mean(rows)
            _print(run.name, "mean", mean)
    first = next(iter(means.values()), None)
    for name, mean in means.items():
        if first is not None and mean is not first and mean.reached and first.reached:
            print(
                f"{name}: {mean.trips / first.trips:.2f} times the trips, {mean.device_s / first.device_s:.2f} times "
                f"the device seconds, {mean.seconds / first.seconds:.2f} times the virtual time"
            )


def _mean(rows: list[Reached]) -> Reached:
    def of(field: str) -> float:
        return statistics.fmean(getattr(row, field) for row in rows)

    return Reached(
        reached=all(row.reached for row in rows),
        version=round(of("version")),
        accuracy=of("accuracy"),
        trips=round(of("trips")),
        updates=round(of("updates")),
        device_s=of("device_s"),
        seconds=of("seconds"),
        staleness=of("staleness"),
    )


def _print(name: str, seed: str, row: Reached) -> None:
    print(
        f"{name:20s} {seed:>4s}  {row.reached!s:7}  {row.version:8d}  {row.accuracy:8.4f}  {row.trips:5d}  "
        f"{row.updates:7d}  {row.device_s:8.0f}  {row.seconds:9.1f}  {row.staleness:9.1f}"
    )


def plot(group: str, axis: str, label: str, folder: Path, seeds: int, out: Path) -> None:
    """Accuracy of a group's runs against ``axis``, a line a seed, as SVG."""
    curves = []
    for run in (one for one in RUNS if one.group == group):
        for seed in range(seeds):
            document = run.document(folder, seed)
            if document is None:
                continue
            size = model_bytes(run.task)
            points = [
                (point["bytes_down"] / size if axis == "trips" else point[axis], point["metrics"]["accuracy"])
                for point in document["curve"]
                if point["metrics"]
            ]
            curves.append(Curve(run.name, points))
    if curves:
        out.write_text(drawn(curves, x=label, y="accuracy"))
        print(f"{out}: {len(curves)} lines")


def main() -> None:
    """Run what is not there, print, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="fedbuff,uneven,ablation,rates", help="groups, with commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--print", dest="printing", action="store_true", help="run nothing, print what stands there"
    )
    parser.add_argument("--plots", type=Path, help="draw SVGs into this folder")
    options = parser.parse_args()
    groups = options.only.split(",")
    options.folder.mkdir(parents=True, exist_ok=True)
    if not options.printing:
        os.nice(19)
        for group in groups:
            for run in (one for one in RUNS if one.group == group):
                for seed in range(options.seeds):
                    run.play(options.folder, seed)
    print(machine.describe())
    for group in groups:
        table(group, options.folder, options.seeds)
    if options.plots is not None:
        for group in groups:
            for axis, label in (("trips", "trips of clients"), ("seconds", "virtual seconds")):
                plot(group, axis, label, options.folder, options.seeds, options.plots / f"{group}-{axis}.svg")


if __name__ == "__main__":
    main()
