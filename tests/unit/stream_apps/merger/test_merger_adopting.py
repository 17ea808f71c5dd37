"""Adopting the head: nothing is built on a manifest that is lost, damaged, or derives to something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from aggregation.errors import FluvialError, IntegrityProblem
from aggregation.server.totals import WindowSums
from backends.object_store import StoreUnavailable
from backends.observer import Observer
from backends.store.file import FileStore
from schemas.certificates import Role
from schemas.manifest_rules import VersionRules
from schemas.manifests import decode_manifest
from schemas.objects import manifest_key, model_key, optimizer_key
from schemas.topics import models_topic
from stream_apps.merger.adopting import Adopting
from stream_apps.merger.announced import announced_manifests
from stream_apps.merger.committing import Committing
from stream_apps.merger.deciding import next_manifest
from stream_apps.merger.deriving import derive
from stream_apps.merger.policies import Policies
from stream_apps.merger.windows import Windows
from tests import factories
from tests.unit.stream_apps.merger.merger_parts import PARTITIONS, TASK, Logs, publish_window, small_task

if TYPE_CHECKING:
    from pathlib import Path

    from aggregation.server.aggregates import Aggregate
    from schemas.manifests import Manifest
    from stream_apps.merger.version import Version
    from stream_apps.process_context import ProcessContext


class DamagedReads(FileStore):
    """A file store; of the next reads of manifests those that ``damaged`` says come with a flipped bit."""

    damaged: tuple[bool, ...] = ()

    def get(self, key: str, *, bytes_max: int | None = None) -> bytes:
        data = super().get(key, bytes_max=bytes_max)
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
        self.windows = Windows(self.context, self.genesis.cursors)
        self.window = publish_window(self.context, self.logs, ("eu", 0))
        committed = Committing(self.context, Policies(self.context)).commit(self.genesis, (self.window,))
        assert committed is not None
        self.one: Version = committed.version
        self.manifest: Manifest = committed.manifest

    def after(self, head: Version) -> Version | None:
        return self.adopting.after(head, self.windows)

    def announce(self, version: int, manifest_sha256: str) -> None:
        value = announcement(version, "", manifest_sha256=manifest_sha256)
        self.logs.append_now(models_topic(TASK), value, partition=0)

    def remove(self, *keys: str) -> None:
        for key in keys:
            (self.folder / key).unlink()

    def rewrite_manifest(self, **changed: str | int) -> None:
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
    found = chain.after(chain.genesis)
    assert found is not None
    assert found.manifest_sha256 == chain.one.manifest_sha256
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


def test_the_next_version_is_where_one_goes_on_and_there_may_be_none(chain: Chain) -> None:
    found = chain.after(chain.genesis)
    assert found is not None
    assert found.number == 1
    assert chain.after(chain.one) is None


def test_a_hole_below_what_was_announced_is_a_lost_manifest(chain: Chain) -> None:
    chain.store.put(manifest_key(TASK, 3), b"{}")
    chain.announce(3, factories.sha("three"))
    with pytest.raises(FluvialError, match="FLV-3303") as caught:
        chain.adopting.begin()
    assert "version 2 " in caught.value.message


@pytest.mark.parametrize("version", [3, 4, 8, 10**9, 10**30])
def test_a_manifest_behind_a_hole_of_which_nobody_was_told_is_planted_and_stops_nobody(
    chain: Chain, version: int
) -> None:
    chain.store.put(manifest_key(TASK, version), chain.manifest.canonical())
    chain.announce(1, chain.one.manifest_sha256)
    chain.adopting.begin()
    head = chain.adopting.vouched(chain.genesis)
    assert head.number == 1
    assert chain.after(head) is None


def test_a_version_that_was_announced_and_has_no_manifest_is_a_lost_one(chain: Chain) -> None:
    chain.announce(1, chain.one.manifest_sha256)
    chain.adopting.begin()
    chain.announce(2, factories.sha("two"))
    with pytest.raises(FluvialError, match="FLV-3303"):
        chain.adopting.begin()


def test_what_an_announced_version_names_as_its_parent_is_vouched_for(chain: Chain) -> None:
    second = publish_window(chain.context, chain.logs, ("eu", 0), after=chain.window)
    committed = Committing(chain.context, Policies(chain.context)).commit(chain.one, (second,))
    assert committed is not None
    chain.remove(*FILES, model_key(TASK, 2))
    chain.announce(2, committed.version.manifest_sha256)
    chain.adopting.begin()
    assert chain.adopting.vouched(chain.genesis).model_sha256 == committed.version.model_sha256
    chain.rewrite_manifest(floor=1)
    chain.remove(*FILES)
    late = Adopting(chain.context, Policies(chain.context))
    late.begin()
    late._vouch_for_parents(1, 2)
    with pytest.raises(IntegrityProblem, match="FLV-3304"):
        late.load(1, chain.genesis)


# -- what nobody was told of


class Refusals(Observer):
    def __init__(self) -> None:
        self.told: list[tuple[int, str]] = []

    def version_refused(self, version: int, error: FluvialError) -> None:
        self.told.append((version, error.error_id))


class Planted:
    """A task with a window, or two, and a manifest of version 1 that a merger could make; then ``spoilt``."""

    def __init__(self, folder: Path) -> None:
        self.logs, self.observer, self.store = Logs(), Refusals(), FileStore(folder)
        self.context = small_task(folder, logs=self.logs, store=self.store, observer=self.observer)
        self.policies = Policies(self.context)
        self.genesis = Adopting(self.context, self.policies).genesis()
        self.window = publish_window(self.context, self.logs, ("eu", 0))
        self.second = publish_window(self.context, self.logs, ("eu", 0), after=self.window)
        # What a worker signed, and not the log's next: it stands in nobody's topic.
        elsewhere = small_task(folder, logs=Logs(), store=self.store)
        self.unpublished = publish_window(elsewhere, Logs(), ("us", 0))

    def manifest(self, *inputs: Aggregate, parent: Version | None = None) -> Manifest:
        layout = self.context.layout
        derived = derive(
            self.genesis.checkpoint,
            (WindowSums(self.context.store.sums(one.sum_sha256, layout)) for one in inputs),
            updates=sum(one.accepted for one in inputs),
            weight_total=sum(one.weight_total for one in inputs),
            policy=self.context.policy,
            server=self.context.policy.server,
            layout=layout,
        )
        self.derived = derived
        return next_manifest(TASK, parent or self.genesis, inputs, derived, VersionRules())

    def adopt(self, data: bytes) -> Version | None:
        """As a merger that starts; IntegrityProblem where it would wait for ever."""
        self.store.put(manifest_key(TASK, 1), data)
        adopting, windows = Adopting(self.context, self.policies), Windows(self.context, self.genesis.cursors)
        adopting.begin()
        try:
            return adopting.after(self.genesis, windows)
        except AssertionError:  # the clock tells whoever would wait
            return adopting._held(1, self.genesis, windows)


EVIL = factories.sha("evil")


Change = Callable[["Planted", "Manifest"], bytes]


def with_(**changed: Any) -> Change:
    """The manifest that a merger could make, but for these keys."""
    return lambda _, good: msgspec.structs.replace(good, **changed).canonical()


def with_input(**changed: Any) -> Change:
    """The same, but for these keys of its window."""
    return lambda _, good: msgspec.structs.replace(
        good, inputs=(msgspec.structs.replace(good.inputs[0], **changed),)
    ).canonical()


def second_alone(at: Planted, good: Manifest) -> bytes:
    one = at.second
    return with_input(sequence=1, sha256=one.sha256, first_offset=3, next_offset=6)(at, good)


SPOILT: dict[str, Change] = {
    "no inputs": with_(inputs=(), counts={}, accepted=0, weight_total=0),
    "another model": with_(model_sha256=EVIL),
    "another optimizer": with_(optimizer_sha256=EVIL),
    "another direction": with_(reference_sha256=EVIL),
    "a rollback that no operator signed": with_(reason="rollback"),
    "a policy that no operator signed": with_(policy_sha256=EVIL),
    "a floor that no operator signed": with_(floor=1),
    "another parent": with_(parent_sha256=EVIL),
    "another task": with_(task="another"),
    "another number": with_(version=2),
    "a window that nobody published": lambda at, _: at.manifest(at.unpublished).canonical(),
    "a window under another hash": with_input(sha256=EVIL),
    "other sums of a window": with_input(sum_sha256=EVIL),
    "more updates than a window holds": with_input(accepted=9),
    "a window that is not the next": second_alone,
    "a window twice": lambda _, good: msgspec.structs.replace(good, inputs=good.inputs * 2).canonical(),
    "a partition that the task does not have": with_input(partition=7),
    "cursors that pass a window over": with_(cursors={"eu": (2, 0), "us": (0,)}),
    "other counts": with_(counts={"accepted": 4}),
    "other totals": with_(update_bytes=1),
    "junk": lambda _at, _good: b"{}",
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_version_that_no_merger_made_is_not_adopted_and_others_are_told(tmp_path: Path, case: str) -> None:
    planted = Planted(tmp_path)
    with pytest.raises(IntegrityProblem, match=r"FLV-3305|FLV-3302|FLV-4102") as caught:
        planted.adopt(SPOILT[case](planted, planted.manifest(planted.window)))
    assert set(planted.observer.told) == {(1, caught.value.error_id)}
    assert not planted.context.store.has_checkpoint(1)
    assert not planted.logs.records.get((models_topic(TASK), 0))


def test_a_version_that_a_merger_made_and_told_nobody_of_is_derived_and_finished(tmp_path: Path) -> None:
    planted = Planted(tmp_path)
    good = planted.manifest(planted.window, planted.second)
    adopted = planted.adopt(good.canonical())
    assert adopted is not None
    assert (adopted.number, adopted.cursors["eu", 0]) == (1, 2)
    assert planted.context.store.model_bytes(1, good.model_sha256) == planted.derived.model
    assert not planted.observer.told


def test_files_that_somebody_put_beside_an_unannounced_version_are_not_what_is_built_upon(
    tmp_path: Path,
) -> None:
    planted = Planted(tmp_path)
    good = planted.manifest(planted.window)
    planted.context.store.write_checkpoint(1, b"planted", b"planted")
    adopted = planted.adopt(good.canonical())
    assert adopted is not None
    assert np.array_equal(adopted.checkpoint.model, planted.derived.checkpoint.model)
    assert planted.context.store.model_bytes(1, good.model_sha256) == planted.derived.model


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
