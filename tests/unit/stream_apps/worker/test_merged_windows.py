"""A worker that starts goes on from a state that a version holds: whoever has a worker's key is believed by none."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from aggregation.server.aggregates import Aggregate
from schemas import avro
from schemas.checkpoints import encode_sums
from schemas.envelope import open_envelope
from schemas.manifests import decode_manifest
from schemas.objects import manifest_key
from schemas.records import aggregate_in
from schemas.topics import aggregates_topic, updates_topic
from schemas.windows import aggregate_of, encode_state
from stream_apps.process_context import ProcessContext
from stream_apps.replaying import PartitionReplay, start_of_log
from stream_apps.worker import merged_windows
from stream_apps.worker.merged_windows import DISPUTED_MAX, READ_BACK_MAX
from stream_apps.worker.partition import PartitionWorker
from stream_apps.worker.resume_point import WINDOWS_FOLDED_AGAIN
from stream_apps.worker.resuming import Resumed, first_state, resume_from
from tests import factories
from tests.small_federation import SmallFederation

if TYPE_CHECKING:
    from aggregation.fold.state import PartitionState

SLOT = ("eu", 0)
POLICY = factories.policy(window={"updates_max": 2, "seconds_max": 1.0}, anomaly={"enabled": False})
VERSIONS = 6


class Site:
    """A partition of which six versions hold the windows, and its worker, which is to be replaced by another one."""

    def __init__(self) -> None:
        self.federation = SmallFederation(partitions={"eu": 1}, policy=POLICY)
        self.federation.rounds(VERSIONS, per_partition=3)
        self.federation.fold()
        self.topic = aggregates_topic(self.federation.task, "eu")
        self.honest = self.federation.states[SLOT]
        self.thief = self.federation.signer(factories.worker_signer("thief", "eu"))

    def worker(self) -> PartitionWorker:
        federation = self.federation
        context = ProcessContext.of(
            genesis=federation.genesis,
            store=federation.objects,
            writer=federation.writer,
            key_pair=factories.worker_signer("w-2", "eu"),
            name="w-2",
            open_reader=federation.open_reader,
            clock=federation.clock,
        )
        return PartitionWorker(context, *SLOT)

    def resumed(self, own: PartitionState | None = None) -> Resumed:
        place = self.worker().place
        return asyncio.run(resume_from(place, own or first_state(place)))

    def windows(self) -> list[Aggregate]:
        """Every window that stands in the topic."""
        read = [
            aggregate_in(one.value, one.timestamp_ms, self.federation.trust, self.federation.task, SLOT)
            for one in self.federation.records(self.topic, 0)
        ]
        return [one for one in read if isinstance(one, Aggregate)]

    def named(self) -> list[int]:
        """The sequences of the windows that versions hold."""
        return sorted(one.sequence for manifest in self.federation.manifests for one in manifest.inputs)

    def lie(self, after: Aggregate, **changed: Any) -> Aggregate:
        """One more window that the log does not give, and the state that follows from it."""
        end = changed.get("next_offset", self.honest.next_offset)
        state = replace(self.honest, sequence=after.sequence + 2, next_offset=end, revoked={"everybody"})
        record = open_envelope(self.federation.records(self.topic, 0)[0].value or b"").record | {
            "sequence": after.sequence + 1,
            "first_offset": after.next_offset - 1,
            "next_offset": end,
            "version": self.honest.version,
            "previous_sha256": after.sha256,
            "state_sha256": self.federation.objects.put_object(encode_state(state)),
        }
        payload = avro.encode("RegionalAggregate", record | changed)
        self.federation.writer.append_now(
            self.topic, self.thief.sign_payload("RegionalAggregate", payload), partition=0
        )
        return aggregate_of(record | changed, payload)

    def expect_honest(self) -> None:
        """A worker that starts comes to what the log gives."""
        federation, worker = self.federation, self.worker()

        async def run() -> None:
            start = await worker.resume()
            for record in federation.records(updates_topic(federation.task, "eu"), 0)[start:]:
                await worker.process(record)

        asyncio.run(run())
        assert worker.stopped is None
        replay = PartitionReplay(start_of_log(federation.genesis, SLOT), federation.trust, federation.objects)
        for record in federation.records(updates_topic(federation.task, "eu"), 0):
            replay.step(record)
        assert encode_state(worker.state) == encode_state(replay.state)
        assert worker.state.previous_sha256 == replay.state.previous_sha256


@pytest.fixture(autouse=True)
def as_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulator folds fewer windows again, in the process that imports it."""
    monkeypatch.setattr(merged_windows, "RECORDS_FOLDED_AGAIN", 2048)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    """As far as a few records are few: a long task."""
    monkeypatch.setattr(merged_windows, "RECORDS_FOLDED_AGAIN", 8)
    return Site()


def test_a_worker_goes_on_from_a_window_that_a_version_holds_and_folds_a_few_of_those_again(
    site: Site,
) -> None:
    state = site.resumed().state
    assert state.sequence - 1 in site.named()
    assert site.named()[-1] - (state.sequence - 1) == WINDOWS_FOLDED_AGAIN
    assert state.next_offset > 0
    site.expect_honest()


@pytest.mark.parametrize("count", [1, 5, 50])
def test_windows_of_a_stolen_key_that_chain_are_no_base_however_many(site: Site, count: int) -> None:
    base = site.resumed().state.sequence
    lie = site.windows()[-1]
    for _ in range(count):
        lie = site.lie(lie)
    assert site.resumed().state.sequence == base
    site.expect_honest()


