"""Beside Flower's simulation engine: one task, one split of the data, one first model, one machine, one run.

    python -m benchmarks.beside_flower [--rounds 60] [--seeds 0,1] [--target 0.7] [--processes 1,2]

100 devices have Fashion-MNIST at Dirichlet 0.5 and train ``fashion_mlp``; a round is 20 of them, drawn by each program
in its own way, and weighs by examples. Both evaluate every version on the same 2,000 examples, in the server's process.
Flower runs in an environment of its own, with Ray and a client's actor a core; Fluvial in one process, or with so
many that train. Fluvial signs, quantizes to int8, encodes, folds and merges as in production; Flower's updates are
float32 and unsigned. Seconds are from the start of either program, with what it imports and Ray; updates a second are
of the rounds after the first one, in which all of that happens.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from backends.environment import child_environment
from benchmarks import machine
from benchmarks.peers import FLOWER, QUIET

ROOT: Final = Path(__file__).parents[1]
TASK: Final = ROOT / "benchmarks" / "fashion_mlp.py"
DEVICES: Final = 100
COHORT: Final = 20
ALPHA: Final = 0.5
POLICY: Final = f"""
[buffer]
mode = "rounds"
updates = {COHORT}
quorum = {COHORT}
seconds_max = 600.0
[weights]
by = "examples"
examples_max = 1000
[server]
learning_rate = 1.0
[updates]
norm_clip = 10.0
"""
FLOWER_PROGRAM: Final = """
import json
import os
import sys
import time
import types

began = time.time()
import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

FOLDER = os.environ["BESIDE_FOLDER"]
SEED, ROUNDS, COHORT, DEVICES = (int(os.environ["BESIDE_" + n]) for n in ("SEED", "ROUNDS", "COHORT", "DEVICES"))
import fashion_mlp

NAMES = ("hidden.weight", "hidden.bias", "out.weight", "out.bias")


class Examples:
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.y)


def examples(name):
    with np.load(os.path.join(FOLDER, name + ".npz")) as file:
        return Examples(file["x"], file["y"])


client, server = ClientApp(), ServerApp()


