"""A guardian goes on: whatever a stolen merger's key announced, and until a merger has heard of its guide."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import pytest

from backends.object_store import StoreUnavailable
from fluvial.local.create import GUARDIAN
from schemas.certificates import Role
from schemas.checkpoints import encode_model
from schemas.objects import object_key
from schemas.topics import guides_topic
from stream_apps.guardian.making import ANNOUNCE_AGAIN_S, MERGERS_MAX
from stream_apps.merger import guides as merger_guides
from stream_apps.merger.guides import Guides
from stream_apps.merger.version import first_version
from tests.unit.stream_apps.guardian.test_making import FAILING, TASK, Site

if TYPE_CHECKING:
    from pathlib import Path

    from stream_apps.guardian.making import Making

FAR = 10**6
THIEF = "thief"
FAILING_ON_SEVENS = """
def train(model, data, config):
    if all((parameter == 7.0).all() for parameter in model.parameters()):
        raise ValueError("planted")
    out = model(torch.from_numpy(data.x)).float()
    nn.functional.cross_entropy(out, torch.from_numpy(data.y)).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.5 * parameter.grad
    return {"loss": 0.5}
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def versions(site: Site) -> list[int]:
    """Of the guides that were announced."""
    return [one.version for one in site.announced()]


def run(site: Site, made: Making) -> None:
    site.hear_all(made)
    while made.guide_newest():
        pass


@pytest.mark.parametrize("revoked", [False, True])
@pytest.mark.parametrize("restarts", [False, True])
def test_a_version_far_ahead_that_there_is_not_hides_no_version(
    site: Site, caplog: pytest.LogCaptureFixture, *, revoked: bool, restarts: bool
) -> None:
    site.announce(0)
    made = site.making()
    site.announce(FAR, b"no model", store=False, by=THIEF)
    with caplog.at_level(logging.WARNING, "fluvial.guardian"):
        run(site, made)
        run(site, made)
    assert caplog.text.count(f"waiting to read version {FAR}") == 1
    if revoked:
        site.revoke(Role.MERGER, THIEF)
    if restarts:
        made = site.making()
    site.announce(1)
    run(site, made)
    assert versions(site) == [0, 1]
    assert (made.guided, made.is_behind) == (1, not revoked)


@pytest.mark.parametrize("restarts", [False, True])
def test_a_version_far_ahead_of_a_planted_model_leads_nobody_once_its_merger_is_revoked(
    site: Site, *, restarts: bool
) -> None:
    site.announce(FAR, by=THIEF)
    made = site.making()
    run(site, made)
    site.announce(1)
    run(site, made)
    assert versions(site) == [FAR]
    site.revoke(Role.MERGER, THIEF)
    if restarts:
        made = site.making()
    run(site, made)
    site.announce(2)
    run(site, made)
    assert versions(site) == [FAR, 1, 2]
    site.clock.sleep(ANNOUNCE_AGAIN_S)
    run(site, made)
    assert versions(site) == [FAR, 1, 2, 2]


def test_another_model_than_was_announced_is_left_for_another_merger_s_version(site: Site) -> None:
    site.announce(2, b"announced")
    site.announce(2, by="another")
    site.announce(1, by="third")
    made = site.making()
    run(site, made)
    (said,) = site.announced()
    assert (said.version, said.model_sha256) == (2, site.first.genesis.model_sha256)


def test_a_planted_model_on_which_training_fails_hides_no_version(tmp_path: Path) -> None:
    site = Site(tmp_path, TASK + FAILING_ON_SEVENS)
    planted = np.full(site.first.genesis.tensor_layout.parameters, 7.0, np.float32)
    site.announce(FAR, encode_model(planted, site.first.genesis.tensor_layout), by=THIEF)
    site.announce(1)
    made = site.making()
    run(site, made)
    assert site.observer.told == [("failed", FAR), ("guided", 1)]
    site.clock.sleep(ANNOUNCE_AGAIN_S)
    run(site, made)
    assert (made.is_behind, versions(site)) == (False, [1, 1])


