"""How long importing takes, in processes of their own.

    python benchmarks/import_time.py [--rounds 15] [--json]

Medians of milliseconds on top of what an empty Python program takes, files in the page cache: by the clock, and of
the processor, which a busy neighbour changes less; and of the whole program's peak memory in MB.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import NamedTuple

from benchmarks import machine

PROGRAMS = {
    "import fluvial": "import fluvial",
    "from fluvial import Device": "from fluvial import Device",
    "from fluvial import load_model": "from fluvial import load_model",
    "from fluvial import Task": "from fluvial import Task",
    "import fluvial.cli": "import fluvial.cli",
    "the fold and its loops (numba)": "import aggregation.codecs.kernels",
}

PEAK = "; import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"


class Times(NamedTuple):
    """Milliseconds, and MB."""

    wall: float
    processor: float
    peak: float


def times_of(program: str) -> Times:
    """What one program takes, from start to end."""
    used, began_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, "-c", program + PEAK], check=True, capture_output=True, text=True)
    wall_s, now = time.perf_counter() - began_s, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor_s = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    return Times(wall_s * 1000, processor_s * 1000, int(done.stdout) / 1024)


def measure(rounds: int) -> dict[str, Times]:
    """Each program in turn, round by round, so that a busy neighbour meets them all."""
    taken: dict[str, list[Times]] = {name: [] for name in PROGRAMS}
    for _ in range(rounds):
        empty = times_of("pass")
        for name, program in PROGRAMS.items():
            times = times_of(program)
            taken[name].append(Times(times.wall - empty.wall, times.processor - empty.processor, times.peak))
    return {
        name: Times(
            statistics.median(one.wall for one in all_times),
            statistics.median(one.processor for one in all_times),
            statistics.median(one.peak for one in all_times),
        )
        for name, all_times in taken.items()
    }


def main() -> None:
    """Print the table, or with --json the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    measure(1)  # compiles what is not compiled yet
    medians = measure(options.rounds)
    if options.json:
        document = {name: value._asdict() for name, value in medians.items()}
        print(json.dumps({"machine": machine.describe(), "milliseconds_and_peak_mb": document}))
        return
    print(machine.describe())
    for name, value in medians.items():
        print(f"{name:34} {value.wall:7.0f} ms   processor {value.processor:7.0f} ms   {value.peak:6.0f} MB")


if __name__ == "__main__":
    main()
