"""A run whose arrivals are recorded: devices of a task in numpy, whose every operation is correctly rounded.

So whoever trains it anew, on whatever machine, gets the same bits.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from backends.environment import child_environment

ROOT: Final = Path(__file__).parents[1]
RUN_S: Final = 480.0
TASK: Final = '''
import numpy as np
import learning

CONFIG = {"epochs": 1, "batch_size": 8, "learning_rate": 0.5}
METRIC = "accuracy"


def data():
    """Points of the plane, and on which side of a line each is. All of it is integers, made without a generator."""
    n = np.arange(240, dtype=np.int64)
    x = np.stack([(n * 7919 + 13) % 251 - 125, (n * 104729 + 7) % 241 - 120], axis=1) / 128.0
    y = (3 * x[:, 0] > x[:, 1]).astype(np.int64)
    return learning.Dataset(train=(x[:200], y[:200]), test=(x[200:], y[200:]))


def model():
    return {"w": np.zeros(2, "f4"), "b": np.zeros((), "f4")}


def margins(model, x):
    return x[:, 0] * np.float64(model["w"][0]) + x[:, 1] * np.float64(model["w"][1]) + np.float64(model["b"])


def evaluate(model, data):
    found = margins(model, data.x)
    right = ((found > 0) == (data.y > 0)).sum() / len(data)
    return {"loss": 1.0 - float(right), "accuracy": float(right)}


def train(model, data, config):
    """One pass of the perceptron's rule, an example at a time: sums in the order of the examples."""
    wrong = 0
    for (a, b), side in zip(data.x.tolist(), data.y.tolist()):
        target = 2.0 * side - 1.0
        found = a * float(model["w"][0]) + b * float(model["w"][1]) + float(model["b"])
        if found * target <= 0.1:
            wrong += 1
            rate = config.learning_rate * target
            model["w"][0] += np.float32(rate * a)
            model["w"][1] += np.float32(rate * b)
            model["b"] += np.float32(rate * 0.25)
    return {"loss": wrong / len(data)}
'''

MODES: Final = {
    "buffer": '[buffer]\nmode = "buffer"\n',
    "rounds": '[buffer]\nmode = "rounds"\nquorum = 2\n\n[weights]\nby = "examples"\n',
    "share": '[selection]\nkind = "share"\nshare = 0.6\n',
    "slots": '[selection]\nkind = "slots"\nslots = 2\n\n[server]\noptimizer = "adam"\nlearning_rate = 0.1\n',
}
"""Policies, one a mode."""


def run_and_record(home: Path, folder: Path, mode: str) -> tuple[dict[str, Any], Path]:
    """`fluvial run` of the task in a mode on the stack of ``home``, and its arrivals, trained anew once.

    Gives what `fluvial simulate --arrivals` said, and the file in ``folder`` that it wrote.
    """
    (folder / "plane.py").write_text(TASK)
    (folder / f"{mode}.toml").write_text(MODES[mode])
    name, file = f"plane-{mode}", folder / f"arrivals.{mode}.json"
    size = ["--devices", "8", "--versions", "4", "--regions", "eu:2,us:1", "--alpha", "0.5", "--seed", "5"]
    told(home, folder, "run", "plane.py", "--fresh", "--name", name, "--policy", f"{mode}.toml", *size)
    return told(home, folder, "simulate", "plane.py", "--arrivals", name, "--save-arrivals", str(file)), file


def told(home: Path, folder: Path, *command: str) -> Any:
    """What the command said with --json, once it has ended well."""
    done = subprocess.run(
        [sys.executable, "-m", "fluvial.cli", "--home", str(home), *command, "--json"],
        cwd=folder,
        env=child_environment({"PYTHONPATH": str(ROOT)}),
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


if (
    __name__ == "__main__"
):  # python -m tests.arrivals_run HOME FOLDER: the files of tests/golden, from a stack
    for each in MODES:
        run_and_record(Path(sys.argv[1]), Path(sys.argv[2]), each)
