"""Vectors of canonical records: workers, checker and other interpreters give each one verdict."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import fastavro
import msgspec
import pytest
import rfc8785
from cryptography.hazmat.primitives.serialization import Encoding

from aggregation.fold.rules import CANONICAL_RULES
from fluvial.proof.checker.fold import Partition
from fluvial.proof.checker.task import Shelf, task_of
from schemas.documents import genesis_v4
from schemas.manifests import Genesis, Region
from schemas.verdicts import encode_verdict
from tests import factories, requirements
from tests.golden import on_another_interpreter
from tests.golden.odd_records import odd_records
from tests.interpreters import VERSIONS, others

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
VECTORS: list[dict[str, Any]] = json.loads((HERE / "odd_records.v1.json").read_text())


@pytest.mark.parametrize("vector", VECTORS, ids=[one["name"] for one in VECTORS])
def test_the_workers_give_an_odd_record_its_verdict_to_the_byte(vector: dict[str, Any]) -> None:
    verdict = factories.Site().append(bytes.fromhex(vector["record"]))
    assert encode_verdict(verdict, CANONICAL_RULES).hex() == vector["verdict"]
    assert (verdict.outcome, verdict.because.named) == (vector["outcome"], vector["values"])


class NoObjects:
    def get(self, key: str, /) -> bytes | None:
        raise AssertionError(key)

    def keys(self, prefix: str, /) -> list[str]:
        raise AssertionError(prefix)


def partition() -> Partition:
    """The checker's fold of the task that the vectors are of."""
    pems = {
        region: one.public_bytes(Encoding.PEM).decode()
        for region, one in factories.trust().authorities.items()
    }
    genesis = Genesis(
        task=factories.TASK,
        regions={region: Region(1, pems[region]) for region in ("eu", "us")},
        control_authority=pems[factories.CONTROL],
        layout=factories.entries(factories.LAYOUT),
        policy=msgspec.json.decode(factories.policy().canonical()),
        model_sha256=factories.model_sha(0),
        optimizer_sha256=factories.sha("optimizer"),
        format=genesis_v4.FORMAT,
    )
    return Partition(Shelf(NoObjects(), task_of(genesis.canonical())), ("eu", 0))


@pytest.mark.parametrize("vector", VECTORS, ids=[one["name"] for one in VECTORS])
def test_the_checker_gives_an_odd_record_the_same_outcome(vector: dict[str, Any]) -> None:
    folded = partition().take(factories.NOW_MS, bytes.fromhex(vector["record"]))
    assert (folded.verdict["outcome"], folded.verdict["device_id"]) == (
        vector["outcome"],
        vector["device_id"],
    )


def test_vectors_are_of_every_odd_record() -> None:
    assert [one["name"] for one in VECTORS] == list(odd_records())


def interpreters() -> dict[str, str]:
    """Their paths by version; without any the test is skipped by name, or fails in CI."""
    found = others()
    if not found:
        requirements.lack(f"not installed: another interpreter, of {', '.join(VERSIONS)}")
    return found


def said_by(python: str, *folders: Path) -> dict[str, Any]:
    environment = {
        "PYTHONPATH": os.pathsep.join(map(str, folders)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LC_ALL": "C.UTF-8",
    }
    done = subprocess.run(
        [python, "-m", on_another_interpreter.__name__],
        cwd=ROOT,
        env=environment,
        input=(HERE / "odd_records.v1.json").read_bytes(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_other_interpreters_with_other_libraries_give_the_same_verdicts(tmp_path: Path) -> None:
    """Of fastavro they have the pure-Python half only: the compiled one is built for this interpreter."""
    for package in (fastavro, rfc8785):
        (tmp_path / package.__name__).symlink_to(Path(str(package.__file__)).parent)
    here = said_by(sys.executable, ROOT)
    del here["python"]
    assert here["verdicts"] == [one["verdict"] for one in VECTORS]
    for version, python in interpreters().items():
        there = said_by(python, tmp_path, ROOT)
        assert there.pop("python").startswith(f"{version}.")
        assert there == here
