"""A record that makes the fold raise, parked by an operator's Skip: the fold, who may sign it, what audits say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import aggregation.fold.transition
from aggregation.fold.admission import Admitted, RejectedUpdate, admit
from aggregation.fold.events import Parked, Skip, Update
from aggregation.fold.transition import fold_into
from backends.kafka.reading import LogReader
from backends.skips import find_parking_skip, find_skips
from backends.store.task_store import TaskStore
from fluvial.proof.audit import AuditReport, audit_task
from fluvial.reading.lineage import lineage_of
from fluvial.reading.task_view import TaskView
from producers.sdk.advice import hint_for, problem_of
from schemas.certificates import Role
from schemas.envelope import Signer
from schemas.records import skip_in
from schemas.signing import FIRST_DOMAIN
from schemas.windows import encode_state, encode_window, restore_state
from tests.factories import (
    CONTROL,
    LAYOUT,
    NOT_BEFORE,
    NOW_MS,
    TASK,
    Site,
    device_signer,
    devices,
    key,
    merger_signer,
    operator_signer,
    policy,
    signer,
    snapshot,
    state_of,
    trust,
    update_bytes,
    worker_signer,
)
from tests.small_federation import SmallFederation, on_mock_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aggregation.fold.state import PartitionState
    from backends.log import LogRecord

SLOT = ("eu", 0)
RULES = policy(window={"updates_max": 4, "records_max": 40}, anomaly={"enabled": False})


def skip_bytes(offset: int, *, by: Signer | None = None, **changed: Any) -> bytes:
    fields = {"task": TASK, "region": "eu", "partition": 0, "offset": offset, "reason": "it raises"} | changed
    return (by or operator_signer()).sign("Skip", fields)


# -- the fold


def but_for_the_count(state: PartitionState) -> dict[str, Any]:
    found = snapshot(state)
    del found["next_offset"], found["window.counts"]
    return found


def test_a_skipped_record_counts_and_changes_nothing_else() -> None:
    site = Site(state_of(RULES))
    site.append(update_bytes("d-0001"))
    before = but_for_the_count(site.state)
    verdict = site.fold(Parked(9, "it raises"))
    assert (verdict.offset, verdict.outcome) == (1, "skipped")
    assert verdict.detail == "parked by the operator's Skip at offset 9: it raises"
    assert (verdict.device_id, verdict.base_version, verdict.weight) == ("", -1, 0)
    assert but_for_the_count(site.state) == before
    assert site.state.window.counts == {"accepted": 1, "skipped": 1}
    assert site.state.next_offset == 2
    # Nothing of the record is used up: what it would have contributed still counts.
    assert site.append(update_bytes("d-0002")).outcome == "accepted"


def test_a_skipped_record_can_fill_a_window() -> None:
    site = Site(state_of(policy(window={"updates_max": 2, "records_max": 3})))
    for event in (Parked(9, ""), Parked(9, ""), Parked(9, "")):
        site.fold(event)
    assert [(one.first_offset, one.next_offset, one.counts) for one in site.closed] == [
        (0, 3, {"skipped": 3})
    ]
    assert site.closed[0].sums is None


@pytest.mark.parametrize("skip_offset", [0, 1])
def test_a_skip_that_does_not_stand_behind_the_record_is_a_defect_of_the_caller(skip_offset: int) -> None:
    site = Site(state_of(RULES))
    site.append(update_bytes("d-0001"))
    before = snapshot(site.state)
    with pytest.raises(ValueError, match="cannot name the record at 1"):
        fold_into(site.state, 1, Parked(skip_offset, ""))
    assert snapshot(site.state) == before


def test_a_lower_offset_was_folded_before_and_is_not_parked_any_more() -> None:
    site = Site(state_of(RULES))
    site.append(update_bytes("d-0001"))
    before = snapshot(site.state)
    assert fold_into(site.state, 0, Parked(5, "")) == ()
    assert snapshot(site.state) == before


def test_where_a_skip_stands_it_changes_nothing() -> None:
    site = Site(state_of(RULES))
    site.append(update_bytes("d-0001"))
    before = snapshot(site.state)
    for named in (0, 1, 700):
        verdict = site.append(skip_bytes(named))
        assert (verdict.outcome, verdict.detail) == ("control", f"skip of offset {named}: it raises")
    del before["next_offset"]
    assert {name: value for name, value in snapshot(site.state).items() if name != "next_offset"} == before


@pytest.mark.parametrize(
    ("changed", "outcome"),
    [
        ({"task": "fashion"}, "wrong_task"),
        ({"region": "us"}, "wrong_region"),
        ({"partition": 1}, "wrong_partition"),
    ],
)
def test_a_skip_for_elsewhere_is_refused(changed: dict[str, Any], outcome: str) -> None:
    site = Site(state_of(RULES, partitions=2))
    before = but_for_the_count(site.state)
    assert site.append(skip_bytes(0, **changed)).outcome == outcome
    assert but_for_the_count(site.state) == before


def test_a_snapshot_after_a_window_with_a_skipped_record_gives_back_the_state() -> None:
    rules = policy(window={"updates_max": 2}, anomaly={"enabled": False})
    site = Site(state_of(rules))
    site.append(update_bytes("d-0001"))
    site.fold(Parked(7, "it raises"))
    site.append(update_bytes("d-0002"))
    one = encode_window(site.state, site.closed[0])
    assert one.aggregate.counts == {"accepted": 2, "skipped": 1}
    data = one.objects[one.aggregate.state_sha256]
    again = restore_state(data, one.aggregate, partitions=1, layout=LAYOUT, policy=rules, reference=None)
    assert snapshot(again) == snapshot(site.state)
    assert encode_state(again) == data
    for state in (again, site.state):
        assert fold_into(state, 3, Parked(7, ""))[0].outcome == "skipped"  # type: ignore[union-attr]


# -- who may sign

FORGERS: list[tuple[str, Signer]] = [
    ("a device", device_signer("d-0001")),
    ("a worker", worker_signer()),
    ("a merger", merger_signer()),
    ("an operator of another CA", signer(CONTROL, Role.OPERATOR, "x", secret="other")),
    ("an operator who expired", signer(CONTROL, Role.OPERATOR, "x", not_after=NOT_BEFORE.replace(month=2))),
    ("another key", Signer(operator_signer().certificate, key("somebody else"), FIRST_DOMAIN)),
    ("no certificate", Signer(b"", operator_signer().key, FIRST_DOMAIN)),
]


@pytest.mark.parametrize("by", [one for _, one in FORGERS], ids=[name for name, _ in FORGERS])
def test_only_an_operator_may_sign_a_skip(by: Signer) -> None:
    value = skip_bytes(0, by=by)
    assert skip_in(value, NOW_MS, trust()) is None
    site = Site(state_of(RULES))
    verdict = site.append(value)
    assert verdict.outcome == "bad_signature" and "forged Skip" in verdict.detail


def test_a_genuine_skip_is_read_and_nothing_else_is() -> None:
    expected = Skip(TASK, "eu", 0, 7, "it raises")
    assert skip_in(skip_bytes(7), NOW_MS, trust()) == expected
    assert Site().event(skip_bytes(7)) == expected
    cut = skip_bytes(7)[:-9]
    for value in (None, b"", b"garbage", cut, update_bytes("d-0001")):
        assert skip_in(value, NOW_MS, trust()) is None
    flipped = bytearray(skip_bytes(7))
    flipped[-10] ^= 1
    assert skip_in(bytes(flipped), NOW_MS, trust()) is None


def test_a_skipped_verdict_is_no_refusal_and_says_what_a_device_can_do() -> None:
    verdict = Site().fold(Parked(3, "it raises"))
    assert problem_of(verdict, "") is None
    assert "next version" in hint_for("skipped")


# -- audit and lineage, on logs that a small federation has written


class Stage:
    """One partition whose worker had a record parked, and an audit whose own code may raise on it or not."""

    def __init__(self, federation: SmallFederation, monkeypatch: pytest.MonkeyPatch) -> None:
        self.federation = federation
        self._monkeypatch = monkeypatch
        self._devices = iter(devices(60))

    def send(self, count: int = 1) -> list[int]:
        names = [next(self._devices) for _ in range(count)]
        updates = [self.federation.update("eu", name, seed=int(name[2:])) for name in names]
        return [self.federation.append(*SLOT, value) for value in updates]

    def skip(self, offset: int, **changed: Any) -> int:
        by = self.federation.signer(changed.pop("by", operator_signer()))
        return self.federation.append(*SLOT, skip_bytes(offset, by=by, **changed))

    def park(self, offset: int, skip_offset: int) -> None:
        """What the worker folded there."""
        self.federation.parked[SLOT, offset] = Parked(skip_offset, "it raises")

    def raising(self, *offsets: int) -> None:
        """From now on our own fold has a defect: it raises at these offsets, after it has changed the state."""

        def defective(state: PartitionState, update: Update) -> Admitted | RejectedUpdate:
            judged = admit(state, update)
            if state.next_offset in offsets:
                state.window.weight_total += 77
                state.counted.add(0, "half-changed")
                raise ZeroDivisionError("a defect")
            return judged

        self._monkeypatch.setattr(aggregation.fold.transition, "admit", defective)

    def audit(self) -> AuditReport:
        return audit_task(self.federation.settings, self.federation.task_file, jobs=1)

    def complaints(self) -> list[tuple[str, str, str]]:
        return [(one.error_id, one.field, one.got) for one in self.audit().findings]


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with on_mock_cluster(tmp_path) as settings:
        yield Stage(SmallFederation(settings, policy=RULES, partitions={"eu": 1}), monkeypatch)


def parked_and_merged(stage: Stage) -> int:
    """A version whose one window holds a skipped record among four accepted ones; the skipped offset."""
    stage.send(2)
    (parked,) = stage.send()
    stage.park(parked, stage.skip(parked))
    stage.send(2)
    stage.federation.fold()
    stage.federation.merge()
    stage.federation.fold()
    return parked


def test_an_audit_agrees_whether_its_own_fold_raises_or_not(stage: Stage) -> None:
    parked = parked_and_merged(stage)
    (window,) = stage.federation.manifests[0].inputs
    assert window.accepted == 4 and stage.federation.manifests[0].counts == {"accepted": 4, "skipped": 1}
    mended = stage.audit()
    assert [str(one) for one in mended.findings] == [] and mended.updates == 4
    stage.raising(parked)
    defective = stage.audit()
    assert [str(one) for one in defective.findings] == []
    assert defective.digest == mended.digest


def test_lineage_folds_the_window_again_without_the_parked_record(stage: Stage) -> None:
    parked = parked_and_merged(stage)
    federation = stage.federation
    with LogReader(federation.settings, "test-lineage") as reader:
        objects = TaskStore(federation.objects.store, federation.task)
        view = TaskView(federation.settings, federation.task_file, objects, federation.genesis, reader)
        for raises in (False, True):
            if raises:
                stage.raising(parked)
            found = [lineage_of(view, 1, refold=refold) for refold in (False, True)]
            assert [one.problems for one in found] == [(), ()]
            offsets = [[one.offset for tile in each.tiles for one in tile.contributors] for each in found]
            assert offsets[0] == offsets[1] and len(offsets[0]) == 4 and parked not in offsets[0]


def test_before_the_window_is_published_an_audit_that_raises_obeys_the_skip(stage: Stage) -> None:
    stage.send(2)
    (parked,) = stage.send()
    stage.raising(parked)
    assert stage.complaints() == [
        ("FLV-5006", "content", f"FLV-5014: folding offset {parked} raised ZeroDivisionError: a defect")
    ]
    for elsewhere in ({"task": "fashion"}, {"region": "us"}, {"partition": 1}, {"by": merger_signer()}):
        stage.skip(parked, **elsewhere)
    stage.skip(parked + 1)
    assert len(stage.complaints()) == 1
    stage.skip(parked)
    report = stage.audit()
    assert report.identical and report.updates == 2 and report.records == 9


def test_two_parked_records_are_both_left_out(stage: Stage) -> None:
    offsets = stage.send(5)
    stage.raising(offsets[1], offsets[3])
    stage.skip(offsets[3])
    stage.skip(offsets[1])
    report = stage.audit()
    assert report.identical and report.updates == 3


def test_a_record_that_was_skipped_without_a_skip_is_a_finding(stage: Stage) -> None:
    stage.send(2)
    (parked,) = stage.send()
    skip = stage.skip(parked)
    stage.park(parked, skip)
    stage.send(2)
    stage.federation.fold()

    def by_a_worker(record: LogRecord) -> bytes | None:
        place = ("fl.digits.updates.eu", skip)
        return (
            skip_bytes(parked, by=stage.federation.signer(worker_signer()))
            if (record.topic, record.offset) == place
            else record.value
        )

    sources = stage.federation.spoiled(by_a_worker)
    report = audit_task(stage.federation.settings, stage.federation.task_file, jobs=1, sources=sources)
    found = [(one.error_id, one.field, one.got) for one in report.findings]
    assert found[0] == ("FLV-5013", "records that it counts as skipped", "1")
    # The rest is folded as it stands, so that the sums show as well what was left out.
    assert {"FLV-5004"} <= {error_id for error_id, _, _ in found[1:]}


def test_a_skip_of_a_folded_record_changes_nothing(stage: Stage) -> None:
    offsets = stage.send(4)
    stage.skip(offsets[1])
    stage.federation.fold()
    stage.federation.merge()
    report = stage.audit()
    assert report.identical and report.updates == 4


def test_among_more_skips_than_skipped_records_the_verdicts_decide(stage: Stage) -> None:
    """One was folded after all, by a worker in which the defect was mended."""
    first, second = stage.send(2)
    stage.skip(first)
    stage.park(second, stage.skip(second))
    stage.send(3)
    stage.federation.fold()
    stage.federation.merge()
    report = stage.audit()
    assert [str(one) for one in report.findings] == [] and report.updates == 4
    stage.raising(second)
    assert stage.audit().digest == report.digest


def test_what_workers_could_fold_is_not_left_out_where_only_the_audit_raises(stage: Stage) -> None:
    offsets = stage.send(4)
    stage.skip(offsets[1])
    stage.federation.fold()
    stage.federation.merge()
    stage.raising(offsets[1])
    found = stage.complaints()
    assert found[0][0] == "FLV-5006" and "FLV-5014" in found[0][2]


def test_the_first_skip_behind_a_record_counts(stage: Stage) -> None:
    federation = stage.federation
    early = stage.skip(1)  # stands before what it names: no Skip of it
    parked = stage.send()[0]
    first, again = stage.skip(parked, reason="one"), stage.skip(parked, reason="two")
    assert (early, parked, first, again) == (0, 1, 2, 3)
    with LogReader(federation.settings, "test-find") as reader:
        assert find_parking_skip(reader, federation.trust, TASK, SLOT, parked) == Parked(first, "one")
        assert find_parking_skip(reader, federation.trust, TASK, SLOT, first) is None
        assert find_skips(reader, federation.trust, TASK, SLOT, first=0, end=9) == {
            parked: Parked(first, "one")
        }
        assert find_skips(reader, federation.trust, TASK, SLOT, first=2, end=9) == {}


def test_sums_hold_what_was_accepted_and_nothing_of_the_parked_record(stage: Stage) -> None:
    parked_and_merged(stage)
    (window,) = stage.federation.manifests[0].inputs
    again = Site(state_of(RULES, layout=stage.federation.layout), stage.federation.trust)
    again.state.models[0] = stage.federation.models[0]
    with LogReader(stage.federation.settings, "test-sums") as reader:
        for record in reader.read("fl.digits.updates.eu", 0, 0, window.next_offset):
            if record.offset != 2:
                again.append(record.value)
    expected = again.closed[0].sums
    assert expected is not None
    assert np.array_equal(stage.federation.objects.sums(window.sum_sha256, stage.federation.layout), expected)
