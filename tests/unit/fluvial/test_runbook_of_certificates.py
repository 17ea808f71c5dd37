"""The runbook certificate-expiring, followed as it stands on a home: the file that a process reads has a later end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backends import keys
from backends.tasks import TaskFile, keys_folder, write_task_file
from fluvial.local.create import MERGER, make_keys, worker_name
from schemas.certificates import CONTROL, Role
from tests.unit.house.test_runbooks import FOLDER, blocks

DAY_S = 86_400.0


def test_following_it_renews_what_processes_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / ".fluvial"
    make_keys(keys_folder(home, "digits"), {"eu": 1})
    write_task_file(
        home, TaskFile(task="digits", genesis_sha256="0" * 64, reference="digits", regions=("eu",))
    )
    read = [
        keys.signer_path(keys_folder(home, "digits"), region, role, name)
        for region, role, name in (
            ("eu", Role.WORKER, worker_name("eu")),  # what `fluvial worker --region eu` reads
            (CONTROL, Role.MERGER, MERGER),
        )
    ]
    for path in read:
        path.unlink()
    keys.issue(keys_folder(home, "digits"), "eu", Role.WORKER, worker_name("eu"), days=3)
    keys.issue(keys_folder(home, "digits"), CONTROL, Role.MERGER, MERGER, days=3)
    before = [(keys.certificate_serial(path), keys.certificate_expires_s(path)) for path in read]
    ours = [block for block in blocks(FOLDER / "certificate-expiring.md") if "fluvial ca" in block]
    assert len(ours) == 2
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    for block in ours:
        command = ["bash", "-euc", block]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    for path_of, (serial, expired) in zip(read, before, strict=True):
        assert keys.certificate_serial(path_of) != serial
        assert keys.certificate_expires_s(path_of) > expired + 300 * DAY_S
