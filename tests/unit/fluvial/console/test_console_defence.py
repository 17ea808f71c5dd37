"""The page of the defence: what the newest windows and the followed verdicts say, and within one request's bounds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from aggregation.errors import UsageProblem
from backends.store.task_store import TaskStore
from fluvial.console.budget import Budget, PagedStore
from fluvial.console.defence import RULES, defence_page
from fluvial.console.follow import Follower
from fluvial.console.limits import DEFENCE_PARTITIONS_MAX
from fluvial.console.looks import LogSeen, Made, StoreSeen
from fluvial.console.paging import Page, Readers
from fluvial.console.recent import Recent, SlotFacts
from fluvial.console.threads import Seen
from fluvial.console.watch import Known, Watch
from schemas.objects import sha256_hex
from schemas.topics import aggregates_topic, updates_topic, verdicts_topic
from tests import factories
from tests.small_federation import PARTITIONS, SmallFederation
from tests.unit.fluvial.reading.test_devices import (
    HONEST,
    LIAR,
    REFUSALS,
    VERSIONS,
    federation_of,
    play,
    read,
    view_of,
)

if TYPE_CHECKING:
    from pathlib import Path


def page_of(federation: SmallFederation, home: Path) -> Page:
    """One request's page, after the follower has taken all that stands in the topics."""
    view, genesis = view_of(federation), federation.genesis
    recent = Recent({slot: SlotFacts() for slot in genesis.slots})
    follower, ends = Follower(federation.task, genesis, recent), {}
    for region, partition in genesis.slots:
        ends[region, partition] = view.reader.bounds(updates_topic(federation.task, region), partition)[1]
        for topic in (verdicts_topic(federation.task, region), aggregates_topic(federation.task, region)):
            for record in view.reader.read(topic, partition, *view.reader.bounds(topic, partition)):
                follower.take(record)
    head, now_ms = federation.version, round(time.time() * 1000)
    data = federation.objects.manifest_bytes(head)
    made = (Made(head, sha256_hex(data), federation.objects.manifest(head)),)
    known = Known(
        now_ms,
        federation.task,
        Seen(StoreSeen(genesis, head, made, None), now_ms, ""),
        Seen(LogSeen(ends, {}, ()), now_ms, ""),
        Seen((), now_ms, ""),
        [],
    )
    watch = Watch(home, federation.task_file)
    watch.recent, budget = recent, Budget()
    objects = TaskStore(PagedStore(federation.objects.store, budget), federation.task)
    return Page(watch, known, "fluvial", Readers(), budget, _objects=objects)


@pytest.fixture(scope="module")
def held() -> SmallFederation:
    """The liar is in quarantine, and sends on."""
    federation = federation_of()
    play(federation, REFUSALS + 2)
    return federation


def test_who_is_suspected_stands_as_the_command_says(held: SmallFederation, tmp_path: Path) -> None:
    answer = defence_page(page_of(held, tmp_path), {})
    (only,) = answer["devices"]
    (expected,) = [one.document() for one in read(held, quarantined=True).shown]
    reason = only.pop("last_anomalous"), expected.pop("last_anomalous")
    assert {key: value for key, value in only.items() if key != "meaning"} == expected
    assert reason[0]["detail"] == reason[1]["detail"] != ""
    assert (only["device_id"], only["quarantined_until"] - only["quarantined_since"]) == (LIAR, VERSIONS)
    assert (answer["quarantined"], answer["known_devices"]) == (1, 1 + len(HONEST))
    assert answer["usual"]["norm"] > 0.0 and answer["guide_sha256"] is None


def test_what_the_rules_refused_and_of_whom(held: SmallFederation, tmp_path: Path) -> None:
    answer = defence_page(page_of(held, tmp_path), {"region": "eu"})
    counts = {one["reason"]: one["count"] for one in answer["rules"]}
    assert counts == dict(zip(RULES, (REFUSALS, 2, 0), strict=True))
    assert answer["unsuspected"] == {"refused": 0, "of": REFUSALS + 2, "devices": 0}
    assert answer["accepted"] == len(HONEST) * (REFUSALS + 2)


def test_a_refusal_of_one_who_is_not_suspected_is_what_it_may_cost(tmp_path: Path) -> None:
    """Whose share is used up is suspected of nothing."""
    federation = federation_of(shares={"per_version": 1, "saved_max": 1})
    play(federation, 1)
    late = factories.devices(5, partition=0, partitions=PARTITIONS["eu"])[4]
    for base in (1, 0):
        federation.append("eu", 0, federation.update("eu", late, base=base, seed=base))
    federation.close_windows()
    federation.fold()
    answer = defence_page(page_of(federation, tmp_path), {})
    assert [one["device_id"] for one in answer["devices"]] == [LIAR]
    assert {one["reason"]: one["count"] for one in answer["rules"]} == dict(
        zip(RULES, (1, 0, 1), strict=True)
    )
    assert answer["unsuspected"] == {"refused": 1, "of": 2, "devices": 1}


def test_a_task_that_keeps_no_shares_says_so(tmp_path: Path) -> None:
    federation = SmallFederation(policy=factories.policy())
    federation.rounds(1, per_partition=2)
    answer = defence_page(page_of(federation, tmp_path), {})
    assert (answer["keeps_shares"], answer["devices"], answer["usual"]) == (False, [], None)
    assert answer["accepted"] == 6


def test_a_region_that_there_is_not_is_refused(held: SmallFederation, tmp_path: Path) -> None:
    with pytest.raises(UsageProblem) as caught:
        defence_page(page_of(held, tmp_path), {"region": "asia"})
    assert caught.value.error_id == "FLV-6204"


def test_one_request_reads_so_many_partitions_and_no_more(
    held: SmallFederation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = page_of(held, tmp_path)
    answer: dict[str, Any] = defence_page(page, {})
    assert page.budget.objects <= 2 * DEFENCE_PARTITIONS_MAX and page.budget.records == 0
    assert (len(answer["partitions"]), answer["partitions_of"]) == (len(held.genesis.slots),) * 2
    monkeypatch.setattr("fluvial.console.defence.DEFENCE_PARTITIONS_MAX", 1)
    fewer = defence_page(page_of(held, tmp_path), {})
    assert (len(fewer["partitions"]), fewer["partitions_of"]) == (1, len(held.genesis.slots))
    assert fewer["of"] is None, "how many there are in all is not known then"
