"""A version whose barriers stand is told of: a merger died before it announced it, and the next one makes no other."""

from __future__ import annotations

from typing import cast

import pytest

from aggregation.errors import IntegrityProblem, UsageProblem
from fluvial.proof.discarding import flaws_of
from fluvial.reading.task_view import TaskView
from schemas.objects import manifest_key, sha256_hex
from schemas.topics import models_topic
from stream_apps.merger.told import held_until, told_by_barriers
from tests import factories
from tests.factories import barrier_bytes, merger_signer
from tests.small_federation import SmallFederation
from tests.unit.stream_apps.merger.test_merger_revokes import announce, merger_of, revoke

STOLEN = merger_signer("stolen")


@pytest.fixture
def federation() -> SmallFederation:
    federation = SmallFederation(partitions={"eu": 2})
    federation.rounds(2)
    return federation


def write_barrier(federation: SmallFederation, version: int, sha256: str, by: object = None) -> int:
    """Version 3's barrier in one partition, as a merger that died then left it."""
    last = federation.manifests[-1]
    signer = federation.signer(STOLEN if by else merger_signer())
    value = barrier_bytes(
        version,
        federation.policy,
        by=signer,
        manifest_sha256=sha256,
        model_sha256=last.model_sha256,
        reference_sha256=last.reference_sha256,
    )
    return federation.append("eu", 1, value)


def test_a_merger_that_starts_goes_on_from_a_version_that_workers_were_told_of(
    federation: SmallFederation,
) -> None:
    """Its manifest is lost: making another version of that number would be a fork that workers have folded."""
    write_barrier(federation, 3, factories.sha("lost"))
    with pytest.raises(IntegrityProblem, match="FLV-3303"):
        merger_of(federation).resume()


def test_one_whose_manifest_stands_is_adopted_by_its_hash(federation: SmallFederation) -> None:
    """Two mergers, or one that died: it is not derived again, and everybody is told of it once more."""
    before = len(federation.records(models_topic(federation.task), 0))
    federation.send(3)
    federation.close_windows()
    federation.fold()
    manifest = federation.merge()
    topic = models_topic(federation.task)
    fresh = federation.spoiled(
        lambda record: None if record.topic == topic and record.offset >= before else record.value
    )()
    federation.open_reader = fresh.open_reader
    merger = merger_of(federation)
    merger.resume()
    assert (merger.head.number, merger.head.manifest_sha256) == (3, sha256_hex(manifest.canonical()))


def test_a_barrier_of_a_revoked_certificate_tells_nobody(federation: SmallFederation) -> None:
    revoke(federation, STOLEN)
    federation.clock.sleep(1)
    write_barrier(federation, 3, factories.sha("evil"), by=STOLEN)
    merger = merger_of(federation)
    merger.resume()
    assert merger.head.number == 2


def test_barriers_are_looked_for_behind_the_windows_that_versions_hold(federation: SmallFederation) -> None:
    starts = held_until(2, federation.genesis.slots, federation.objects.manifest)
    assert sorted(starts) == [("eu", 0), ("eu", 1)]
    assert all(
        0 < start <= len(federation.records("fl.digits.updates.eu", slot[1]))
        for slot, start in starts.items()
    )
    with federation.open_reader("told") as reader:
        found = told_by_barriers(
            reader,
            federation.trust,
            federation.task,
            federation.genesis.slots,
            starts=starts,
            revoked=lambda _name, _at: False,
        )
    assert found == {2: sha256_hex(federation.manifests[-1].canonical())}


@pytest.mark.parametrize(("records_max", "seen"), [(None, [3, 4, 5]), (2, [3, 5]), (40, [3, 4, 5])])
def test_of_many_records_those_at_both_ends_are_looked_at(
    federation: SmallFederation, records_max: int | None, seen: list[int]
) -> None:
    start = write_barrier(federation, 3, factories.sha("3"))
    for version in (4, 5):
        for _ in range(6):
            federation.append("eu", 1, b"junk")
        write_barrier(federation, version, factories.sha(str(version)))
    with federation.open_reader("told") as reader:
        found = told_by_barriers(
            reader,
            federation.trust,
            federation.task,
            [("eu", 1)],
            starts={("eu", 1): start},
            revoked=lambda _name, _at: False,
            records_max=records_max,
        )
    assert sorted(found) == seen


def test_a_version_whose_barriers_stand_is_not_discarded(federation: SmallFederation) -> None:
    data = federation.objects.manifest_bytes(2)
    federation.objects.store.put(manifest_key(federation.task, 3), data)
    write_barrier(federation, 3, sha256_hex(data))
    with federation.open_reader("discard") as reader:
        view = TaskView(
            federation.settings,
            federation.task_file,
            federation.objects,
            federation.genesis,
            cast("object", reader),  # type: ignore[arg-type]
        )
        with pytest.raises(UsageProblem, match=r"FLV-3306[\s\S]*wrote barriers of version 3"):
            flaws_of(view, 3, cast("object", None), federation.clock)  # type: ignore[arg-type]


def test_a_stolen_key_that_announced_a_version_that_there_is_not_stops_no_merger_once_it_is_revoked(
    federation: SmallFederation,
) -> None:
    announce(federation, 1_000_000, STOLEN)
    with pytest.raises(IntegrityProblem, match="FLV-3303"):
        merger_of(federation).resume()
    revoke(federation, STOLEN)
    merger = merger_of(federation)
    merger.resume()
    assert merger.head.number == 2


def test_of_two_announcements_of_a_version_the_one_counts_whose_merger_was_not_revoked(
    federation: SmallFederation,
) -> None:
    federation.rounds(1)
    announce(federation, 3, STOLEN)
    revoke(federation, STOLEN)
    merger = merger_of(federation)
    merger.resume()
    assert merger.head.number == 3
