"""Simulating: updates of a crowd that nobody trained, folded and merged in one process, by the size of the crowd.

    python benchmarks/simulate.py [--updates 100000] [--devices 1000,100000] [--parameters 10000] [--signed] [--json]

Each size is a process of its own (``fluvial simulate --synthetic``), so that its peak memory is its own. A version is
1,000 updates, 10,000 devices train at once, their rounds have a median of a minute and log-normal tails. Time is that
of the simulation alone: devices' work (encoding, and with ``--signed`` keys, certificates and signatures) included, the
interpreter's start left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from backends.environment import child_environment
from benchmarks import machine

POLICY = """
[buffer]
updates = 1000
seconds_max = 3600.0

[window]
updates_max = 512
seconds_max = 600.0

[staleness]
versions_max = 50
seconds_max = 600.0
"""
AT_ONCE = 10_000


def simulate(devices: int, updates: int, parameters: int, policy: Path, *, signed: bool) -> dict[str, Any]:
    """One crowd, and what it took."""
    command = [
        *(sys.executable, "-m", "fluvial.cli", "simulate", "--json"),
        *("--synthetic", str(parameters), "--devices", str(devices), "--updates", str(updates)),
        *("--at-once", str(min(AT_ONCE, devices)), "--round", "60", "--policy", str(policy)),
        "--signed" if signed else "--unsigned",
    ]
    root = Path(__file__).parents[1]
    running = subprocess.Popen(
        command, cwd=root, env=child_environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert running.stdout is not None
    document = json.load(running.stdout)
    _, status, usage = os.wait4(running.pid, 0)
    running.returncode = os.waitstatus_to_exitcode(status)
    if running.returncode:
        raise SystemExit(f"the simulation ended with {running.returncode}: {document}")
    judged = document["updates"]
    return {
        "devices": devices,
        "signed": signed,
        "updates": judged,
        "versions": document["versions"],
        "accepted": document["verdicts"].get("accepted", 0),
        "updates_per_second": judged / document["machine"]["seconds"],
        "cpu_us_per_update": 1e6 * document["machine"]["cpu_seconds"] / judged,
        "peak_rss_mb": usage.ru_maxrss / 1024,
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--updates", type=int, default=100_000)
    parser.add_argument("--devices", default="1000,10000,100000", help="sizes, with commas")
    parser.add_argument("--parameters", type=int, default=10_000)
    parser.add_argument("--signed", action="store_true", help="devices sign")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fluvial-bench-") as folder:
        policy = Path(folder) / "policy.toml"
        policy.write_text(POLICY)
        rows = [
            simulate(int(devices), options.updates, options.parameters, policy, signed=options.signed)
            for devices in options.devices.split(",")
        ]
    if options.json:
        print(json.dumps({"machine": machine.describe(), "runs": rows}, indent=2))
        return
    print(f"{machine.describe()}\nupdates of {options.parameters} int8 parameters, nobody trained them")
    print("devices  signed   updates  versions  updates/s  CPU us/update  peak RSS MB")
    for row in rows:
        print(
            f"{row['devices']:7d}  {row['signed']!s:6}  {row['updates']:8d}  {row['versions']:8d}  "
            f"{row['updates_per_second']:9.0f}  {row['cpu_us_per_update']:13.0f}  {row['peak_rss_mb']:11.0f}"
        )


if __name__ == "__main__":
    main()
