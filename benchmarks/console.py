"""The console: first paint, how soon an event stands on the page, what fifty viewers cost beside a running pipeline.

    python benchmarks/console.py [--seconds 15] [--rate 40] [--viewers 50] [--json]

One worker, one merger and the console on a real stack, devices that publish steadily, a headless Chromium. What viewers
cost is processor time of the console's process, as a share of one core and beside what the worker and the merger take.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import urllib3
from playwright.sync_api import Page, sync_playwright

from backends.environment import child_environment
from backends.settings import Settings
from benchmarks import latency, machine, synthetic
from fluvial.local.stack import LocalStack
from fluvial.terminal.output import Output

PAINTS = 7
EVENTS = 15
ACCEPTED = "#regions tbody td:nth-child(3)"
PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
CHANGED = """([where, before]) => new Promise((resolve) => {
  const now = () => document.querySelector(where)?.textContent;
  const look = () => (now() !== before ? resolve(Date.now()) : requestAnimationFrame(look));
  look();
})"""
START_S = 60.0


def start(settings: Settings, *arguments: str) -> tuple[psutil.Process, Path]:
    """A process of the pipeline, and its log."""
    log = settings.home / f"bench-{arguments[0]}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "fluvial.cli", "--home", str(settings.home), *arguments],
            stdout=file,
            stderr=file,
            env=child_environment(),
            cwd=Path(__file__).parents[1],
        )
    return psutil.Process(process.pid), log


def address_of(log: Path) -> str:
    """Where the console listens, once it says so."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        found = re.search(r"console: (http://\S+)", log.read_text())
        if found:
            return found[1]
        time.sleep(0.1)
    raise TimeoutError(log.read_text())


def watch(address: str, task: str, ended: threading.Event) -> None:
    """One viewer: read the event stream to the end."""
    answer = urllib3.request("GET", f"{address}api/tasks/{task}/events", preload_content=False, retries=False)
    for _ in answer.stream(4096):
        if ended.is_set():
            break
    answer.close()


def cpu_share(processes: list[psutil.Process], seconds: float) -> list[float]:
    """Processor seconds a second that each process takes."""
    before = [sum(one.cpu_times()[:2]) for one in processes]
    time.sleep(seconds)
    return [(sum(one.cpu_times()[:2]) - then) / seconds for one, then in zip(processes, before, strict=True)]


def with_viewers(
    count: int, address: str, task: str, processes: list[psutil.Process], seconds: float
) -> list[float]:
    """Shares of a core while so many look."""
    ended = threading.Event()
    viewers = [threading.Thread(target=watch, args=(address, task, ended), daemon=True) for _ in range(count)]
    for viewer in viewers:
        viewer.start()
    time.sleep(1.0)
    shares = cpu_share(processes, seconds)
    ended.set()
    for viewer in viewers:
        viewer.join(15.0)
    return shares


def first_paints(page: Page, address: str) -> list[float]:
    """Milliseconds to the first contentful paint, each time from the beginning."""
    found = []
    for _ in range(PAINTS):
        page.goto("about:blank")
        page.goto(address)
        page.wait_for_function(f"{PAINT.removesuffix('.startTime')} !== undefined")
        found.append(float(page.evaluate(PAINT)))
    return found


def events(page: Page, made: synthetic.Synthetic, address: str) -> list[float]:
    """Milliseconds from just before an update is appended until the page counts it."""
    page.goto(address)
    page.wait_for_selector(ACCEPTED)
    tensors = synthetic.tensors_of(made.layout, 1)
    found = []
    for number, device in zip(range(EVENTS), reversed(list(made.devices)), strict=False):
        time.sleep(1.5)
        before = page.inner_text(ACCEPTED)
        value = latency._update(made, device, 0, made.genesis.model_sha256, tensors, 100_000 + number)  # noqa: SLF001
        at_ms = time.time() * 1000
        made.publish(device, value)
        made.writer.flush()
        found.append(page.evaluate(CHANGED, [ACCEPTED, before]) - at_ms)
    return found


def measure(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    """The whole run."""
    made = synthetic.create(
        settings,
        task="console",
        parameters=latency.PARAMETERS,
        partitions=2,
        devices=latency.DEVICES,
        policy=latency.POLICY,
    )
    worker, _ = start(settings, "worker", "--task", made.task, "--region", made.region, "--name", "worker")
    merger, _ = start(settings, "merger", "--task", made.task, "--name", "merger")
    console, log = start(settings, "console", "--task", made.task, "--port", "0")
    processes = [console, worker, merger]
    try:
        address = address_of(log)
        time.sleep(latency.SETTLE_S)
        with ExitStack() as stack:
            playwright = stack.enter_context(sync_playwright())
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            page = browser.new_page()
            shown = events(page, made, address)
            paints = first_paints(page, address)
            browser.close()
        seconds = options.seconds
        traffic = threading.Thread(
            target=latency.publish, args=(made, 3 * (seconds + 20.0), options.rate), daemon=True
        )
        traffic.start()
        time.sleep(3.0)
        shares = {
            count: with_viewers(count, address, made.task, processes, seconds)
            for count in (0, 1, options.viewers)
        }
    finally:
        for one in processes:
            one.terminate()
        psutil.wait_procs(processes, timeout=15)
    return {
        "first_paint_ms": {"p50": statistics.median(paints), "max": max(paints)},
        "event_shown_ms": {"p50": statistics.median(shown), "max": max(shown)},
        "core_share_by_viewers": {
            count: dict(zip(("console", "worker", "merger"), found, strict=True))
            for count, found in shares.items()
        },
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--rate", type=float, default=40.0, help="updates a second")
    parser.add_argument("--viewers", type=int, default=50)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fluvial-bench-") as folder:
        stack = LocalStack(Path(folder) / ".fluvial", reporter=Output(), secured=False)
        try:
            found = measure(stack.up(), options)
        finally:
            stack.down()
    if options.json:
        print(json.dumps({"machine": machine.describe(), **found}, indent=2))
        return
    print(machine.describe())
    for name in ("first_paint_ms", "event_shown_ms"):
        print(f"{name:<20} p50 {found[name]['p50']:6.0f}   max {found[name]['max']:6.0f}")
    for count, shares in found["core_share_by_viewers"].items():
        print(f"{count:>3} viewers   " + "   ".join(f"{name} {share:6.1%}" for name, share in shares.items()))


if __name__ == "__main__":
    main()
