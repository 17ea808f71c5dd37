"""A guide that was announced is found in the end: whatever the store did meanwhile, and whatever others wrote."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from backends.object_store import StoreUnavailable
from schemas.objects import object_key
from stream_apps.merger import guides as merger_guides
from stream_apps.merger.guides import Guides
from tests import factories
from tests.guardians import Guardian, guided_policy
from tests.small_federation import SmallFederation

if TYPE_CHECKING:
    from stream_apps.merger.version import Version

TRIES = 10


def federation(**defence: Any) -> SmallFederation:
    return SmallFederation(policy=guided_policy(**defence))


def next_version(one: SmallFederation) -> str:
    """The guide that the next version names."""
    one.send()
    one.close_windows()
    one.fold()
    named = one.merge().guide_sha256
    one.fold()
    return named


def head_of(one: SmallFederation) -> Version:
    return one._running.merger.head


def looked(one: SmallFederation) -> Guides:
    """A merger's guides, from the topic's beginning on."""
    return Guides(one._running.merger.context)


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Keys of objects for which the store does not answer."""
    from backends.memory.store import MemoryStore

    keys: set[str] = set()
    get = MemoryStore.get

    def answer(store: MemoryStore, key: str, *, bytes_max: int | None = None) -> bytes:
        if key in keys:
            raise StoreUnavailable("FLV-4002", "the store does not answer")
        return get(store, key, bytes_max=bytes_max)

    monkeypatch.setattr(MemoryStore, "get", answer)
    return keys


@pytest.mark.parametrize("state", ["missing", "damaged", "away"])
def test_a_young_guide_is_looked_for_until_its_object_is_there(state: str, away: set[str]) -> None:
    one = federation(guide_missing="wait")
    guardian, guides = Guardian(one), looked(one)
    data = guardian.make(0)
    sha256 = guardian.announce(data, 0, store=state != "missing")
    if state == "damaged":
        guardian.replace(sha256, b"something else")
    if state == "away":
        away.add(object_key(one.task, sha256))
    for _ in range(TRIES):
        assert guides.after(head_of(one), one.policy).wait
        one.clock.sleep(merger_guides.LOOK_AGAIN_S_MAX)
    away.clear()
    guardian.replace(sha256, data)
    assert guides.after(head_of(one), one.policy).sha256 == sha256


def test_what_the_store_has_not_is_asked_for_ever_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    one = federation(guide_missing="wait")
    Guardian(one).announce(Guardian(one).make(0), 0, store=False)
    guides, asked = looked(one), list[float]()
    guide = one.objects.guide

    def noted(*args: Any) -> Any:
        asked.append(one.clock.monotonic() - began_s)
        return guide(*args)

    monkeypatch.setattr(guides._store, "guide", noted)
    began_s = one.clock.monotonic()
    for _ in range(100):
        assert guides.after(head_of(one), one.policy).wait
        one.clock.sleep(1.0)
    assert asked == [0.0, 5.0, 15.0, 35.0, 65.0, 95.0]


def test_an_object_that_cannot_be_read_holds_up_no_other(away: set[str]) -> None:
    one = federation(guide_missing="wait")
    first, second = Guardian(one), Guardian(one, factories.guardian_signer("g-2"))
    away.add(object_key(one.task, first.guide(0)))
    sha256 = second.guide(0)
    assert looked(one).after(head_of(one), one.policy).sha256 == sha256


@pytest.mark.parametrize("versions_max", [1, 2, 5])
def test_copies_of_old_announcements_evict_no_newer_one(versions_max: int) -> None:
    """Anybody may write again what a guardian once announced."""
    one = federation(guide_versions_max=versions_max)
    guardian = Guardian(one)
    copied = []
    for version in range(3):
        guardian.guide(version)
        copied.append(guardian.make(version))
        next_version(one)
    newest = guardian.guide(3)
    for _ in range(2 * merger_guides.CLAIMS_OF_ONE_MAX):
        for version, data in enumerate(copied):
            guardian.announce(data, version)
    assert next_version(one) == newest


def test_an_older_guide_takes_no_younger_one_s_place() -> None:
    """Different ones of a version, as a guardian with another seed or machine makes them."""
    one = federation(guide_versions_max=5)
    guardian = Guardian(one)
    next_version(one)
    newest = guardian.guide(1)
    for examples in range(2 * merger_guides.CLAIMS_OF_ONE_MAX):
        guardian.guide(0, examples=200 + examples)
    guides = looked(one)
    assert guides.after(head_of(one), one.policy).sha256 == newest
    assert [len(theirs) for theirs in guides._claims.values()] == [merger_guides.CLAIMS_OF_ONE_MAX]


def test_a_guide_of_a_version_that_another_merger_made_first_is_remembered() -> None:
    one = federation()
    guardian, before = Guardian(one), head_of(one)
    next_version(one)
    sha256 = guardian.guide(1)
    for version in range(2, 2 + 2 * merger_guides.CLAIMS_OF_ONE_MAX):
        guardian.announce(guardian.make(version), version)
    guides = looked(one)
    assert guides.after(before, one.policy).sha256 == ""
    guides._again_s = float("inf")  # by what was heard
    assert guides.after(head_of(one), one.policy).sha256 == sha256


def test_behind_a_flood_of_junk_the_second_announcement_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merger_guides, "LOOK_RECORDS_MAX", 50)
    one = federation(guide_missing="wait")
    guardian, guides = Guardian(one), looked(one)
    sha256 = guardian.guide(0)
    for _ in range(50):
        guardian.append(b"junk")
    assert guides.after(head_of(one), one.policy).wait
    assert guardian.guide(0) == sha256
    assert guides.after(head_of(one), one.policy).sha256 == sha256


@pytest.mark.parametrize(
    "name", ["", "ab", "AB" * 32, "ab" * 33, "../" + "a" * 61, "ab" * 31 + "\n\n", "é" * 64]
)
def test_an_announcement_names_an_object_or_is_none(name: str) -> None:
    one = federation(guide_missing="go_on")
    guardian, guides = Guardian(one), looked(one)
    guardian.announce(guardian.make(0), 0, guide_sha256=name)
    assert guides.after(head_of(one), one.policy).sha256 == ""
    assert guides.refused == {"forged": 1}
    assert not guides._claims


def test_a_merger_that_waits_goes_on_when_the_object_comes() -> None:
    one = federation(guide_missing="wait")
    guardian = Guardian(one)
    data = guardian.make(0)
    sha256 = guardian.announce(data, 0, store=False)
    one.send()
    one.close_windows()
    one.fold()

    async def is_made() -> bool:
        await one._running.take()
        one.clock.sleep(one.policy.buffer.seconds_max)
        return await one._running.merge_if_due()

    assert not any(asyncio.run(is_made()) for _ in range(TRIES))
    one.objects.put_object(data)
    one.clock.sleep(merger_guides.LOOK_AGAIN_S_MAX)
    assert asyncio.run(is_made())
    assert one.objects.manifest(1).guide_sha256 == sha256
