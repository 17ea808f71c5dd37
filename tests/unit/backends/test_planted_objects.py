"""What whoever may write the store puts there: files that are too large, manifests far ahead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from backends.memory.store import MemoryStore
from backends.object_limits import (
    FILE_BYTES_MAX,
    MANIFEST_BYTES_MAX,
    OBJECT_BYTES_MAX,
    ObjectLimits,
    ObjectTooLarge,
)
from backends.store.task_store import TaskStore
from schemas.manifest_seals import sealed
from schemas.manifests import decode_manifest
from schemas.objects import manifest_key, model_key, object_key, sha256_hex
from tests import factories
from tests.small_federation import SmallFederation


@pytest.fixture
def federation() -> SmallFederation:
    """A task of five versions."""
    federation = SmallFederation(partitions={"eu": 1})
    federation.rounds(5)
    return federation


def reader_of(federation: SmallFederation) -> TaskStore:
    """A reader that starts."""
    return TaskStore(federation.objects.store, federation.task)


def test_limits_go_by_kind_and_by_the_layout_once_that_is_known(federation: SmallFederation) -> None:
    limits, task = ObjectLimits(), federation.task
    assert limits.of(model_key(task, 1)) == FILE_BYTES_MAX
    assert limits.of(object_key(task, "a" * 64)) == OBJECT_BYTES_MAX
    limits.learn(federation.genesis)
    assert limits.of(model_key(task, 1)) < 2 << 20
    assert limits.of(object_key(task, "a" * 64)) < 300 << 20
    assert limits.of(manifest_key(task, 1)) == MANIFEST_BYTES_MAX
    assert limits.of(model_key("another", 1)) == FILE_BYTES_MAX


def test_what_a_task_needs_is_inside_its_limits(federation: SmallFederation) -> None:
    store = reader_of(federation)
    store.genesis(federation.genesis.sha256)
    for key in federation.objects.store.list(f"{federation.task}/"):
        assert store.store.get(key)


def test_a_file_larger_than_its_layout_gives_is_damage_before_it_is_hashed(
    federation: SmallFederation,
) -> None:
    store = reader_of(federation)
    store.genesis(federation.genesis.sha256)
    sha256 = federation.manifests[-1].model_sha256
    store.store.put(model_key(federation.task, 5), b"x" * (3 << 20))
    with pytest.raises(ObjectTooLarge, match="FLV-4105"):
        store.model_bytes(5, sha256)
    assert isinstance(federation.objects.store, MemoryStore)


def test_sums_are_read_up_to_what_their_buckets_take_whatever_else_an_object_may_have(
    federation: SmallFederation,
) -> None:
    store, layout = reader_of(federation), federation.layout
    store.genesis(federation.genesis.sha256)
    for buckets in (1, 8, 32):
        sha256 = store.put_object(bytes(8 * layout.sum_elements_of(buckets)))
        assert store.sums(sha256, layout, buckets).size == layout.sum_elements_of(buckets)
        larger = store.put_object(bytes(8 * layout.sum_elements_of(buckets) + 1))
        with pytest.raises(ObjectTooLarge, match="FLV-4105"):
            store.sums(larger, layout, buckets)
        assert len(store.get_object(larger)) > 8 * layout.sum_elements_of(buckets), (
            "others read what they may"
        )


@dataclass
class Planted:
    """Where manifests are planted, and what."""

    versions: tuple[int, ...]
    changed: dict[str, Any]
    signed: bool = False


PLANTED = {
    "the next one, unsigned": Planted((6,), {}),
    "far ahead, unsigned": Planted((8, 16, 32, 64), {}),
    "everywhere, unsigned": Planted(tuple(range(6, 70)), {}),
    "a copy of a real one": Planted((8, 16), {"version": 5}, signed=True),
    "signed, behind a hole": Planted((8, 16), {}, signed=True),
}


@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED)
def test_planted_manifests_lead_no_reader_ahead(federation: SmallFederation, planted: Planted) -> None:
    honest = decode_manifest(federation.objects.manifest_bytes(5))
    signer = federation.signer(factories.merger_signer("stolen"))
    parent = sha256_hex(honest.canonical())
    for version in planted.versions:
        one = msgspec.structs.replace(
            honest, **({"version": version, "parent_sha256": parent} | planted.changed)
        )
        one = sealed(one, signer) if planted.signed else one
        federation.objects.store.put(manifest_key(federation.task, version), one.canonical())
        parent = sha256_hex(one.canonical())
    for at_least in (0, 3, 5):
        head = reader_of(federation).head(at_least)
        assert head is not None and head.version == 5
    raw = reader_of(federation).newest_manifest()
    assert raw is not None and raw.version == max(planted.versions)


def test_a_damaged_newest_manifest_is_no_head_and_an_audit_sees_it(federation: SmallFederation) -> None:
    federation.objects.store.put(manifest_key(federation.task, 5), b"{}")
    head, raw = reader_of(federation).head(), reader_of(federation).newest_manifest()
    assert head is not None and head.version == 4
    assert raw is not None and raw.version == 5


def test_a_reader_that_has_seen_a_head_asks_once(federation: SmallFederation) -> None:
    store = reader_of(federation)
    assert store.head() is not None
    federation.objects.store.put(manifest_key(federation.task, 4), b"damaged since")
    head = store.head(5)
    assert head is not None and head.version == 5