@client.train()
def train(message, context):
    device = int(context.node_config["partition-id"])
    model = dict(zip(NAMES, (one.copy() for one in message.content["arrays"].to_numpy_ndarrays())))
    own, settings = examples(f"device-{device}"), fashion_mlp.CONFIG
    np.random.seed((SEED * 1000 + device) * 1000 + int(message.content["config"]["server-round"]))
    config = types.SimpleNamespace(
        epochs=settings["epochs"], batch_size=settings["batch_size"], learning_rate=settings["learning_rate"],
        extra={"mu": 0.0},
    )
    told = fashion_mlp.train(model, own, config)
    arrays = ArrayRecord([model[name] for name in NAMES])
    metrics = MetricRecord({"num-examples": len(own), "loss": told["loss"]})
    return Message(content=RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


class Noted(FedAvg):
    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        self.good = sum(reply.has_content() for reply in replies)
        return super().aggregate_train(server_round, replies)


@server.main()
def main(grid, context):
    strategy = Noted(
        fraction_train=COHORT / DEVICES, min_train_nodes=COHORT, fraction_evaluate=0.0, min_available_nodes=DEVICES
    )
    test = examples("test")
    with np.load(os.path.join(FOLDER, "first.npz")) as file:
        first = ArrayRecord([file[name] for name in NAMES])

    def evaluate(server_round, arrays):
        model = dict(zip(NAMES, arrays.to_numpy_ndarrays()))
        found = fashion_mlp.evaluate(model, test)
        with open(os.path.join(FOLDER, "flower.jsonl"), "a") as file:
            good = getattr(strategy, "good", 0)
            file.write(json.dumps([server_round, good, time.time() - began, found["accuracy"]]) + "\\n")
        return MetricRecord(found)

    strategy.start(grid=grid, initial_arrays=first, num_rounds=ROUNDS, evaluate_fn=evaluate)


cores = os.cpu_count()
backend = {"init_args": {"num_cpus": cores}, "client_resources": {"num_cpus": 1.0, "num_gpus": 0.0}}
run_simulation(server, client, num_supernodes=DEVICES, backend_config=backend)
"""
Row = tuple[int, int, float, float]
"""A round: its number, updates, seconds since the program began, accuracy."""


def deal(folder: Path, seed: int) -> None:
    """The task's data and first model, as Fluvial deals and draws them, in files."""
    from learning.parts import device_data
    from learning.task import load_task
    from learning.tensors import first_model

    task = load_task(str(TASK))
    data = task.data()
    for index, one in enumerate(device_data(data, DEVICES, ALPHA, seed)):
        np.savez(folder / f"device-{index}.npz", x=one.x, y=one.y)
    np.savez(folder / "test.npz", x=data.test.x, y=data.test.y)
    np.savez(folder / "first.npz", **first_model(task, seed))


def flower(folder: Path, seed: int, rounds: int) -> list[Row]:
    """Flower's rounds; its round 0 is the evaluation of the first model."""
    (folder / "program.py").write_text(FLOWER_PROGRAM)
    (folder / "learning.py").touch()  # which the task imports, for data that are dealt out already
    numbers = {"SEED": seed, "ROUNDS": rounds, "COHORT": COHORT, "DEVICES": DEVICES}
    variables = {f"BESIDE_{name}": str(number) for name, number in numbers.items()}
    environment = child_environment(
        QUIET
        | variables
        | {"BESIDE_FOLDER": str(folder), "PYTHONPATH": f"{folder}:{TASK.parent}"}
        | _threads()
    )
    python = str(FLOWER.environment() / "bin" / "python")
    with (folder / "flower.log").open("wb") as log:
        done = subprocess.run(
            [python, "program.py"], cwd=folder, env=environment, stdout=log, stderr=log, check=False
        )
    if done.returncode:
        raise SystemExit(
            f"Flower ended with {done.returncode}: {(folder / 'flower.log').read_text()[-3000:]}"
        )
    return [tuple(json.loads(line)) for line in (folder / "flower.jsonl").read_text().splitlines()]


def _threads() -> dict[str, str]:
    return {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def fluvial(folder: Path, seed: int, rounds: int, processes: int) -> list[Row]:
    """Fluvial's versions; the first row is from when its simulation began."""
    environment = child_environment(_threads() | {"PYTHONPATH": str(ROOT)})
    (folder / "rounds.toml").write_text(POLICY)
    command = [sys.executable, "-m", "benchmarks.beside_flower", "--child", str(folder)]
    numbers = ["--seeds", str(seed), "--rounds", str(rounds), "--processes", str(processes)]
    done = subprocess.run([*command, *numbers], cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    return [tuple(row) for row in json.loads(done.stdout)]


def child(folder: Path, seed: int, rounds: int, processes: int) -> None:
    """In a process of its own: one simulation, and when each version came, by this machine's clock."""
    began_s = time.monotonic()
    from fluvial.simulating.ledger import Ledger, Point
    from fluvial.simulating.plan import Plan, policy_for
    from fluvial.simulating.population import NO_DELAYS, Drawn
    from fluvial.simulating.simulator import simulate_crowd
    from fluvial.simulating.training import Trainers
    from learning.task import load_task

    task = load_task(str(TASK))
    crowd = Drawn(devices=DEVICES, seed=seed, speed_spread=0.0, delays=NO_DELAYS)
    plan = Plan(
        population=crowd, at_once=COHORT, versions=rounds, regions={"local": 1}, alpha=ALPHA, seed=seed
    )
    policy = policy_for(plan, (folder / "rounds.toml").read_text(), task)
    rows: list[tuple[int, int, float, float]] = []
    known = 0

    def on_point(point: Point, _ledger: Ledger) -> None:
        nonlocal known
        rows.append(
            (point.version, point.accepted - known, time.monotonic() - began_s, point.metrics["accuracy"])
        )
        known = point.accepted

    with Trainers(task, {}, processes) as trainers:
        rows.append((0, 0, time.monotonic() - began_s, 0.0))
        simulate_crowd(plan, policy, task=task, trainers=trainers, on_point=on_point)
    print(json.dumps(rows))


def described(name: str, seed: int, rows: list[Row], target: float) -> dict[str, Any]:
    """What came of it."""
    first, later = rows[1], rows[2:]
    there = next((row for row in rows[1:] if row[3] >= target), None)
    return {
        "program": name,
        "seed": seed,
        "rounds": len(rows) - 1,
        "updates": sum(row[1] for row in rows),
        "updates_per_second": sum(row[1] for row in later) / (later[-1][2] - first[2]),
        "first_round_s": first[2],
        "to_target_s": None if there is None else there[2],
        "to_target_rounds": None if there is None else there[0],
        "last_accuracy": rows[-1][3],
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seeds", default="0,1", help="with commas")
    parser.add_argument("--target", type=float, default=0.7)
    parser.add_argument("--processes", default="1,2", help="of Fluvial's trainers, with commas")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        child(options.child, int(options.seeds), options.rounds, int(options.processes))
        return
    print(machine.describe())
    print(
        "program               seed  rounds  updates  updates/s  first round s  s to target  rounds to target  accuracy"
    )
    for seed in map(int, options.seeds.split(",")):
        with tempfile.TemporaryDirectory(prefix="fluvial-beside-") as name:
            folder = Path(name)
            deal(folder, seed)
            runs = [("Flower, Ray", flower(folder, seed, options.rounds))]
            for processes in map(int, options.processes.split(",")):
                rows = fluvial(folder, seed, options.rounds, processes)
                runs.append((f"Fluvial, {processes} training", rows))
        for program, rows in runs:
            row = described(program, seed, rows, options.target)
            reached = "-" if row["to_target_s"] is None else f"{row['to_target_s']:.1f}"
            print(
                f"{program:20s}  {seed:4d}  {row['rounds']:6d}  {row['updates']:7d}  "
                f"{row['updates_per_second']:9.1f}  {row['first_round_s']:13.1f}  {reached:>11s}  "
                f"{row['to_target_rounds'] or '-'!s:>16s}  {row['last_accuracy']:8.4f}"
            )


if __name__ == "__main__":
    main()