@pytest.mark.parametrize("count", [5, 50])
def test_windows_of_a_stolen_key_are_folded_again_also_where_versions_hold_them(count: int) -> None:
    """No honest worker ran meanwhile: the merger took each on its worker's word."""
    site = Site()
    federation, lie = site.federation, site.windows()[-1]
    start = lie.next_offset
    records = [
        federation.append("eu", 0, federation.update("eu", device, seed=900 + number))
        for number, device in enumerate(factories.devices(count, start=100))
    ]
    sums = federation.objects.put_object(encode_sums(np.full(federation.layout.sum_elements, 7)))
    for offset in records:
        lie = site.lie(
            lie,
            first_offset=start,
            next_offset=offset + 1,
            counts={"accepted": 1},
            accepted=1,
            weight_total=65536,
            sum_sha256=sums,
        )
        start = offset + 1
    while lie.sequence not in site.named():
        federation.merge()
    site.expect_honest()


def test_nor_are_windows_far_ahead(site: Site) -> None:
    base = site.resumed().state.sequence
    for ahead in range(10):
        site.lie(replace(site.windows()[-1], sequence=1_000_000 * (ahead + 1)))
    assert site.resumed().state.sequence == base
    site.expect_honest()


def test_nor_are_windows_that_say_another_version(site: Site) -> None:
    """No barrier of it stands where they begin, or an older one: the newest counts that was found."""
    base, lie = site.resumed().state.sequence, site.windows()[-1]
    for version in (9, 10, 1, 2, 11, 3):
        lie = site.lie(lie, version=version, first_offset=0)
    assert site.resumed().state.sequence == base
    site.expect_honest()


def test_nor_is_a_worker_that_runs_led_astray_when_its_partitions_move(site: Site) -> None:
    own = site.honest
    lie = site.windows()[-1]
    for _ in range(50):
        lie = site.lie(lie)
    found = site.resumed(own)
    assert found.state is own
    behind = site.resumed(site.resumed().state).state
    assert behind.sequence < own.sequence


def test_a_flood_of_lies_costs_work_and_is_not_believed(site: Site) -> None:
    lie = site.windows()[-1]
    for _ in range(READ_BACK_MAX + 200):
        lie = site.lie(lie)
    assert "everybody" not in site.resumed().state.revoked
    site.expect_honest()


def test_another_content_of_a_window_that_a_version_holds_is_a_reason_to_fold_from_before_it(
    site: Site,
) -> None:
    disputed = site.resumed().state.sequence - 3
    site.lie(next(one for one in site.windows() if one.sequence == disputed - 1))
    assert site.resumed().state.sequence <= disputed
    site.expect_honest()


def test_another_content_of_a_window_of_long_ago_is_none(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    assert DISPUTED_MAX > WINDOWS_FOLDED_AGAIN
    monkeypatch.setattr(merged_windows, "DISPUTED_MAX", WINDOWS_FOLDED_AGAIN + 1)
    base = site.resumed().state.sequence
    site.lie(site.windows()[1])
    site.lie(site.windows()[1], contributors_sha256=factories.sha("evil"))
    assert site.resumed().state.sequence == base
    site.expect_honest()


@pytest.mark.parametrize("planted", [None, b"", b"{}", "another version's"])
def test_where_the_newest_manifest_cannot_be_believed_an_older_one_is_gone_by(
    site: Site, planted: bytes | str | None, caplog: pytest.LogCaptureFixture
) -> None:
    objects, base = site.federation.objects, site.resumed().state.sequence
    key = manifest_key(site.federation.task, VERSIONS)
    data = objects.manifest_bytes(VERSIONS - 1) if isinstance(planted, str) else planted
    if data is None:
        del objects.store._objects[key]  # type: ignore[attr-defined]
    else:
        objects.store.put(key, data)
    found = site.resumed().state.sequence
    assert 0 < found <= base
    assert "vouches for no window" in caplog.text
    site.expect_honest()


def test_where_no_manifest_can_be_believed_the_log_is_folded_from_its_beginning(site: Site) -> None:
    objects = site.federation.objects
    for version in range(1, VERSIONS + 1):
        objects.store.put(manifest_key(site.federation.task, version), b"{}")
    assert site.resumed().state.next_offset == 0
    site.expect_honest()


def test_a_manifest_that_names_lies_and_that_no_barrier_vouches_for_is_not_gone_by(site: Site) -> None:
    """A stolen key of a merger's signs it, a store's keys plant it in the honest one's place: by hash it is none."""
    from msgspec.structs import replace as changed

    from schemas.manifest_inputs import input_of
    from schemas.manifest_seals import sealed

    objects, lie = site.federation.objects, site.windows()[-1]
    lies = [lie := site.lie(lie) for _ in range(9)]
    for version in (VERSIONS, VERSIONS + 1):
        honest = decode_manifest(objects.manifest_bytes(VERSIONS))
        evil = changed(honest, version=version, inputs=tuple(input_of(one) for one in lies), merger=None)
        signer = site.federation.signer(factories.merger_signer("stolen"))
        objects.store.put(manifest_key(site.federation.task, version), sealed(evil, signer).canonical())
    assert "everybody" not in site.resumed().state.revoked
    site.expect_honest()


def test_a_state_that_is_missing_is_passed_over_for_an_older_one(site: Site) -> None:
    from schemas.objects import object_key

    base = site.resumed().state.sequence
    window = next(one for one in site.windows() if one.sequence == base - 1)
    del site.federation.objects.store._objects[  # type: ignore[attr-defined]
        object_key(site.federation.task, window.state_sha256)
    ]
    assert 0 < site.resumed().state.sequence < base
    site.expect_honest()
