"""Many schedules, each by its seed: ``python -m tests.simulation --seeds 500``; one again: ``--seed 17 --trace``."""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import logging
import multiprocessing
import os
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from backends.environment import child_environment

CHUNK = 8
SAY_EVERY_S = 5.0
SHOWN_MAX = 20


@dataclass
class Outcome:
    """What one seed came to. ``digest`` names its whole history: equal runs have equal ones."""

    seed: int
    violations: list[str]
    digest: str = ""
    records: int = 0
    versions: int = 0
    faults: dict[str, int] = field(default_factory=dict)


def run_seed(seed: int) -> Outcome:
    """Run one schedule and check it."""
    from tests.simulation.federation import Federation
    from tests.simulation.invariants import violations

    federation = Federation(seed)
    try:
        federation.run()
        found = violations(federation)
    except Exception as error:  # noqa: BLE001 (whatever a run raises is a finding about its seed)
        last = traceback.extract_tb(error.__traceback__)[-1]
        found = [f"7: {type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"]
    return Outcome(
        seed,
        found,
        federation.digest(),
        federation.log.appended,
        federation.versions,
        federation.strikes.counts,
    )


def _quiet() -> None:
    logging.disable(logging.CRITICAL)  # outages and refusals by the thousand are what this is about
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # a schedule makes few cycles, and is short


def _trace(seed: int) -> int:
    from tests.simulation.federation import Federation
    from tests.simulation.invariants import violations

    federation = Federation(seed, trace_lines=[])
    try:
        federation.run()
        found = violations(federation)
    finally:
        print("\n".join(federation.trace_lines or ()))
    print(
        f"seed {seed}: {federation.log.appended} records, {federation.versions} versions, {federation.strikes.counts}"
    )
    for one in found:
        print(f"violation {one}")
    return 1 if found else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=500, help="how many schedules (default 500)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--seed", type=int, help="only this seed")
    parser.add_argument("--trace", action="store_true", help="with --seed: print every event")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: the cores)"
    )
    parser.add_argument("--until-violation", action="store_true", help="end at the first violation")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    return parser.parse_args()


def main() -> int:
    """Exit code 0, or 1 when an invariant was broken, or when no version was made: that would prove nothing."""
    if sys.flags.hash_randomization:  # sets of strings are iterated, and their order is part of a schedule
        again = [sys.executable, "-m", "tests.simulation", *sys.argv[1:]]
        os.execve(sys.executable, again, child_environment({"PYTHONHASHSEED": "0"}))
    arguments = _arguments()
    if arguments.seed is not None and arguments.trace:
        _quiet()
        return _trace(arguments.seed)
    first, count = (arguments.seed, 1) if arguments.seed is not None else (arguments.first, arguments.seeds)
    return _many(first, count, arguments)


def _many(first: int, count: int, arguments: argparse.Namespace) -> int:
    began_s = said_s = time.monotonic()
    failed: list[Outcome] = []
    faults: Counter[str] = Counter()
    digest = hashlib.sha256()
    records = versions = done = 0
    jobs = max(1, min(arguments.jobs, count))
    logging.disable(logging.CRITICAL)
    run_seed(first)  # loads the libraries and compiled kernels once, for all processes forked from here
    with multiprocessing.get_context("fork").Pool(jobs, _quiet) as pool:
        for outcome in pool.imap(
            run_seed, range(first, first + count), chunksize=CHUNK if count > CHUNK else 1
        ):
            done += 1
            records += outcome.records
            versions += outcome.versions
            faults.update(outcome.faults)
            digest.update(outcome.digest.encode())
            if outcome.violations:
                failed.append(outcome)
                _say_failed(outcome, len(failed))
                if arguments.until_violation:
                    break
            if time.monotonic() - said_s > SAY_EVERY_S:
                said_s = time.monotonic()
                rate = done / (said_s - began_s) * 60
                print(
                    f"{done} of {count} schedules, {rate:.0f} a minute, {len(failed)} failed", file=sys.stderr
                )
    seconds = time.monotonic() - began_s
    document = {
        "schedules": done,
        "failed": len(failed),
        "seeds": [outcome.seed for outcome in failed],
        "records": records,
        "versions": versions,
        "faults": dict(sorted(faults.items())),
        "seconds": round(seconds, 1),
        "schedules_per_minute": round(done / seconds * 60),
        "digest": digest.hexdigest(),
    }
    if arguments.json:
        print(json.dumps(document))
    else:
        struck = ", ".join(f"{kind} {number}" for kind, number in sorted(faults.items()))
        print(
            f"{done} schedules of {records} records and {versions} versions in {seconds:.0f} s "
            f"({document['schedules_per_minute']} a minute): {len(failed)} with a violation\nfaults: {struck}"
        )
    if not versions:
        print("no schedule made a version: the invariants held over nothing", file=sys.stderr)
    return 1 if failed or not versions else 0


def _say_failed(outcome: Outcome, number: int) -> None:
    if number > SHOWN_MAX:
        return
    print(f"seed {outcome.seed}: {outcome.violations[0]}", file=sys.stderr)
    for further in outcome.violations[1:3]:
        print(f"  and {further}", file=sys.stderr)
    print(f"  again: .venv/bin/python -m tests.simulation --seed {outcome.seed} --trace", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
