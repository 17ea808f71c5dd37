"""Workers that die, come back, end, freeze or meet their namesake: their partitions go on, nothing is lost or doubled.

How long it takes is measured by ``benchmarks/recovery.py``; the limits here only tell waiting from hanging.
"""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING

import pytest

from backends.kafka.consumer_groups import describe_groups
from backends.kafka.faust.transport import SESSION_TIMEOUT_S
from tests import factories
from tests.integration.pipeline import Federation, run_command
from tests.integration.traffic import (
    Traffic,
    await_all_merged,
    await_group,
    await_verdict_everywhere,
    require_nothing_lost,
)
from tests.waiting import WAIT_S

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backends.settings import Settings
    from tests.integration.pipeline import Running

REGION = "eu"
PARTITIONS = 4
ENDS_S = 120.0
POLICY = factories.policy(
    window={"updates_max": 8, "seconds_max": 0.5}, buffer={"updates": 16, "seconds_max": 2.0}
)


@pytest.fixture
def federation(stack: Settings, tmp_path: Path) -> Iterator[Federation]:
    federation = Federation(stack, tmp_path, {REGION: PARTITIONS}, POLICY, layout=factories.BUFFERED)
    yield federation
    federation.end()


def two_workers(federation: Federation) -> tuple[Running, Running]:
    first, second = federation.start("worker", "worker-0"), federation.start("worker", "worker-1")
    await_group(federation, REGION, 2)
    return first, second


def partitions_of(federation: Federation, name: str) -> tuple[int, ...]:
    """What the broker says that a worker has, by its name."""
    group = describe_groups(federation.settings, [f"fluvial-{federation.task}-{REGION}"])[0]
    return next(member.partitions for member in group.members if member.name == name)


def test_kills_with_and_without_a_restart_and_clean_stops_lose_nothing(federation: Federation) -> None:
    merger = federation.start("merger", "merger")
    first, second = two_workers(federation)
    with Traffic(federation) as traffic:
        traffic.more(20)
        federation.await_version(1)

        first.kill()
        first = federation.start("worker", "worker-0")
        await_verdict_everywhere(federation, REGION)
        await_group(federation, REGION, 2)

        second.kill()
        await_verdict_everywhere(federation, REGION)  # by the first: nobody starts the second again
        await_group(federation, REGION, 1)

        second = federation.start("worker", "worker-1")
        await_group(federation, REGION, 2)
        assert first.stop() == 0, first.log
        await_verdict_everywhere(federation, REGION)
        await_group(federation, REGION, 1)

        version = federation.head
        merger.kill()
        federation.start("merger", "merger")
        federation.await_version(version + 2)
        traffic.more(20)
        traffic.end()
    await_verdict_everywhere(federation, REGION)
    await_all_merged(federation)
    require_nothing_lost(federation, traffic)
    assert second.process.poll() is None


def test_a_worker_that_comes_back_under_its_name_gets_its_partitions_back(federation: Federation) -> None:
    first, second = two_workers(federation)
    before = partitions_of(federation, "worker-0")
    said = len(second.log)
    first.kill()
    federation.start("worker", "worker-0").says("worker worker-0 has", after=len(first.log))
    await_verdict_everywhere(federation, REGION)
    await_group(federation, REGION, 2)
    assert len(before) == PARTITIONS // 2
    if (
        "worker worker-1 has" not in second.log[said:]
    ):  # else this machine took longer than the session timeout
        assert partitions_of(federation, "worker-0") == before


def test_a_clean_stop_leaves_at_once_and_does_not_wait_for_the_session_timeout(
    federation: Federation,
) -> None:
    first, second = two_workers(federation)
    said = len(second.log)
    assert first.stop() == 0, first.log
    group = describe_groups(federation.settings, [f"fluvial-{federation.task}-{REGION}"])[0]
    assert [member.name for member in group.members] == ["worker-1"], "it has said that it leaves"
    second.says("worker worker-1 has", after=said)
    await_verdict_everywhere(federation, REGION)


def test_of_two_workers_with_one_name_the_first_ends_and_says_what_to_do(federation: Federation) -> None:
    first = federation.start("worker", "worker-0")
    await_group(federation, REGION, 1)
    await_verdict_everywhere(federation, REGION)
    namesake = federation.start("worker", "worker-0")
    assert first.process.wait(ENDS_S) == 4, first.log
    assert "error[FLV-3210]" in first.log and "--name" in first.log
    await_verdict_everywhere(federation, REGION)
    time.sleep(SESSION_TIMEOUT_S)  # long enough for one to throw the other out in turn
    assert namesake.process.poll() is None, namesake.log
    await_group(federation, REGION, 1)
    await_verdict_everywhere(federation, REGION)


def test_a_paused_worker_joins_again_when_nobody_has_taken_its_name(federation: Federation) -> None:
    federation.start("merger", "merger")
    first, _ = two_workers(federation)
    with Traffic(federation) as traffic:
        traffic.more(10)
        first.signal(signal.SIGSTOP)
        await_group(federation, REGION, 1)
        await_verdict_everywhere(federation, REGION)
        traffic.more(10)
        first.signal(signal.SIGCONT)
        await_group(federation, REGION, 2)
        await_verdict_everywhere(federation, REGION)
        traffic.end()
    await_all_merged(federation)
    require_nothing_lost(federation, traffic)


def test_a_paused_worker_that_was_replaced_meanwhile_ends_when_it_wakes(federation: Federation) -> None:
    federation.start("merger", "merger")
    first, _ = two_workers(federation)
    with Traffic(federation) as traffic:
        traffic.more(10)
        first.signal(signal.SIGSTOP)
        replacement = federation.start("worker", "worker-0")
        replacement.says("worker worker-0 has", after=len(first.log))
        await_verdict_everywhere(federation, REGION)
        first.signal(signal.SIGCONT)
        assert first.process.wait(WAIT_S) == 4, first.log
        assert "error[FLV-3210]" in first.log
        await_group(federation, REGION, 2)
        await_verdict_everywhere(federation, REGION)
        traffic.end()
    await_all_merged(federation)
    require_nothing_lost(federation, traffic)
    assert replacement.process.poll() is None, replacement.log


@pytest.mark.parametrize("name", ["a/b", "..", "", "ü", "x" * 250])
def test_a_name_that_kafka_would_refuse_is_refused_at_once(federation: Federation, name: str) -> None:
    done = run_command(
        federation.settings.home,
        "worker", "--task", federation.task, "--region", REGION, "--name", name, "--json",
    )  # fmt: skip
    assert done.returncode == 4, done.stderr
    assert json.loads(done.stdout)["error"]["id"] == "FLV-3211" or "FLV-3211" in done.stderr
