"""A guided task on the real stack: a guardian guides, a device that flips signs is refused, all is found identical."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from aggregation.reasons import Reason
from backends.kafka.configuration import connection
from backends.kafka.reading import LogReader
from backends.store.factory import open_object_store
from backends.store.task_store import TaskStore
from fluvial.local.create import create_task
from fluvial.local.policies import quick_policy
from fluvial.proof.audit import audit_task
from fluvial.proof.checker import CheckRequest, check
from fluvial.proof.checker.reading import StoreAddress
from fluvial.terminal.output import quiet_output
from schemas.topics import verdicts_topic
from schemas.verdicts import decode_verdict
from tests.integration.pipeline import Running, start_process
from tests.waiting import WAIT_S, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backends.settings import Settings

pytestmark = pytest.mark.timeout(300)

DEVICES, ATTACKERS, VERSIONS = 8, 1, 3
POLICY = """
format = "fluvial/policy/v3"

[defence]
kind = "guide"
guide_missing = "wait"
"""


@pytest.fixture
def running() -> Iterator[list[Running]]:
    started: list[Running] = []
    try:
        yield started
    finally:
        for one in started:
            if one.process.poll() is None:
                one.process.kill()
                one.process.wait(WAIT_S)


def test_a_guided_task_refuses_a_sign_flip_and_is_identical(
    stack: Settings, tmp_path: Path, running: list[Running]
) -> None:
    file = create_task(
        stack,
        reference="digits",
        name=f"guided-{uuid.uuid4().hex[:8]}",
        regions={"local": 1},
        policy_text=POLICY,
        policy_defaults=quick_policy(DEVICES),
        output=quiet_output(),
    )
    common = ["--task", file.task]
    for kind, more in {
        "worker": ["--region", "local"],
        "merger": [],
        "guardian": [],
        "fleet": [
            "--devices", str(DEVICES), "--attackers", str(ATTACKERS), "--versions", str(VERSIONS),
        ],
    }.items():  # fmt: skip
        running.append(start_process(stack.home, tmp_path, [kind, *common, *more], kind))
    worker, merger, guardian, fleet = running

    until(lambda: any(one.process.poll() is not None for one in running), "the fleet ends")
    assert fleet.process.returncode == 0, "\n".join(one.log[-2000:] for one in running)
    for one in (merger, worker, guardian):
        assert one.stop() == 0, one.log

    store = TaskStore(open_object_store(stack.store), file.task)
    head = store.head()
    assert head is not None
    named = [store.manifest(version).guide_sha256 for version in range(1, head.version + 1)]
    assert len(named) >= VERSIONS
    assert all(named), named
    with LogReader(stack, "test-guided") as reader:
        topic = verdicts_topic(file.task, "local")
        verdicts = [
            decode_verdict(one.value or b"") for one in reader.read(topic, 0, *reader.bounds(topic, 0))
        ]
    against = {one.device_id for one in verdicts if one.because.reason is Reason.AGAINST_GUIDE}
    assert len(against) == ATTACKERS, against

    report = audit_task(stack, file, jobs=1)
    assert [str(finding) for finding in report.findings] == []
    assert report.versions == head.version
    checked = check(
        CheckRequest(
            kafka=connection(stack),
            store=StoreAddress(
                endpoint=stack.store.endpoint,
                bucket=stack.store.bucket,
                access_key=stack.store.access_key,
                secret_key=stack.store.secret_key,
                secure=stack.store.secure,
                region=stack.store.region,
            ),
            task=file.task,
            genesis_sha256=file.genesis_sha256,
            drained=False,
        )
    )
    assert [violation.message for violation in checked.violations] == []
    assert (checked.identical, checked.versions) == (True, head.version)
