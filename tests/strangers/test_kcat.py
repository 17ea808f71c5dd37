"""A task on a broker, audited with kcat and the Go program: no Python of ours in between."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fluvial.proof.audit import audit_task
from schemas.topics import topics_of
from tests.small_federation import SmallFederation, on_mock_cluster
from tests.strangers.program import SCHEMAS, Stranger

pytestmark = pytest.mark.needs("go", "kcat")

FORMAT = r"%o %T %S\n%s\n"
"""As docs/contract.md has it."""
DUMP_LIMIT_S = 60.0


def test_what_kcat_dumps_is_enough_for_an_audit(stranger: Stranger, tmp_path: Path) -> None:
    assert f"'{FORMAT}'" in (SCHEMAS.parent / "docs" / "contract.md").read_text()
    with on_mock_cluster(tmp_path / "home") as settings:
        federation = SmallFederation(settings)
        federation.append("eu", 0, None)
        federation.append("eu", 0, b"no record\n12 34 5\n")
        federation.rounds(2)
        audit = audit_task(settings, federation.task_file)
        for topic in topics_of(federation.task, federation.partitions):
            folder = tmp_path / "dump" / "topics" / topic.name
            folder.mkdir(parents=True)
            for partition in range(topic.partitions):
                command = [
                    "kcat",
                    "-b",
                    settings.bootstrap_servers,
                    "-C",
                    "-q",
                    "-e",
                    "-t",
                    topic.name,
                    "-p",
                    str(partition),
                ]
                command += [
                    "-o",
                    "beginning",
                    "-X",
                    "isolation.level=read_uncommitted",
                    "-X",
                    "fetch.wait.max.ms=10",
                    "-f",
                    FORMAT,
                ]
                with (folder / f"{partition}.kcat").open("wb") as file:
                    subprocess.run(command, stdout=file, check=True, timeout=DUMP_LIMIT_S)
        assert settings.store.path is not None
        (tmp_path / "dump" / "store").symlink_to(settings.store.path)
    found = stranger(
        "audit", SCHEMAS, tmp_path / "dump", federation.task, federation.task_file.genesis_sha256
    )
    assert found["problems"] == []
    assert audit.identical
    assert (found["digest"], found["versions"], found["records"]) == (audit.digest, 2, audit.records)
