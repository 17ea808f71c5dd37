"""The example device of the documentation, run as its page says: with training of its own, against real processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from tests.integration.pipeline import start_process

if TYPE_CHECKING:
    from backends.settings import Settings

ROOT = Path(__file__).parents[2]
LIMIT_S = 480.0
POLICY = "[buffer]\nseconds_max = 0.5\n\n[window]\nseconds_max = 0.3\n"


def run(stack: Settings, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "FLUVIAL_HOME": str(stack.home)},  # noqa: TID251
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def key_of(stack: Settings, task: str, device: str) -> str:
    """The key file of a device that is issued now: each has one contribution to a base."""
    words = ("ca", "issue", "--task", task, "--region", "eu", "--role", "device", device)
    found = re.search(r": (\S+\.pem)", run(stack, "-m", "fluvial.cli", *words))
    assert found is not None
    return found[1]


def test_the_example_device_contributes_to_version_after_version(stack: Settings, tmp_path: Path) -> None:
    task = f"t-{uuid.uuid4().hex[:10]}"
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY)
    cli = ("-m", "fluvial.cli")
    run(stack, *cli, "task", "create", "digits", "--name", task, "--regions", "eu:1", "--policy", str(policy))
    key, another = (key_of(stack, task, name) for name in ("device-1", "device-2"))
    running = [
        start_process(stack.home, tmp_path, ["worker", "--task", task, "--region", "eu"], "worker"),
        start_process(stack.home, tmp_path, ["merger", "--task", task], "merger"),
    ]
    try:
        said = run(stack, "docs/examples/device.py", "--task", task, "--key", key, "--rounds", "2")
        small = run(stack, "docs/examples/small_device.py", another, task, "eu")
    finally:
        for one in running:
            one.kill()
    lines = re.findall(r"^version (\d+): loss [\d.]+, fl\.\S+@\d+ accepted", said, re.MULTILINE)
    assert len(lines) == 2, said
    assert int(lines[0]) < int(lines[1])
    assert small.split() == ["accepted"]
