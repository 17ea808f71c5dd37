"""A rolling upgrade: workers and merger are replaced one at a time by other files while devices publish, and one worker
is rolled back. Nothing is lost, every update has one verdict, and the audit cannot tell that anything happened.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests import factories
from tests.integration.pipeline import ROOT, Federation, Running
from tests.integration.traffic import (
    Traffic,
    await_all_merged,
    await_group,
    await_verdict_everywhere,
    require_nothing_lost,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backends.settings import Settings

PACKAGES = ("aggregation", "schemas", "backends", "learning", "producers", "stream_apps", "fluvial")
PARTITIONS = {"eu": 2}
POLICY = factories.policy(
    window={"updates_max": 8, "seconds_max": 0.5}, buffer={"updates": 16, "seconds_max": 2.0}
)
NEXT_RELEASE = """

RELEASE = "the next release"
_configure_logging = configure_logging


def configure_logging() -> None:
    _configure_logging()
    log.info("this is %s", RELEASE)
"""


@pytest.fixture(scope="module")
def next_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This checkout's packages as other files, which say so when they run."""
    folder = tmp_path_factory.mktemp("next-release")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package)
    (folder / "infra").mkdir()
    shutil.copy(ROOT / "infra" / "prices.toml", folder / "infra")
    running = folder / "stream_apps" / "running.py"
    running.write_text(running.read_text() + NEXT_RELEASE)
    return folder


@pytest.fixture
def federation(stack: Settings, tmp_path: Path) -> Iterator[Federation]:
    federation = Federation(stack, tmp_path, PARTITIONS, POLICY)
    yield federation
    federation.end()


def start_from(release: Path, federation: Federation, kind: str, name: str, *arguments: str) -> Running:
    """Start a process of another release, under the name and with the log of the one that it replaces."""
    path = federation.folder / f"{name}.log"
    command = [kind, "--task", federation.task, "--name", name, *arguments]
    with path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "fluvial.cli", "--home", str(federation.settings.home), *command],
            cwd=release,
            env={**os.environ, "PYTHONPATH": str(release)},  # noqa: TID251
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    started = Running(name, path, process)
    federation.running.append(started)
    return started


def replace(federation: Federation, old: Running, release: Path, kind: str, *arguments: str) -> Running:
    """One step: stop it, start the other release under the same name."""
    said = len(old.log)
    assert old.stop() == 0, old.log
    started = start_from(release, federation, kind, old.name, *arguments)
    if release != ROOT:
        started.says("this is the next release", after=said)
    return started


def test_workers_and_merger_are_replaced_in_mid_run_and_nothing_is_lost(
    federation: Federation, next_release: Path
) -> None:
    merger = federation.start("merger", "merger")
    workers = {
        region: [federation.start("worker", f"worker-{region}-{i}", "--region", region) for i in range(2)]
        for region in PARTITIONS
    }
    for region in PARTITIONS:
        await_group(federation, region, 2)
    with Traffic(federation) as traffic:
        traffic.more(30)
        federation.await_version(1)
        for region, pair in workers.items():
            for old in list(pair):
                pair.remove(old)
                pair.append(replace(federation, old, next_release, "worker", "--region", region))
                await_group(federation, region, 2)
                await_verdict_everywhere(federation, region)
                traffic.more(10)
        version = federation.head
        merger = replace(federation, merger, next_release, "merger")
        federation.await_version(version + 2)
        first, *_ = workers["eu"]
        workers["eu"] = [replace(federation, first, ROOT, "worker", "--region", "eu")]  # rolled back
        await_group(federation, "eu", 2)
        await_verdict_everywhere(federation, "eu")
        traffic.more(20)
        traffic.end()
    for region in PARTITIONS:
        await_verdict_everywhere(federation, region)
    await_all_merged(federation)
    require_nothing_lost(federation, traffic)
    assert merger.process.poll() is None
