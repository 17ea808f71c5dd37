"""Adopting the head: nothing is built on a manifest that is lost, damaged, or derives to something else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from aggregation.errors import FluvialError, IntegrityProblem
from backends.object_store import StoreUnavailable
from backends.store.file import FileStore
from schemas.certificates import Role
from schemas.manifests import decode_manifest
from schemas.objects import manifest_key, model_key, optimizer_key
from schemas.topics import models_topic
from stream_apps.merger.adopting import Adopting
from stream_apps.merger.announced import announced_manifests
from stream_apps.merger.committing import Committing
from stream_apps.merger.policies import Policies
from tests import factories
from tests.unit.stream_apps.merger.merger_parts import PARTITIONS, TASK, Logs, publish_window, small_task

if TYPE_CHECKING:
    from pathlib import Path

    from schemas.manifests import Manifest
    from stream_apps.merger.version import Version
    from stream_apps.process_context import ProcessContext


class DamagedReads(FileStore):
    """A file store; of the next reads of manifests those that ``damaged`` says come with a flipped bit."""

    damaged: tuple[bool, ...] = ()

    def get(self, key: str) -> bytes:
        data = super().get(key)
        if not key.endswith("manifest.json") or not self.damaged:
            return data
        flip, *rest = self.damaged
        self.damaged = tuple(rest)
        return data[:-1] + bytes([data[-1] ^ 1]) if flip else data


class Chain:
    """A task whose version 1 is committed, of one window."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.logs, self.store = folder, Logs(), DamagedReads(folder)
        self.context: ProcessContext = small_task(folder, logs=self.logs, store=self.store)
        self.adopting = Adopting(self.context, Policies(self.context))
        self.genesis = self.adopting.genesis()
        window = publish_window(self.context, self.logs, ("eu", 0))
        committed = Committing(self.context, Policies(self.context)).commit(self.genesis, (window,))
        assert committed is not None
        self.one: Version = committed.version
        self.manifest: Manifest = committed.manifest

    def remove(self, *keys: str) -> None:
        for key in keys:
            (self.folder / key).unlink()

    def rewrite_manifest(self, **changed: str) -> None:
        self.store.put(manifest_key(TASK, 1), msgspec.structs.replace(self.manifest, **changed).canonical())


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


FILES = (model_key(TASK, 1), optimizer_key(TASK, 1))


@pytest.mark.parametrize("damaged", [(True, False), (False, True)])
def test_a_manifest_of_which_two_reads_differ_is_not_taken(chain: Chain, damaged: tuple[bool, ...]) -> None:
    chain.store.damaged = damaged
    with pytest.raises(StoreUnavailable, match="FLV-4103"):
        chain.adopting.checked_manifest(1)
    assert decode_manifest(chain.adopting.checked_manifest(1)) == chain.manifest


def test_a_manifest_that_is_not_the_announced_one_is_not_taken(chain: Chain) -> None:
    chain.adopting.announced = {1: chain.one.manifest_sha256}
    assert decode_manifest(chain.adopting.checked_manifest(1)) == chain.manifest
    chain.rewrite_manifest(parent_sha256=factories.sha("another"))
    with pytest.raises(IntegrityProblem, match="FLV-3304"):
        chain.adopting.checked_manifest(1)


@pytest.mark.parametrize("lost", [FILES, FILES[:1]])
def test_files_that_a_merger_did_not_get_to_write_are_derived_to_the_same_bytes(
    chain: Chain, lost: tuple[str, ...]
) -> None:
    written = [chain.store.get(key) for key in FILES]
    chain.remove(*lost)
    assert chain.adopting.newest(chain.genesis).manifest_sha256 == chain.one.manifest_sha256
    assert [chain.store.get(key) for key in FILES] == written


@pytest.mark.parametrize("name", ["model_sha256", "optimizer_sha256"])
def test_a_version_that_derives_to_something_else_than_its_manifest_says_is_not_written(
    chain: Chain, name: str
) -> None:
    chain.rewrite_manifest(**{name: factories.sha("another")})
    chain.remove(*FILES)
    with pytest.raises(StoreUnavailable, match="FLV-3302"):
        chain.adopting.load(1, chain.genesis)
    assert not chain.context.store.has_checkpoint(1)


def test_a_version_without_files_whose_parent_is_not_at_hand_is_waited_for(chain: Chain) -> None:
    chain.remove(*FILES)
    with pytest.raises(StoreUnavailable, match="FLV-3301"):
        chain.adopting.load(1, chain.one)


def test_the_newest_version_is_where_one_goes_on_and_there_may_be_none_newer(chain: Chain) -> None:
    assert chain.adopting.newest(chain.genesis).number == 1
    assert chain.adopting.newest(chain.one) is chain.one


def test_a_hole_in_the_chain_is_a_lost_manifest(chain: Chain) -> None:
    chain.store.put(manifest_key(TASK, 3), b"{}")
    with pytest.raises(FluvialError, match="FLV-3303") as caught:
        chain.adopting.begin()
    assert "version 2 " in caught.value.message


def test_a_version_that_was_announced_and_has_no_manifest_is_a_lost_one(chain: Chain) -> None:
    chain.adopting.announced = {1: "", 2: factories.sha("two")}
    with pytest.raises(FluvialError, match="FLV-3303"):
        chain.adopting.require_announced(chain.one)
    chain.adopting.announced = {1: ""}
    chain.adopting.require_announced(chain.one)


def announcement(version: int, manifest: str, role: Role = Role.MERGER, **changed: str) -> bytes:
    region = factories.CONTROL if role is Role.MERGER else "eu"
    fields = {
        "task": TASK,
        "region": "eu",
        "version": version,
        "manifest_sha256": factories.sha(manifest),
        "model_sha256": factories.sha("model"),
        "policy_sha256": factories.sha("policy"),
    }
    return factories.signer(region, role, "m-1").sign("ModelAnnouncement", fields | changed)


def test_manifests_are_known_by_what_mergers_announced_for_this_task() -> None:
    logs = Logs()
    for value in (
        announcement(1, "one"),
        b"junk",
        announcement(2, "two"),
        announcement(2, "forged", Role.DEVICE),
        announcement(3, "elsewhere", task="another"),
        announcement(4, "nowhere", region="mars"),
    ):
        logs.append_now(models_topic(TASK), value, partition=0)
    found = announced_manifests(logs, factories.trust("eu"), TASK, PARTITIONS)
    assert found == {1: factories.sha("one"), 2: factories.sha("two")}
