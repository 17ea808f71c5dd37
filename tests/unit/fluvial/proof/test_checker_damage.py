"""The offline checker finds every promise that is broken: the damage, the invariants it breaks, and what is counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from schemas.checkpoints import decode_model, encode_model
from schemas.objects import model_key, optimizer_key, sha256_hex
from tests import factories
from tests.small_federation import SmallFederation
from tests.unit.fluvial.proof.checked_copy import Copy, broken, copy_of
from tests.unit.fluvial.proof.spoiling import (
    accept_twice,
    acknowledge_another,
    announce_early,
    announce_nothing,
    barrier_of_nothing,
    change_verdict,
    drop_verdict,
    early_device,
    edit_manifest,
    edit_manifest_as_bytes,
    edited_aggregate,
    flip,
    fork_in_announcement,
    fork_in_barrier,
    gap_in_aggregates,
    hold_twice,
    lose_acknowledged,
    lose_manifest,
    named_by_aggregate,
    other_sums,
    poor_snapshot,
    second_aggregate,
    second_verdict,
    undrained_update,
    verdict_beyond,
    window_beyond,
)

if TYPE_CHECKING:
    from collections.abc import Callable

DAMAGE: dict[str, tuple[Callable[[Copy], None], set[int], dict[str, int]]] = {
    "a verdict is missing": (drop_verdict, {1, 7, 8}, {"lost": 1}),
    "a verdict says another outcome": (lambda d: change_verdict(d, outcome="duplicate"), {4, 8}, {}),
    "a verdict says another weight": (lambda d: change_verdict(d, weight=65535), {4, 8}, {}),
    "a verdict says another norm": (lambda d: change_verdict(d, norm=0.25), {4, 8}, {}),
    "two verdicts on one offset": (second_verdict, {1}, {"double": 1}),
    "a device accepted twice on a version": (accept_twice, {1}, {"double": 1}),
    "a verdict beyond the log": (verdict_beyond, {1, 8}, {}),
    "a verdict before the log": (lambda d: verdict_beyond(d, -1), {1, 8}, {}),
    "a window beyond the log": (window_beyond, {3, 8}, {}),
    "an acknowledged offset beyond the log": (lose_acknowledged, {1}, {"lost": 1}),
    "an acknowledged offset holds another update": (acknowledge_another, {1}, {"lost": 1}),
    "a manifest with another parent": (
        lambda d: edit_manifest(d, 4, parent_sha256="e" * 64),
        {2},
        {"forks": 6},
    ),
    "a manifest in the middle is lost": (lose_manifest, {2}, {}),
    "a barrier of a forked version": (fork_in_barrier, {2}, {"forks": 1}),
    "a barrier of no version": (barrier_of_nothing, {2}, {"forks": 1}),
    "an announcement of a forked version": (fork_in_announcement, {2}, {"forks": 1}),
    "an announcement of no version": (announce_nothing, {6}, {}),
    "an announcement before its barriers": (announce_early, {6}, {}),
    "a device that was told too early": (early_device, {6}, {}),
    "a gap in the aggregates": (gap_in_aggregates, {3}, {}),
    "two aggregates of one sequence": (second_aggregate, {3}, {}),
    "an aggregate with another weight": (lambda d: edited_aggregate(d, -1, weight_total=1), {4}, {}),
    "an aggregate of other offsets": (lambda d: edited_aggregate(d, -1, first_offset=1), {3}, {}),
    "an aggregate after another one": (lambda d: edited_aggregate(d, -1, previous_sha256="a" * 64), {3}, {}),
    "a window that the log does not close": (
        lambda d: edited_aggregate(d, -1, append=True, sequence=4),
        {3},
        {},
    ),
    "a flipped byte in stored sums": (lambda d: flip(d, named_by_aggregate(d, 0, "sum_sha256")), {4}, {}),
    "other sums, well named": (other_sums, {4}, {}),
    "a flipped byte in a model": (lambda d: flip(d, model_key(d.task, 2)), {4}, {}),
    "a flipped byte in an optimizer state": (lambda d: flip(d, optimizer_key(d.task, 3)), {4}, {}),
    "a manifest with another model": (lambda d: edit_manifest(d, 4, model_sha256="a" * 64), {4}, {}),
    "a manifest with other counts": (lambda d: edit_manifest(d, 4, counts={"accepted": 1}), {4}, {}),
    "a manifest whose largest staleness is a text": (
        lambda d: edit_manifest_as_bytes(d, 4, staleness_max="1"),
        {2},
        {},
    ),
    "a manifest whose largest staleness is a list": (
        lambda d: edit_manifest_as_bytes(d, 4, staleness_max=[1]),
        {2},
        {},
    ),
    "a manifest without a largest staleness": (
        lambda d: edit_manifest_as_bytes(d, 4, staleness_max=None),
        {2},
        {},
    ),
    "a manifest with other cursors": (
        lambda d: edit_manifest(d, 4, cursors={"eu": [9, 9], "us": [9]}),
        {3},
        {},
    ),
    "a window in two versions": (hold_twice, {1, 3}, {"double": 9}),
    "a snapshot without contributions": (poor_snapshot, {5}, {}),
    "a flipped byte in a snapshot": (lambda d: flip(d, named_by_aggregate(d, 0, "state_sha256")), {5}, {}),
    "a record that nobody has judged": (undrained_update, {7}, {}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found(damage: str, data: Copy) -> None:
    spoil, invariants, counted = DAMAGE[damage]
    spoil(data)
    report = data.check()
    assert invariants <= broken(report), report.violations
    assert {name: getattr(report, name) for name in counted} == counted
    assert report.identical == (not broken(report) & {2, 3, 4, 5})


def test_a_version_whose_buffers_are_not_the_mean_of_its_updates_is_found() -> None:
    federation = SmallFederation(layout=factories.BUFFERED)
    federation.rounds(2)
    federation.fold()
    data = copy_of(federation)
    key = model_key(data.task, 2)
    model = decode_model(data.objects[key], federation.layout).copy()
    model[-1] = np.nextafter(model[-1], np.float32(9))
    data.objects[key] = encode_model(model, federation.layout)
    edit_manifest(data, 2, model_sha256=sha256_hex(data.objects[key]))
    assert any("model_sha256" in one.message for one in data.check().violations if one.invariant == 4)
