"""Proof that the simulator bites: each mutation takes a safeguard away, and some seed has to notice.

``python -m tests.simulation.mutants`` runs every mutation in a copy of the sources. Exit code 0: all caught; 1: one
lived, or the sources no longer hold the lines that a mutation changes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.simulation.mutation import Mutation
from tests.simulation.mutations import MUTATIONS

ROOT = Path(__file__).parents[2]
PACKAGES = ("aggregation", "schemas", "backends", "learning", "producers", "stream_apps", "fluvial", "tests")
SEEDS_MAX = 400
TIMEOUT_S = 300.0
RAISED = ("AttributeError", "NameError", "ImportError", "SyntaxError", "TypeError")
"""What a mutation that is no longer valid code ends in: that is not a catch."""


def copy_of_sources(folder: Path) -> None:
    """The sources, beside nothing else."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package)


def mutate(mutation: Mutation, folder: Path) -> None:
    """Change the sources in ``folder``; LookupError where they no longer hold what the mutation changes."""
    for file, old, new in mutation.edits:
        text = (folder / file).read_text()
        if text.count(old) != 1:
            raise LookupError(f"{mutation.name}: {file} holds {old!r} {text.count(old)} times, expected once")
        (folder / file).write_text(text.replace(old, new))


def simulate(folder: Path, seeds: int) -> tuple[int, str]:
    """The exit code of the simulator on the sources in ``folder``, and its first violation."""
    command = [
        sys.executable,
        "-m",
        "tests.simulation",
        "--seeds",
        str(seeds),
        "--until-violation",
        "--jobs",
        "1",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    said = [line for line in done.stderr.splitlines() if line.startswith("seed ")]
    return done.returncode, said[0] if said else done.stderr.strip()[-400:]


def try_one(mutation: Mutation, seeds: int) -> dict[str, object]:
    """Whether the mutation is caught, by which seed, and what it said."""
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fluvial-mutant-") as name:
        folder = Path(name)
        copy_of_sources(folder)
        mutate(mutation, folder)
        code, said = simulate(folder, seeds)
    caught = code == 1 and said.startswith("seed ") and not any(error in said for error in RAISED)
    return {
        "mutation": mutation.name,
        "caught": caught,
        "said": said,
        "seconds": round(time.monotonic() - began_s, 1),
    }


def main() -> int:
    """Exit code 0 when every mutation was caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants", description=__doc__)
    parser.add_argument(
        "--seeds", type=int, default=SEEDS_MAX, help=f"schedules for each (default {SEEDS_MAX})"
    )
    parser.add_argument("--only", default="", help="mutations whose name begins so")
    parser.add_argument("--jobs", type=int, default=2, help="mutations at a time (default 2)")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    arguments = parser.parse_args()
    chosen = [one for one in MUTATIONS if one.name.startswith(arguments.only)]
    results = []
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for result in pool.map(lambda one: try_one(one, arguments.seeds), chosen):
            results.append(result)
            verdict = "caught" if result["caught"] else "LIVES "
            print(
                f"{verdict} {result['mutation']}  ({result['seconds']} s)\n       {result['said']}",
                file=sys.stderr,
            )
    lived = [result["mutation"] for result in results if not result["caught"]]
    if arguments.json:
        print(json.dumps({"mutations": len(results), "lived": lived, "results": results}))
    else:
        print(
            f"{len(results)} mutations, {len(results) - len(lived)} caught"
            + "".join(f"\nlives: {n}" for n in lived)
        )
    return 1 if lived or not results else 0


if __name__ == "__main__":
    sys.exit(main())
