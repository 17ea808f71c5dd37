"""Which guide a version names: the newest good one, whatever else stands in the topic and in the store."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from typing import TYPE_CHECKING, Any

import pytest

from aggregation.errors import ConnectionProblem
from aggregation.layout import Layout
from schemas.checkpoints import encode_direction
from schemas.guides import guide_bytes_max
from schemas.objects import object_key
from schemas.topics import models_topic
from stream_apps.merger import guides as merger_guides
from stream_apps.merger.guides import REFUSALS, Guides
from stream_apps.merger.guiding import UNGUIDED
from stream_apps.merger.merger import REVOKES_EVERY_S, Merger
from tests import factories
from tests.guardians import Guardian, direction, guided_policy, nan_direction, zero_direction
from tests.small_federation import SmallFederation

if TYPE_CHECKING:
    from collections.abc import Callable

    from schemas.manifests import Manifest

OTHER = Layout.of([("hidden.weight", (2, 5))])
MUCH = 100_000_000


def federation(**defence: Any) -> SmallFederation:
    return SmallFederation(policy=guided_policy(**defence))


def guides_of(one: SmallFederation) -> Guides:
    found = one._running.merger._committing._guiding
    assert isinstance(found, Guides)
    return found


def version_of(one: SmallFederation) -> Manifest:
    """The next version."""
    one.send()
    one.close_windows()
    one.fold()
    manifest = one.merge()
    one.fold()
    return manifest


def is_due(one: SmallFederation) -> bool:
    """Whether the merger makes a version of what devices have sent."""

    async def run() -> bool:
        await one._running.take()
        one.clock.sleep(one.policy.buffer.seconds_max)
        return await one._running.merge_if_due()

    one.send()
    one.close_windows()
    one.fold()
    return asyncio.run(run())


def revoke(one: SmallFederation, guardian: Guardian, *, everywhere: bool) -> None:
    """In every partition, as ``fluvial revoke`` does; ``everywhere``: in the models topic, too."""
    serial = one.trust.identify(one.signer(guardian.by).certificate).serial
    value = factories.revoke_bytes(serial=serial, by=one.signer(factories.operator_signer()), task=one.task)
    for region, partitions in one.partitions.items():
        for partition in range(partitions):
            one.append(region, partition, value)
    if everywhere:
        one.writer.append_now(models_topic(one.task), value, partition=0)


def guides_in_force(one: SmallFederation) -> set[str]:
    """What the partitions judge by."""
    return {state.guide_sha256 for state in one.states.values()}


def test_a_version_names_the_newest_guide_and_every_partition_judges_by_it() -> None:
    one = federation()
    sha256 = Guardian(one).guide(0)
    assert version_of(one).guide_sha256 == sha256
    assert guides_in_force(one) == {sha256}
    newer = Guardian(one).guide(1)
    assert version_of(one).guide_sha256 == newer
    assert guides_in_force(one) == {newer}


def test_a_guide_serves_for_as_many_versions_as_the_policy_says() -> None:
    one = federation(guide_versions_max=2)
    sha256 = Guardian(one).guide(0)
    assert [version_of(one).guide_sha256 for _ in range(3)] == [sha256, sha256, ""]
    assert guides_in_force(one) == {""}


def test_without_one_it_goes_on_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    one = federation(guide_missing="go_on")
    with caplog.at_level(logging.WARNING, "fluvial.merger"):
        assert [version_of(one).guide_sha256 for _ in range(2)] == ["", ""]
        Guardian(one).guide(2)
        version_of(one)
        for _ in range(3):
            version_of(one)
    said = [one.getMessage() for one in caplog.records if "no guide is young enough" in one.getMessage()]
    assert [text.split(":")[0] for text in said] == [
        f"no guide is young enough for version {v}" for v in (1, 5)
    ]


def test_it_waits_where_the_policy_says_so() -> None:
    one = federation(guide_missing="wait")
    assert [is_due(one) for _ in range(2)] == [False, False]
    assert one._running.merger.head.number == 0
    sha256 = Guardian(one).guide(0)
    assert is_due(one)
    assert one.objects.manifest(1).guide_sha256 == sha256
    assert not is_due(one) or one.objects.manifest(2).guide_sha256 == sha256


CASES: dict[str, tuple[str, Callable[[SmallFederation, Guardian], object]]] = {
    "junk": ("forged", lambda _, g: g.append(b"\x00\xff junk")),
    "nothing": ("forged", lambda _, g: g.append(b"")),
    "the guide itself": ("forged", lambda _, g: g.append(g.make(0))),
    "announced by a merger": (
        "forged",
        lambda _, g: g.announce(g.make(0), 0, by=factories.merger_signer()),
    ),
    "announced by a device": (
        "forged",
        lambda _, g: g.announce(g.make(0), 0, by=factories.device_signer("d-1")),
    ),
    "announced for another task": ("forged", lambda _, g: g.announce(g.make(0), 0, task="another")),
    "signed for another task": ("no_guide", lambda _, g: g.announce(g.make(0, task="another"), 0)),
    "signed by a merger": (
        "no_guide",
        lambda _, g: g.announce(g.make(0, by=factories.merger_signer()), 0),
    ),
    "of another guardian": (
        "no_guide",
        lambda _, g: g.announce(g.make(0, by=factories.guardian_signer("g-2")), 0),
    ),
    "of another layout": ("no_guide", lambda _, g: g.announce(g.make(0, direction=direction(OTHER)), 0)),
    "of another base": (
        "wrong_base",
        lambda _, g: g.announce(g.make(0), 0, model_sha256="ab" * 32),
    ),
    "made of another base": ("no_guide", lambda _, g: g.announce(g.make(0, model_sha256="ab" * 32), 0)),
    "made of another version": (
        "no_guide",
        lambda f, g: g.announce(g.make(7, model_sha256=f.models[0]), 0),
    ),
    "with NaN": ("no_guide", lambda f, g: g.announce(g.raw(0, nan_direction(f.layout)), 0)),
    "of zeros": ("no_guide", lambda f, g: g.announce(g.raw(0, zero_direction(f.layout)), 0)),
    "truncated": ("no_guide", lambda _, g: g.announce(g.make(0)[:-20], 0)),
    "with a truncated direction": (
        "no_guide",
        lambda f, g: g.announce(g.raw(0, encode_direction(direction(f.layout))[:-3]), 0),
    ),
    "empty": ("no_guide", lambda _, g: g.announce(b"", 0)),
    "said to be huge": ("too_large", lambda _, g: g.announce(g.make(0), 0, guide_bytes=MUCH)),
    "huge": ("no_guide", lambda _, g: g.announce(g.raw(0, b"\0" * MUCH), 0, guide_bytes=5000)),
    "not in the store": ("missing", lambda _, g: g.announce(g.make(0), 0, store=False)),
    "of another hash": ("damaged", lambda _, g: g.replace(g.announce(g.make(0), 0), b"others")),
}


@pytest.mark.parametrize("name", CASES)
def test_no_record_or_object_of_anybody_else_is_taken(name: str) -> None:
    reason, plant = CASES[name]
    one = federation()
    guardian = Guardian(one)
    plant(one, guardian)
    assert version_of(one).guide_sha256 == ""
    assert set(guides_of(one).refused) == {reason}
    assert guides_in_force(one) == {""}
    good = guardian.guide(1)
    assert version_of(one).guide_sha256 == good
    assert guides_in_force(one) == {good}


def test_every_reason_is_tried() -> None:
    assert {reason for reason, _ in CASES.values()} == set(REFUSALS)


def test_a_certificate_counts_if_it_was_valid_when_the_announcement_came() -> None:
    one = federation()
    now = dt.datetime.fromtimestamp(factories.NOW_MS / 1000, dt.UTC)
    expired = factories.guardian_signer("g-9", not_after=now - dt.timedelta(days=1))
    Guardian(one, expired).guide(0)
    assert version_of(one).guide_sha256 == ""
    assert set(guides_of(one).refused) == {"forged"}


def test_of_two_guardians_the_newer_guide_is_named_and_the_other_s_where_that_is_none() -> None:
    one = federation()
    first, second = Guardian(one), Guardian(one, factories.guardian_signer("g-2"))
    of_first = first.guide(0)
    second.announce(second.raw(0, nan_direction(one.layout)), 0)
    assert version_of(one).guide_sha256 == of_first
    second_sha256 = second.guide(1)
    first.announce(first.make(1)[:-9], 1)
    assert version_of(one).guide_sha256 == second_sha256


def test_one_guardian_s_key_silences_no_other() -> None:
    """Announcements of versions that there are not yet, by the thousand, by one whose key was stolen."""
    one = federation()
    thief, honest = Guardian(one, factories.guardian_signer("g-2")), Guardian(one)
    good = honest.guide(0)
    data = thief.make(0)
    for version in range(1, 2 * merger_guides.CLAIMS_OF_ONE_MAX):
        thief.announce(data, version)
    assert version_of(one).guide_sha256 == good


def test_what_a_revoked_guardian_says_is_not_heard_and_another_is() -> None:
    one = federation(guide_versions_max=5)
    revoked, honest = Guardian(one), Guardian(one, factories.guardian_signer("g-2"))
    sha256 = revoked.guide(0)
    assert version_of(one).guide_sha256 == sha256
    revoke(one, revoked, everywhere=True)
    older = honest.guide(0)
    revoked.guide(1)
    one.clock.sleep(REVOKES_EVERY_S)
    assert version_of(one).guide_sha256 == older
    assert guides_in_force(one) == {older}


def test_partitions_that_know_more_fold_as_if_there_were_no_guide() -> None:
    one = federation()
    guardian = Guardian(one)
    sha256 = guardian.guide(0)
    revoke(one, guardian, everywhere=False)
    assert version_of(one).guide_sha256 == sha256
    assert guides_in_force(one) == {""}


def test_a_merger_that_starts_again_takes_a_guide_of_the_version_before_its_head() -> None:
    one = federation(guide_versions_max=4)
    guardian = Guardian(one)
    guardian.guide(0)
    for _ in range(3):
        version_of(one)
    sha256 = guardian.guide(1)
    again = Guides(one._running.merger.context)
    assert again.after(one._running.merger.head, one.policy).sha256 == sha256


def test_a_flood_of_junk_costs_a_bounded_look_and_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(merger_guides, "LOOK_RECORDS_MAX", 50)
    one = federation()
    guardian = Guardian(one)
    for _ in range(200):
        guardian.append(b"junk")
    good = guardian.guide(0)
    with caplog.at_level(logging.WARNING, "fluvial.merger"):
        assert version_of(one).guide_sha256 == good
    assert guides_of(one).refused == {"forged": 49}
    assert len([one for one in caplog.records if one.getMessage().startswith("ignored")]) == 1


def test_while_the_topic_cannot_be_read_what_is_known_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    one = federation()
    guardian = Guardian(one)
    sha256 = guardian.guide(0)
    assert version_of(one).guide_sha256 == sha256
    newer = guardian.guide(1)

    def away(*_: object) -> None:
        raise ConnectionProblem("FLV-3100", "no broker answers")

    monkeypatch.setattr(guides_of(one)._reader, "bounds", away)
    assert version_of(one).guide_sha256 == sha256
    one.clock.sleep(merger_guides.LOOK_AGAIN_S)
    assert version_of(one).guide_sha256 == newer  # by another reader


def test_a_guide_s_object_stands_in_the_store_before_a_version_names_it() -> None:
    """It is looked for again: a store may be slower than a broker to say what it has."""
    one = federation(guide_versions_max=5)
    guardian = Guardian(one)
    data = guardian.make(0)
    sha256 = guardian.announce(data, 0, store=False)
    assert version_of(one).guide_sha256 == ""
    one.objects.put_object(data)
    assert version_of(one).guide_sha256 == sha256


def test_a_task_without_guides_has_no_topic_of_them_and_nothing_is_asked_of_it() -> None:
    one = SmallFederation()
    assert one._running.merger._committing._guiding is UNGUIDED
    assert not any(topic.name.endswith(".guides") for topic in one.topics)


def test_a_merger_that_adopts_takes_any_guide_that_is_one_and_refuses_all_else() -> None:
    one = federation()
    guardian = Guardian(one)
    version_of(one)
    head, guides = one._running.merger.head, guides_of(one)
    accepted = [guardian.guide(1), guardian.guide(0)]
    for sha256 in (*accepted, ""):
        assert guides.flaw_of(sha256, head, one.policy) == ""
    refused = {
        "signed by nobody": one.objects.put_object(b"junk"),
        "of a merger": one.objects.put_object(guardian.make(1, by=factories.merger_signer())),
        "of another base": one.objects.put_object(guardian.make(1, model_sha256="ab" * 32)),
        "of a version to come": one.objects.put_object(guardian.make(2, model_sha256=one.models[1])),
    }
    for name, sha256 in refused.items():
        assert guides.flaw_of(sha256, head, one.policy), name
    assert "waits for one" in guides.flaw_of("", head, guided_policy(guide_missing="wait"))
    assert guides.flaw_of(accepted[0], head, factories.policy(format="fluvial/policy/v3"))


def test_a_second_merger_adopts_a_version_whose_guide_it_would_not_have_chosen() -> None:
    one = federation()
    guardian = Guardian(one)
    older = guardian.guide(0)
    version_of(one)
    one.send()
    one.close_windows()
    one.fold()
    other = Merger(one._running.merger.context)
    other.resume()
    manifest = one.merge()
    guardian.guide(1)
    assert manifest.guide_sha256 == older
    other._adopt_head()
    assert (other.head.number, other.head.guide_sha256) == (2, older)


def test_the_bound_of_an_object_follows_from_the_layout() -> None:
    one = federation()
    assert len(Guardian(one).make(0)) < guide_bytes_max(one.layout) < 20_000
    assert object_key(one.task, "ab" * 32).startswith(one.task)
