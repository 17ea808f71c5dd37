"""What may look like damage to the offline checker and is none: what is late, said twice or skipped."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from aggregation.fold.events import Parked, Verdict
from aggregation.reasons import Reason, because
from schemas import avro as codec
from schemas.objects import model_key
from schemas.topics import aggregates_topic, updates_topic
from tests import factories
from tests.factories import verdict_bytes
from tests.small_federation import SmallFederation
from tests.unit.fluvial.proof.checked_copy import Copy, broken, copy_of
from tests.unit.fluvial.proof.spoiling import (
    US,
    announce_early,
    change_verdict,
    undrained_update,
    verdict_at,
    verdicts,
)

if TYPE_CHECKING:
    from schemas.envelope import Signer


def test_a_healthy_federation_breaks_no_promise(data: Copy) -> None:
    report = data.check()
    assert [one.message for one in report.violations] == []
    assert report.identical and (report.lost, report.double, report.forks) == (0, 0, 0)
    assert (report.published, report.acknowledged, report.versions) == (36, 12, 4)
    assert report.verdicts == 62 and report.ignored == 1
    assert report.to_document()["violations"] == []


def test_of_two_verdicts_the_right_one_may_be_either(data: Copy) -> None:
    """Two different ones break the first invariant; that one of them is what the log gives is the eighth."""
    right = verdict_at(data, 1)
    change_verdict(data, weight=65535)
    assert broken(data.check()) == {4, 8}
    data.append(verdicts(data), codec.encode("Verdict", right))
    assert broken(data.check()) == {1, 4}


def test_above_published_windows_no_verdict_is_missing_yet(data: Copy) -> None:
    published = len(data.logs[aggregates_topic(data.task, US), 0])
    del data.logs[verdicts(data), 0][-1]  # of the last Barrier, whose window is open
    assert published == 4 and data.check(drained=False).violations == ()
    del data.logs[verdicts(data), 0][-1]
    assert 8 in broken(data.check(drained=False))


def test_the_same_verdict_twice_counts_once(data: Copy) -> None:
    data.append(verdicts(data), data.logs[verdicts(data), 0][1][3] or b"")
    assert data.check().violations == ()


def test_what_is_still_on_its_way_is_no_violation_before_the_end(data: Copy) -> None:
    undrained_update(data)
    del data.objects[model_key(data.task, 4)]
    assert data.check(drained=False).violations == ()
    assert broken(data.check()) == {4, 7}


def test_a_transactions_marker_is_an_undecodable_record(data: Copy) -> None:
    topic = updates_topic(data.task, US)
    log = data.logs[topic, 0]
    offset = len(log)
    log.append((offset + 1, log[-1][1], None, b"after the marker"))
    for judged in (offset, offset + 1):
        why = because(Reason.NO_VALUE if judged == offset else Reason.NOT_SINGLE_OBJECT)
        data.append(verdicts(data), verdict_bytes(Verdict(judged, "undecodable", why)))
    assert data.check().violations == ()


def test_times_are_not_compared_where_the_brokers_clock_jumps(data: Copy) -> None:
    announce_early(data)
    assert data.check(clock_skew_ms=None).violations == ()


def test_a_misbehaving_devices_word_is_not_taken(data: Copy) -> None:
    data.acknowledged = [replace(one, update_id="invented", honest=False) for one in data.acknowledged]
    assert data.check().violations == ()


def skipping(*, by: Signer) -> Copy:
    """A record of us[0] that workers parked, and the Skip behind it that stands for it."""
    federation = SmallFederation()
    (device,) = factories.devices(1, start=700)
    parked = federation.append(US, 0, federation.update(US, device, seed=3))
    fields = {"task": federation.task, "region": US, "partition": 0, "offset": parked, "reason": "it raises"}
    at = federation.append(US, 0, federation.signer(factories.operator_signer()).sign("Skip", fields))
    federation.parked[(US, 0), parked] = Parked(at, "it raises")
    federation.rounds(2)
    federation.fold()
    data = copy_of(federation)
    data.edit(updates_topic(data.task, US), at, by.of_task(data.domain).sign("Skip", fields))
    return data


def test_a_record_that_an_operator_skipped_is_skipped_here_too() -> None:
    report = skipping(by=factories.operator_signer()).check()
    assert [one.message for one in report.violations] == []


def test_nobody_else_can_have_a_record_skipped() -> None:
    assert 4 in broken(skipping(by=factories.merger_signer()).check())