def test_mergers_are_remembered_up_to_a_bound(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_apps.guardian.making.MERGERS_MAX", 2)
    for version in range(4):
        site.announce(version, by=f"m-{version}")
    made = site.making()
    assert sorted(one.version for one in made._newest.values()) == [2, 3]
    assert MERGERS_MAX > 2


def test_the_newest_guide_is_announced_again_while_no_newer_version_comes(site: Site) -> None:
    site.announce(0)
    made = site.making()
    run(site, made)
    site.clock.sleep(ANNOUNCE_AGAIN_S - 1)
    run(site, made)
    assert versions(site) == [0]
    for _ in range(2):
        site.clock.sleep(ANNOUNCE_AGAIN_S)
        run(site, made)
    assert site.announced() == [site.announced()[0]] * 3
    site.announce(1)
    run(site, made)
    site.clock.sleep(ANNOUNCE_AGAIN_S)
    run(site, made)
    assert versions(site) == [0, 0, 0, 1, 1]
    assert site.observer.told == [("guided", 0), ("guided", 1)]


def test_one_that_starts_again_announces_what_it_had_made_again(site: Site) -> None:
    site.announce(0)
    run(site, site.making())
    again = site.making()
    site.clock.sleep(ANNOUNCE_AGAIN_S)
    run(site, again)
    assert site.announced() == [site.announced()[0]] * 2
    assert site.observer.told == [("guided", 0)]


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_guide_that_the_store_has_lost_is_made_again(site: Site, damage: str, *, restarts: bool) -> None:
    site.announce(0)
    made = site.making()
    run(site, made)
    (said,) = site.announced()
    key = object_key("mine", said.guide_sha256)
    data = site.store.store.get(key)
    if damage == "damaged":
        site.store.store.put(key, b"something else")
    else:
        del site.store.store._objects[key]  # type: ignore[attr-defined]
    if restarts:
        made = site.making()
    site.clock.sleep(ANNOUNCE_AGAIN_S)
    run(site, made)
    assert site.store.store.get(key) == data
    assert site.announced() == [said, said]


def test_while_the_store_does_not_answer_nothing_is_announced_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.announce(0)
    made = site.making()
    run(site, made)

    def away(key: str, *, bytes_max: int | None = None) -> bytes:
        del key, bytes_max
        raise StoreUnavailable("FLV-4002", "the store does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(site.store.store, "get", away)
        site.clock.sleep(ANNOUNCE_AGAIN_S)
        assert not made.guide_newest()
    assert versions(site) == [0]
    site.clock.sleep(ANNOUNCE_AGAIN_S)
    run(site, made)
    assert versions(site) == [0, 0]


def test_a_version_without_a_guide_is_not_announced(tmp_path: Path) -> None:
    site = Site(tmp_path, TASK + FAILING)
    site.announce(0)
    made = site.making()
    run(site, made)
    site.clock.sleep(ANNOUNCE_AGAIN_S)
    run(site, made)
    assert (made.is_behind, versions(site)) == (False, [])


def test_a_merger_behind_a_flood_of_junk_hears_of_a_guide_when_it_is_announced_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merger_guides, "LOOK_RECORDS_MAX", 50)
    site.announce(0)
    made = site.making()
    run(site, made)
    (said,) = site.announced()
    for _ in range(50):
        site.log.append(guides_topic("mine"), 0, None, b"junk of anybody", ())
    context, genesis = site.context(GUARDIAN), site.first.genesis
    checkpoint = site.store.checkpoint(0, genesis.model_sha256, genesis.optimizer_sha256, context.layout)
    head, guides = first_version(genesis, checkpoint), Guides(context)
    assert guides.after(head, genesis.first_policy).sha256 == ""
    site.clock.sleep(ANNOUNCE_AGAIN_S)
    run(site, made)
    assert guides.after(head, genesis.first_policy).sha256 == said.guide_sha256
