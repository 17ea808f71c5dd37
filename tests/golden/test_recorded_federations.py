"""Federations that ``make_federation`` recorded: audited, checked, resumed and made again as they were."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from fluvial.proof.checker import check_logs
from schemas.manifest_seals import require_sealed
from schemas.manifests import NEWEST_GENESIS
from schemas.objects import sha256_hex
from schemas.topics import aggregates_topic, updates_topic, verdicts_topic
from schemas.verdicts import decode_verdict
from schemas.vouching import HEADER
from tests.golden.make_federation import verdicts, version
from tests.golden.old_federation import audited, clock, federation, log_with, signers
from tests.golden.recorded import FIRST, HERE, TASK, Recording, store_of
from tests.recorded_order import RecordedOrder, made_again

RECORDED = [Recording(path) for path in sorted(HERE.glob("federation.*")) if path != FIRST.folder]


@pytest.fixture(params=RECORDED, ids=lambda one: one.folder.name)
def recorded(request: pytest.FixtureRequest) -> Recording:
    one: Recording = request.param
    return one


def versions(recorded: Recording) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = recorded.expected["versions"]
    return found


def test_every_format_since_v5_is_recorded() -> None:
    newest = int(NEWEST_GENESIS.rpartition("/v")[2])
    assert [one.folder.name for one in RECORDED] == [f"federation.v{n}" for n in range(5, newest + 1)]
    assert all(
        one.genesis().format.rpartition("/")[2] == one.folder.suffix.removeprefix(".") for one in RECORDED
    )


def test_it_is_audited_to_the_same_digest(tmp_path: Path, recorded: Recording) -> None:
    for expected in (recorded.expected["audit"], *recorded.expected["audits_of_a_part"]):
        report = audited(tmp_path, recorded.objects(), expected["from"], expected["to"], of=recorded)
        found = report.document()
        assert {name: found[name] for name in expected} == expected
        assert report.identical
    assert recorded.expected["audit"]["digest"] == recorded.expected["digest"]


def test_the_independent_checker_finds_nothing_wrong(recorded: Recording) -> None:
    places = [(topic, p) for topic, count in recorded.partitions() for p in range(count)]
    logs = {
        place: [(one.offset, one.timestamp_ms, one.key, one.value) for one in recorded.records(*place)]
        for place in places
    }
    heads = {
        place: [
            (one.timestamp_ms, value or b"")
            for one in recorded.records(*place)
            for name, value in one.headers
            if name == HEADER
        ]
        for place in places
        if place[0] in {verdicts_topic(TASK, region) for region in recorded.genesis().regions}
    }
    assert all(heads.values())
    report = check_logs(
        logs,
        recorded.objects(),
        TASK,
        recorded.expected["genesis_sha256"],
        drained=True,
        heads=heads,
        strangers=False,
    )
    assert list(report.violations) == []


def test_a_flipped_bit_in_it_is_found(tmp_path: Path, recorded: Recording) -> None:
    kept = recorded.objects()
    key = f"{TASK}/versions/2/model.safetensors"
    kept[key] = kept[key][:-1] + bytes([kept[key][-1] ^ 1])
    report = audited(tmp_path, kept, 1, len(versions(recorded)) - 1, of=recorded)
    assert any(key in str(one) for one in report.document()["findings"])


def test_its_documents_keep_their_bytes_and_its_verdicts_read_as_they_did(recorded: Recording) -> None:
    kept, task = recorded.objects(), recorded.genesis()
    assert task.canonical() == kept[f"{TASK}/versions/0/manifest.json"]
    assert task.sha256 == recorded.expected["genesis_sha256"]
    for one in versions(recorded):
        assert version(one["version"], kept[f"{TASK}/versions/{one['version']}/manifest.json"]) == one
    read = [verdicts(recorded, slot) for slot in task.slots]
    assert json.loads(json.dumps(read)) == recorded.expected["partitions"]
    store = store_of(kept)
    for one in versions(recorded)[1:]:
        require_sealed(store.manifest(one["version"]), task.trust)


def test_workers_and_merger_resumed_on_it_write_nothing_else(recorded: Recording) -> None:
    """The merger tells of its head once more, in the same bytes; new are the verdicts of these barriers alone."""
    at, task = clock(recorded), recorded.genesis()
    log, store = log_with(at=at, of=recorded), store_of(recorded.objects())
    running = federation(log, store, at, recorded)
    asyncio.run(running.start())
    assert running.merger.head.number == len(versions(recorded)) - 1
    of_verdicts = {verdicts_topic(TASK, region): updates_topic(TASK, region) for region in task.regions}
    for topic, count in recorded.partitions():
        for partition in range(count):
            standing = recorded.records(topic, partition)
            written = [log.record(topic, partition, n) for n in range(log.end(topic, partition))]
            assert tuple(written[: len(standing)]) == standing
            values = {one.value for one in written} - {one.value for one in standing}
            if topic in of_verdicts:
                folded = len(recorded.records(of_verdicts[topic], partition))
                told = log.end(of_verdicts[topic], partition)
                assert sorted(decode_verdict(one or b"").offset for one in values) == list(
                    range(folded, told)
                ), topic
            else:
                assert values == set(), topic
    assert {key: store.store.get(key) for key in store.store.list(f"{TASK}/")} == recorded.objects()


def test_workers_who_find_no_window_write_all_of_them_again(recorded: Recording) -> None:
    """To the byte; and no verdict differs from those that stand."""
    at, task = clock(recorded), recorded.genesis()
    topics = [
        topic
        for region in task.regions
        for topic in (updates_topic(TASK, region), verdicts_topic(TASK, region))
    ]
    log = log_with(*topics, at=at, of=recorded)
    running = federation(log, store_of(recorded.objects()), at, recorded)
    assert asyncio.run(running.resume_workers()) == dict.fromkeys(task.slots, 0)
    asyncio.run(running.fold())
    for region, partition in task.slots:
        for topic in (verdicts_topic(TASK, region), aggregates_topic(TASK, region)):
            written = {log.record(topic, partition, n).value for n in range(log.end(topic, partition))}
            assert len(written ^ {one.value for one in recorded.records(topic, partition)}) == 0, topic


def test_its_versions_are_made_again(recorded: Recording) -> None:
    order = RecordedOrder(recorded.genesis(), store_of(recorded.objects()), recorded.records)
    made = made_again(order, **signers(recorded))
    assert [sha256_hex(one.canonical()) for one in made] == [
        one["manifest_sha256"] for one in versions(recorded)[1:]
    ]


def test_workers_and_merger_go_on_where_it_ended(recorded: Recording) -> None:
    at = clock(recorded)
    log, store = log_with(at=at, of=recorded), store_of(recorded.objects())
    running = federation(log, store, at, recorded)

    async def run() -> None:
        await running.start()
        at.sleep(recorded.genesis().first_policy.buffer.seconds_max)
        await running.tick()
        await running.settle()

    asyncio.run(run())
    last = versions(recorded)[-1]
    assert running.merger.head.number == last["version"] + 1
    assert store.manifest(running.merger.head.number).parent_sha256 == last["manifest_sha256"]
