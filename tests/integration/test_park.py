"""A record on which a real worker's fold raises: its partition alone stops, a signed Skip parks it, audits agree.

The worker gets its defect from ``tests.integration.defect``; the audit and later workers have none.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from fluvial import cli
from fluvial.local.create import OPERATOR
from fluvial.proof.audit import audit_task
from schemas.certificates import Role
from tests import factories
from tests.integration.defect import install_defect
from tests.integration.pipeline import Federation, Running, start_process
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backends.settings import Settings

PARKED, OTHER = ("eu", 0), ("eu", 1)
PER_WINDOW = 4
# A window closes when it is full, never by the clock; both partitions' windows together make one version.
POLICY = factories.policy(
    window={"updates_max": PER_WINDOW, "seconds_max": 3600.0},
    buffer={"updates": 2 * PER_WINDOW, "seconds_max": 3600.0},
    anomaly={"enabled": False},
)


@pytest.fixture
def federation(stack: Settings, tmp_path: Path) -> Iterator[Federation]:
    federation = Federation(stack, tmp_path, {"eu": 2}, POLICY)
    federation._control_signer(Role.OPERATOR, OPERATOR)
    yield federation
    federation.end()


class Devices:
    """Devices of one partition, none of which comes twice."""

    def __init__(self, federation: Federation, slot: tuple[str, int]) -> None:
        self.federation = federation
        self.slot = slot
        self._names = iter(factories.devices(40, partition=slot[1], partitions=2))

    def send(self, count: int = 1) -> list[int]:
        names = [next(self._names) for _ in range(count)]
        values = [self.federation.update(name, seed=int(name[2:])) for name in names]
        return [self.federation.append(self.slot, value) for value in values]


def start_defective(federation: Federation, place: str, offset: int) -> Running:
    """A worker whose fold raises at ``offset`` of the parked partition."""
    name = f"defective-{place}"
    command = ["worker", "--task", federation.task, "--region", "eu", "--name", name]
    defect = partial(install_defect, place, PARKED[1], offset)
    running = start_process(federation.settings.home, federation.folder, command, name, defect)
    federation.running.append(running)
    return running


def park(federation: Federation, offset: int, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Run `fluvial park`, which waits for the verdict; its document."""
    arguments = ["--home", str(federation.settings.home), "park", "--task", federation.task, "--region", "eu"]
    arguments += ["--partition", "0", "--offset", str(offset), "--reason", "the fold raises on it"]
    capsys.readouterr()
    code = cli.main([*arguments, "--yes", "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err + federation.logs()
    document: dict[str, Any] = json.loads(captured.out)
    return document


def outcomes(federation: Federation, through: int) -> list[str]:
    """The parked partition's verdicts; every offset has exactly one."""
    federation.await_verdicts(PARKED, through)
    found = federation.verdicts(PARKED)
    assert [one.offset for one in found] == list(range(through + 1))
    return [one.outcome for one in found]


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_parked_record_is_left_out_and_all_others_count(
    federation: Federation, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parked, other = Devices(federation, PARKED), Devices(federation, OTHER)
    first = parked.send(2)
    (bad,) = parked.send()
    parked.send(1)
    worker = start_defective(federation, place, bad)
    worker.says(f"folding offset {bad} raised ZeroDivisionError: a defect of ours")
    federation.await_verdicts(OTHER, other.send(PER_WINDOW)[-1])  # the other partition goes on
    federation.await_verdicts(PARKED, first[-1])
    assert len(federation.verdicts(PARKED)) == len(first)

    document = park(federation, bad, capsys)
    assert document["verdict"]["outcome"] == "skipped"
    last = parked.send(1)[-1]
    assert outcomes(federation, last) == [
        "accepted",
        "accepted",
        "skipped",
        "accepted",
        "control",
        "accepted",
    ]
    federation.start("merger", "merger")
    federation.await_version(1)
    (window,) = federation.aggregates(PARKED)
    assert dict(window.counts) == {"accepted": PER_WINDOW, "skipped": 1}
    assert worker.process.poll() is None
    report = audit_task(federation.settings, federation.task_file, jobs=1)
    assert report.identical, [str(one) for one in report.findings]
    assert report.updates == 2 * PER_WINDOW


@pytest.mark.parametrize("successor", ["mended", "as defective"])
def test_who_takes_over_after_the_skip_agrees(
    federation: Federation, successor: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The window is still open: the next worker folds it again, and has no published window to go by."""
    devices = Devices(federation, PARKED)
    devices.send(2)
    (bad,) = devices.send()
    worker = start_defective(federation, "before", bad)
    worker.says(f"folding offset {bad} raised")
    park(federation, bad, capsys)
    federation.await_verdicts(PARKED, bad + 1)
    worker.kill()
    if successor == "mended":
        federation.start("worker", "mended")
    else:
        start_defective(federation, "before", bad)
    last = devices.send(2)[-1]
    assert outcomes(federation, last) == [
        "accepted",
        "accepted",
        "skipped",
        "control",
        "accepted",
        "accepted",
    ]
    (window,) = until(lambda: federation.aggregates(PARKED), "a window\n" + federation.logs())
    assert dict(window.counts) == {"accepted": PER_WINDOW, "skipped": 1}
    report = audit_task(federation.settings, federation.task_file, jobs=1)
    assert report.identical, [str(one) for one in report.findings]


def test_a_worker_without_the_defect_folds_the_record_whatever_a_skip_says(federation: Federation) -> None:
    devices = Devices(federation, PARKED)
    first = devices.send(2)
    record = {
        "task": federation.task,
        "region": "eu",
        "partition": 0,
        "offset": first[1],
        "reason": "a mistake",
    }
    federation.append(PARKED, federation.operator_signer.sign("Skip", record))
    federation.start("worker", "worker")
    last = devices.send(2)[-1]
    assert outcomes(federation, last) == ["accepted", "accepted", "control", "accepted", "accepted"]
    until(lambda: federation.aggregates(PARKED), "a window")
    assert audit_task(federation.settings, federation.task_file, jobs=1).identical


@pytest.mark.parametrize("by", ["a merger", "another partition's", "another task's"])
def test_only_an_operators_skip_of_this_very_partition_parks(
    federation: Federation, by: str, capsys: pytest.CaptureFixture[str]
) -> None:
    devices = Devices(federation, PARKED)
    (bad,) = devices.send()
    worker = start_defective(federation, "before", bad)
    worker.says(f"folding offset {bad} raised")
    record = {"task": federation.task, "region": "eu", "partition": 0, "offset": bad, "reason": "wrong"}
    changes: dict[str, dict[str, Any]] = {
        "a merger": {},
        "another partition's": {"partition": 1},
        "another task's": {"task": "other"},
    }
    signer = federation.merger_signer if by == "a merger" else federation.operator_signer
    false = federation.append(PARKED, signer.sign("Skip", record | changes[by]))
    document = park(federation, bad, capsys)
    assert document["skip_offset"] == false + 1
    assert f"Skip at offset {false + 1}" in document["verdict"]["detail"]
    federation.await_verdicts(PARKED, false + 1)
    refused = {
        "a merger": "bad_signature",
        "another partition's": "wrong_partition",
        "another task's": "wrong_task",
    }
    assert [one.outcome for one in federation.verdicts(PARKED)] == ["skipped", refused[by], "control"]
