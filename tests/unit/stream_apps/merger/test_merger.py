"""The merger against librdkafka's test cluster and a file store: what is lost, late, or somebody else's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aggregation.errors import AccessProblem, ConnectionProblem, FluvialError
from aggregation.fold.contributions import Contributions
from backends.kafka.reading import LogReader
from backends.kafka.writing import LogWriter
from backends.store.file import FileStore
from backends.store.task_store import TaskStore
from fluvial.proof.audit import audit_task
from schemas.envelope import open_envelope
from schemas.objects import manifest_key, model_key, optimizer_key
from schemas.records import Announcement, announcement_in
from schemas.topics import aggregates_topic, models_topic, updates_topic
from stream_apps.merger.adopting import Adopting
from stream_apps.merger.committing import Committing
from stream_apps.merger.merger import Merger
from stream_apps.merger.policies import Policies
from stream_apps.process_context import ProcessContext
from tests import factories
from tests.failing_key import failing
from tests.small_federation import SmallFederation, on_mock_cluster
from tests.unit.stream_apps.merger.merger_parts import Logs, publish_window, small_task

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from backends.log import Headers, Position
    from schemas.envelope import KeyPair
    from stream_apps.merger.version import Version

POLICY = factories.policy(window={"updates_max": 3}, buffer={"updates": 9, "seconds_max": 3600.0})


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[SmallFederation]:
    with on_mock_cluster(tmp_path) as settings:
        yield SmallFederation(settings, policy=POLICY)


def merger_of(federation: SmallFederation, name: str, key_pair: KeyPair | None = None) -> Merger:
    settings = federation.settings
    return Merger(
        ProcessContext.of(
            genesis=federation.genesis,
            store=federation.objects,
            writer=LogWriter(settings, name, give_up=False),
            key_pair=key_pair or factories.merger_signer(),
            name=name,
            open_reader=lambda purpose: LogReader(settings, f"{name}-{purpose}"),
        )
    )


def offer_all(federation: SmallFederation, to: Merger) -> None:
    """All windows that stand in the aggregates topics, as Faust would deliver them."""
    with LogReader(federation.settings, "test-offer") as reader:
        for region, partition in federation.genesis.slots:
            topic = aggregates_topic(federation.task, region)
            for record in reader.read(topic, partition, 0, reader.bounds(topic, partition)[1]):
                to.offer(record, region)


def windows(federation: SmallFederation) -> None:
    """One full window of every partition, on the head as the workers know it."""
    federation.send(3)
    federation.fold()


def remove(federation: SmallFederation, key: str) -> None:
    assert federation.settings.store.path is not None
    (federation.settings.store.path / key).unlink()


def test_the_loser_of_a_race_adopts_the_winners_head_and_forgets_what_it_merged(
    federation: SmallFederation,
) -> None:
    winner, loser = merger_of(federation, "winner"), merger_of(federation, "loser")
    for one in (winner, loser):
        one.resume()
    windows(federation)
    offer_all(federation, winner)
    offer_all(federation, loser)
    assert winner.merge_if_due()
    assert loser.merge_if_due()
    assert loser.head.manifest_sha256 == winner.head.manifest_sha256
    assert not loser.pending.waiting()
    assert not loser._windows._log_offsets, "a merger that always loses would remember every window for ever"


def test_a_region_hears_of_a_version_once_all_its_partitions_have_its_barrier(
    federation: SmallFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = merger_of(federation, "one")
    one.resume()
    windows(federation)
    offer_all(federation, one)
    announce = one._telling._announce
    standing: dict[str, bool] = {}

    def watched(version: Version, region: str, headers: Headers) -> Future[Position]:
        standing[region] = all(
            newest_barrier(federation, region, partition) == 1
            for name, partition in federation.genesis.slots
            if name == region
        )
        return announce(version, region, headers)

    monkeypatch.setattr(one._telling, "_announce", watched)
    assert one.merge_if_due()
    assert standing == dict.fromkeys(federation.genesis.partitions, True)
    assert announced(federation) == {(region, 1) for region in federation.genesis.partitions} | {
        (region, 0) for region in federation.genesis.partitions
    }


def newest_barrier(federation: SmallFederation, region: str, partition: int) -> int:
    with LogReader(federation.settings, "test-barriers") as reader:
        record = reader.last(updates_topic(federation.task, region), partition)
    envelope = open_envelope(record.value or b"") if record else None
    return envelope.record["version"] if envelope and envelope.kind == "Barrier" else -1


def announced(federation: SmallFederation) -> set[tuple[str, int]]:
    topic = models_topic(federation.task)
    with LogReader(federation.settings, "test-announced") as reader:
        records = list(reader.read(topic, 0, 0, reader.bounds(topic, 0)[1]))
    said = [open_envelope(record.value or b"").record for record in records]
    return {(record["region"], record["version"]) for record in said}


def test_a_slow_winner_writes_the_same_bytes_that_others_have_derived(federation: SmallFederation) -> None:
    """It committed and fell asleep; another wrote its files and went on. Then it wakes."""
    slow, other = merger_of(federation, "slow"), merger_of(federation, "other")
    slow.resume()
    other.resume()
    windows(federation)
    offer_all(federation, slow)
    offer_all(federation, other)
    assert slow.merge_if_due()
    store, keys = federation.objects.store, [f(federation.task, 1) for f in (model_key, optimizer_key)]
    written = [store.get(key) for key in keys]
    for key in keys:
        remove(federation, key)
    assert other.merge_if_due()
    assert [store.get(key) for key in keys] == written
    federation.fold()
    assert {state.version for state in federation.states.values()} == {1}
    slow.finish()
    federation.fold()
    assert {state.version for state in federation.states.values()} == {1}


def test_a_merger_that_starts_after_a_crash_loads_the_newest_whole_version_only(
    federation: SmallFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation.rounds(4)
    for key in (model_key(federation.task, 4), optimizer_key(federation.task, 4)):
        remove(federation, key)
    late = merger_of(federation, "late")
    loaded: list[int] = []
    load = late._adopting.load

    def watched(number: int, before: Version) -> Version:
        loaded.append(number)
        return load(number, before)

    monkeypatch.setattr(late._adopting, "load", watched)
    late.resume()
    assert loaded == [3, 4]
    assert late.head.number == 4
    assert federation.objects.has_checkpoint(4)


def test_a_lost_manifest_is_no_head_to_go_on_from(federation: SmallFederation) -> None:
    federation.rounds(5)
    remove(federation, manifest_key(federation.task, 3))
    with pytest.raises(FluvialError) as caught:
        merger_of(federation, "late").resume()
    assert caught.value.error_id == "FLV-3303"
    assert "version 3 " in caught.value.message
    assert not federation.objects.store.exists(manifest_key(federation.task, 3))


@pytest.mark.parametrize("task", ["t-0", "10", "versions"])
def test_every_manifest_is_found_whatever_the_task_is_called(tmp_path: Path, task: str) -> None:
    store = TaskStore(FileStore(tmp_path), task)
    for version in (0, 1, 2, 9, 10, 12):
        store.commit(version, b"{}")
        store.write_checkpoint(version, b"model", b"optimizer")
    assert store.missing_versions(12) == (3, 4, 5, 6, 7, 8, 11)
    assert store.missing_versions(2) == ()
    assert TaskStore(FileStore(tmp_path), "another").missing_versions(0) == (0,)


def test_a_broker_that_is_away_while_missed_windows_are_read_is_waited_for(
    federation: SmallFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = merger_of(federation, "late")
    late.resume()
    for _ in range(2):
        windows(federation)
        for state in federation.states.values():
            state.counted = Contributions()  # the same devices again
    away = [ConnectionProblem("FLV-3100", "away")] * 2
    bounds = LogReader.bounds

    def sometimes(self: LogReader, topic: str, partition: int) -> tuple[int, int]:
        if away:
            raise away.pop()
        return bounds(self, topic, partition)

    with LogReader(federation.settings, "test-last") as reader:
        last = reader.last(aggregates_topic(federation.task, "eu"), 0)
    assert last is not None and last.offset == 1
    monkeypatch.setattr(LogReader, "bounds", sometimes)
    late.offer(last, "eu")
    assert [one.sequence for one in late.pending.waiting()] == [0, 1]
    assert not away


def test_a_merger_goes_on_at_its_heads_cursors_whatever_the_facts_say(federation: SmallFederation) -> None:
    federation.rounds(1)
    federation.objects.put_facts(1, {"aggregate_offsets": {"eu": {"0": 99, "1": 1}, "gone": {"0": 3}}})
    offsets = merger_of(federation, "late").resume()
    assert offsets == {("eu", 0): 1, ("eu", 1): 1, ("us", 0): 1}


def test_a_merger_that_starts_tells_of_the_version_whose_merger_died(tmp_path: Path) -> None:
    logs = Logs()
    context = small_task(tmp_path, logs=logs)
    policies = Policies(context)
    window = publish_window(context, logs, ("eu", 0))
    assert Committing(context, policies).commit(Adopting(context, policies).genesis(), (window,)) is not None
    Merger(context).resume()
    told = [
        announcement_in(record.value, record.timestamp_ms, context.trust)
        for record in logs.records[models_topic(context.genesis.task), 0]
    ]
    assert [(one.region, one.version) for one in told if isinstance(one, Announcement)] == [
        ("eu", 1), ("us", 1),
    ]  # fmt: skip
    for region, partition in context.genesis.slots:
        assert len(logs.records[updates_topic(context.genesis.task, region), partition]) == 1


def test_a_newest_manifest_that_is_lost_is_not_committed_a_second_time(federation: SmallFederation) -> None:
    one = merger_of(federation, "one")
    one.resume()
    windows(federation)
    offer_all(federation, one)
    assert one.merge_if_due()
    remove(federation, manifest_key(federation.task, 1))
    other = merger_of(federation, "other")
    for _ in range(2):  # asked again, it does not begin at version 0
        with pytest.raises(FluvialError, match="FLV-3303"):
            other.resume()


def test_at_whatever_signature_a_mergers_token_goes_away_the_next_one_goes_on(
    federation: SmallFederation,
) -> None:
    """One after another ends before its first, second, ... signature: a version's manifest, barriers, announcements."""
    windows(federation)
    ended: list[str] = []
    for good in range(10):
        key_pair, _ = failing(factories.merger_signer(), good)
        one = merger_of(federation, f"m-{good}", key_pair)
        try:
            one.resume()
            offer_all(federation, one)
            one.merge_if_due()
        except AccessProblem as problem:
            ended.append(problem.error_id)
        else:
            break
    assert len(ended) >= 3 and set(ended) == {"FLV-2318"}
    manifest = federation.objects.manifest(1)
    assert len(manifest.inputs) == len(federation.genesis.slots)
    for region, partition in federation.genesis.slots:
        assert newest_barrier(federation, region, partition) == 1
    assert {(region, 1) for region in federation.genesis.partitions} <= announced(federation)
    federation.fold()
    assert audit_task(federation.settings, federation.task_file, jobs=1).identical
