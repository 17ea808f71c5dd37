"""Of windows that contradict each other the one counts that the log gives; who signed another is named and barred."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from aggregation.errors import IntegrityProblem
from aggregation.fold.bases import Base
from aggregation.merges import BUCKETS_MAX, Bucket
from aggregation.server.bounds import sum_bound
from aggregation.server.lateness import ON_TIME, MergedWindows
from backends.log import LogRecord
from backends.observer import Observer
from fluvial.proof.audit import audit_task
from schemas import avro
from schemas.checkpoints import encode_sums
from schemas.envelope import open_envelope
from schemas.objects import object_key
from schemas.topics import aggregates_topic
from stream_apps.merger.bounding import Bounding
from stream_apps.merger.merger import Merger
from stream_apps.merger.policies import Policies
from stream_apps.merger.windows import Windows
from stream_apps.process_context import ProcessContext
from tests import factories
from tests.small_federation import SmallFederation
from tests.unit.fluvial.proof.checked_copy import copy_of

if TYPE_CHECKING:
    from aggregation.server.aggregates import Aggregate, Slot

SLOT = ("eu", 0)
EVIL = factories.sha("evil")
POLICY = factories.policy(
    window={"updates_max": 4}, buffer={"updates": 4, "seconds_max": 60.0}, anomaly={"enabled": False}
)


class Told(Observer):
    def __init__(self) -> None:
        self.disproved: list[tuple[int, str]] = []
        self.merged: list[int] = []

    def window_disproved(self, slot: Slot, lie: Aggregate, serial: str) -> None:
        self.disproved.append((lie.sequence, serial))

    def lie_merged(self, slot: Slot, lie: Aggregate) -> None:
        self.merged.append(lie.sequence)


class Site:
    """A partition whose honest worker has published three windows, and a merger's windows that have seen none."""

    def __init__(self, honest: str = "w-1") -> None:
        self.federation = SmallFederation(partitions={"eu": 1}, policy=POLICY)
        for number, device in enumerate(factories.devices(12, partition=0, partitions=1)):
            self.federation.append("eu", 0, self.federation.update("eu", device, seed=number))
        self.federation.fold()
        topic = aggregates_topic(self.federation.task, "eu")
        self.honest = [record.value or b"" for record in self.federation.records(topic, 0)]
        assert len(self.honest) == 3
        self.told = Told()
        self.context = ProcessContext.of(
            genesis=self.federation.genesis,
            store=self.federation.objects,
            writer=self.federation.writer,
            key_pair=factories.merger_signer(),
            name="m-1",
            open_reader=self.federation.open_reader,
            clock=self.federation.clock,
            observer=self.told,
        )
        self.windows = Windows(self.context, {SLOT: 0})
        self.offset = 0

    def lie(self, like: int, /, by: str = "thief", **changed: Any) -> bytes:
        """The honest window of that sequence with other fields, signed by a worker's key."""
        record = open_envelope(self.honest[like]).record | ({"contributors_sha256": EVIL} | changed)
        payload = avro.encode("RegionalAggregate", record)
        return self.federation.signer(factories.worker_signer(by, "eu")).sign_payload(
            "RegionalAggregate", payload
        )

    def offer(self, *values: bytes) -> None:
        for value in values:
            topic = aggregates_topic(self.federation.task, "eu")
            record = LogRecord(topic, 0, self.offset, factories.NOW_MS, None, value)
            self.offset += 1
            self.windows.offer(record, "eu")

    def waiting(self) -> list[str]:
        return [one.sha256 for one in self.windows.pending.waiting()]

    def sha256(self, value: bytes) -> str:
        from schemas.objects import sha256_hex

        return sha256_hex(open_envelope(value).payload)

    def expect_honest(self, count: int) -> None:
        assert self.waiting() == [self.sha256(value) for value in self.honest[:count]]


@pytest.fixture
def site() -> Site:
    return Site()


def serial_of(worker: str) -> str:
    from cryptography import x509

    der = open_envelope(factories.worker_signer(worker, "eu").sign("Tick", TICK)).certificate
    return f"{x509.load_der_x509_certificate(der).serial_number:x}"


TICK = {"task": "t", "region": "eu", "partition": 0, "window_first_offset": 0}
ORDERS = {"the lie first": (0, 1), "the lie second": (1, 0)}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_of_two_windows_of_one_sequence_the_one_counts_that_the_log_gives(
    site: Site, order: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    values = [site.lie(0), site.honest[0]]
    site.offer(*(values[at] for at in order), *site.honest[1:])
    site.expect_honest(3)
    assert site.windows.judging.barred == {serial_of("thief"): "thief"}
    assert site.told.disproved == [(0, serial_of("thief"))]
    assert f"(certificate {serial_of('thief')}) is a lie" in caplog.text


def test_a_lie_that_others_were_built_on_falls_with_them(site: Site) -> None:
    first = site.lie(0)
    second = site.lie(1, previous_sha256=site.sha256(first))
    site.offer(first, second)
    assert len(site.waiting()) == 2, "a lie that stands alone is taken on its worker's word"
    site.offer(*site.honest)
    site.expect_honest(3)
    assert not site.told.merged


def test_a_lie_after_an_honest_window_falls_when_the_honest_one_comes(site: Site) -> None:
    site.offer(site.honest[0], site.lie(1), site.honest[1], site.honest[2])
    site.expect_honest(3)


def test_an_honest_worker_whose_key_was_stolen_goes_on_being_heard(site: Site) -> None:
    site.offer(site.lie(0, by="w-1"), *site.honest)
    site.expect_honest(3)
    assert site.windows.judging.barred == {serial_of("w-1"): "w-1"}


def test_the_word_of_a_barred_certificate_is_worth_nothing(site: Site) -> None:
    site.offer(site.lie(0), site.honest[0], site.lie(1))
    site.expect_honest(1)
    site.offer(site.honest[1], site.honest[2])
    site.expect_honest(3)
    assert [sequence for sequence, _ in site.told.disproved] == [0, 1]


def test_two_lies_and_no_honest_window_yet_are_two_lies(site: Site) -> None:
    site.offer(site.lie(0), site.lie(0, by="other-thief", contributors_sha256=factories.sha("other")))
    assert site.waiting() == []
    site.offer(*site.honest)
    site.expect_honest(3)


def test_a_state_that_is_none_is_nothing_to_fold_from(site: Site) -> None:
    """The lie before is taken alone; the log is then folded from its beginning."""
    site.offer(site.lie(0, state_sha256=EVIL), site.lie(1, previous_sha256=EVIL), *site.honest)
    site.expect_honest(3)


def test_a_state_of_another_content_convinces_nobody(site: Site) -> None:
    elsewhere = Site()
    record = open_envelope(site.honest[0]).record
    planted = site.federation.objects.put_object(b"another state")
    first = site.lie(0, state_sha256=planted)
    site.offer(first, site.lie(1, by="w-1", previous_sha256=site.sha256(first)), *elsewhere.honest)
    assert record["sequence"] == 0
    site.expect_honest(3)


def test_a_lie_in_a_version_is_named_and_the_honest_chain_goes_on(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.offer(site.lie(0))
    site.windows.forget_merged({SLOT: 1})
    site.offer(*site.honest)
    assert site.waiting() == [site.sha256(value) for value in site.honest[1:]]
    assert site.told.merged == [0]
    assert "FLV-3307" in caplog.text


def test_several_lies_in_versions_are_named_each_and_the_honest_chain_goes_on(site: Site) -> None:
    first = site.lie(0)
    second = site.lie(1, previous_sha256=site.sha256(first))
    site.offer(first, second)
    site.windows.forget_merged({SLOT: 2})
    site.offer(*site.honest)
    assert site.waiting() == [site.sha256(site.honest[2])]
    assert site.told.merged == [0, 1]


def bases(*said: tuple[int, int, int]) -> dict[str, Any]:
    """What a window of v6 says, with one bucket."""
    entries = [{"base": base, "accepted": count, "weight": weight} for base, count, weight in said]
    return buckets((4, 4 << 16)) | {"bases": entries}


def buckets(*said: tuple[int, int]) -> dict[str, Any]:
    """What a RegionalAggregate v3 says beside v1's fields."""
    entries = [{"accepted": accepted, "weight": weight} for accepted, weight in said]
    return {"norms": [], "cosines": [], "shares": [], "buckets": entries}


IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "beyond the log's end": {"next_offset": 13},
    "far beyond the log's end": {"next_offset": 2**62},
    "no records": {"next_offset": 0},
    "before the log": {"first_offset": -1},
    "made-up updates": {"accepted": 5, "counts": {"accepted": 5}},
    "more updates than it counts": {"accepted": 4, "counts": {"accepted": 3}},
    "fewer than none": {"counts": {"accepted": 4, "duplicate": -1}},
    "outcomes that there are not": {"counts": {"accepted": 4, "OUTCOME\x1b[31m": 0}},
    "heavier than its updates": {"weight_total": (4 << 16) + 1},
    "lighter than its updates": {"weight_total": 3},
    "bytes that no update has": {"update_bytes": 2**62},
    "staleness that there is not": {"staleness_max": 2**40},
    "numbers that no document can say": {"version": 2**60, "staleness_max": 2**60, "staleness_total": 2**60},
    "a version that no document can say": {"version": 2**53},
    "sums under no hash": {"sum_sha256": "../../versions/0/manifest.json"},
    "no sums": {"sum_sha256": ""},
    "a state under no hash": {"state_sha256": ""},
    "buckets of fewer updates": buckets((3, 3 << 16)),
    "buckets of less weight": buckets((2, 2 << 16), (2, 65536)),
    "a bucket that takes from another": buckets((5, 5 << 16), (-1, -65536)),
    "a bucket that is heavier than its updates": buckets((1, 3 << 16), (3, 65536)),
    "bases of fewer updates": bases((0, 3, 4 << 16)),
    "bases of less weight": bases((0, 4, 65536)),
    "a base that takes from another": bases((-1, 5, 5 << 16), (0, -1, -65536)),
    "a base that is heavier than its updates": bases((0, 4, (4 << 16) + 1)),
    "bases that do not ascend": bases((0, 2, 2 << 16), (0, 2, 2 << 16)),
    "a base that is to come": bases((0, 2, 2 << 16), (1, 2, 2 << 16)),
    "a base before the first": bases((-1, 2, 2 << 16), (0, 2, 2 << 16)),
    "more buckets than there can be": buckets((4, 4 << 16), *[(0, 0)] * 32),
}


@pytest.mark.parametrize("changed", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_what_no_log_can_give_is_a_lie_at_once(site: Site, changed: dict[str, Any]) -> None:
    site.offer(site.lie(0, **changed))
    assert site.waiting() == []
    assert site.told.disproved == [(0, serial_of("thief"))]
    site.offer(*site.honest)
    site.expect_honest(3)


@pytest.mark.parametrize("sequence", [3, 900, 5000, 2**40])
def test_windows_far_ahead_stop_nobody(site: Site, sequence: int) -> None:
    site.offer(site.lie(0, sequence=sequence), *site.honest)
    site.expect_honest(3)


# -- what cannot be merged


def merger_with(site: Site, *values: bytes) -> Merger:
    merger = Merger(site.context)
    merger._windows = site.windows
    site.offer(*values)
    return merger


def test_sums_that_an_honest_window_names_and_the_store_has_lost_are_folded_again(site: Site) -> None:
    merger = merger_with(site, site.honest[0])
    key = object_key(site.federation.task, open_envelope(site.honest[0]).record["sum_sha256"])
    site.federation.objects.store.put(key, b"damaged")
    assert not merger.merge_if_due()
    assert merger.merge_if_due()
    assert merger.head.number == 1
    assert not site.told.disproved


SUMS = {
    "that are not there": lambda _site: EVIL,
    "of another shape": lambda site: site.federation.objects.put_object(b"none"),
    "in more buckets than its policy has": lambda site: site.federation.objects.put_object(
        encode_sums(np.zeros(site.federation.layout.sum_elements_of(2), np.int64))
    ),
    "out of all bounds": lambda site: site.federation.objects.put_object(
        encode_sums(np.full(site.federation.layout.sum_elements, np.iinfo(np.int64).min, np.int64))
    ),
}


@pytest.mark.parametrize("sums", SUMS.values(), ids=SUMS)
def test_a_lie_whose_sums_cannot_be_added_stops_nobody(site: Site, sums: Any) -> None:
    merger = merger_with(site, site.lie(0, sum_sha256=sums(site)))
    assert not merger.merge_if_due()
    assert site.waiting() == []
    site.offer(*site.honest)
    assert merger.merge_if_due()
    assert merger.head.number == 1
    (window,) = site.federation.objects.manifest(1).inputs
    assert window.sha256 == site.sha256(site.honest[0])


def test_a_window_that_comes_again_is_a_copy_whoever_signed_it(site: Site) -> None:
    record = open_envelope(site.honest[0])
    copy = site.federation.signer(factories.worker_signer("w-2", "eu")).sign_payload(
        "RegionalAggregate", record.payload
    )
    site.offer(site.honest[0], copy, *site.honest)
    site.expect_honest(3)
    assert not site.told.disproved
    assert replace(site.windows.pending.waiting()[0]).sequence == 0


def sums_of(site: Site, factor: float, **changed: Any) -> dict[str, Any]:
    """A window's fields, and sums in the store that reach so far beyond what its updates can come to."""
    record = open_envelope(site.honest[0]).record | changed
    bound = sum_bound(POLICY, accepted=record["accepted"], weight_total=record["weight_total"])
    sums = np.full(site.federation.layout.sum_elements, -int(bound * factor) - 1, dtype=np.int64)
    return changed | {"sum_sha256": site.federation.objects.put_object(encode_sums(sums))}


def test_sums_beyond_what_updates_of_their_weight_come_to_are_folded_again(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """A lie that stands alone is taken, and looked at before it moves a model further than updates could."""
    federation = site.federation
    topic = aggregates_topic(federation.task, "eu")
    merger = Merger(site.context)
    merger.resume()
    lie = LogRecord(topic, 0, 0, factories.NOW_MS, None, site.lie(0, **sums_of(site, 1.0)))
    merger.offer(lie, "eu")
    assert len(merger.pending.waiting()) == 1
    federation.clock.sleep(POLICY.buffer.seconds_max)
    assert not merger.merge_if_due()
    assert merger.pending.waiting() == ()
    assert "updates of its weight reach" in caplog.text
    assert merger._windows.judging.barred == {serial_of("thief"): "thief"}


def test_buckets_that_its_policy_has_not_are_folded_again(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    merger = Merger(site.context)
    merger.resume()
    topic = aggregates_topic(site.federation.task, "eu")
    value = site.lie(0, **buckets((4, 4 << 16)))
    merger.offer(LogRecord(topic, 0, 0, factories.NOW_MS, None, value), "eu")
    assert len(merger.pending.waiting()) == 1
    site.federation.clock.sleep(POLICY.buffer.seconds_max)
    assert not merger.merge_if_due()
    assert merger.pending.waiting() == ()
    assert "it says 1 buckets of its sums, under its policy it says 0" in caplog.text


@pytest.mark.parametrize("form", ["fluvial/policy/v5", "fluvial/policy/v6"])
def test_a_window_that_says_other_bases_than_its_policy_has_it_say_is_doubtful(form: str) -> None:
    """A thief that leaves them out would leave out what a version mixes in."""
    site = Site()
    policy = factories.policy(format=form)
    policies = Policies(site.context)
    assert policies.of(site.federation.objects.put_object(policy.canonical())) == policy
    bounding = Bounding(site.context, policies, lambda _one: False)
    made = factories.aggregate("eu", 0, 0)
    whole = replace(
        made,
        accepted=4,
        weight_total=4 << 16,
        policy_sha256=policy.sha256,
        buckets=(Bucket(4, 4 << 16),),
        bases=(),
    )
    says = replace(whole, bases=(Base(0, 4, 4 << 16),))
    right, wrong = (says, whole) if policy.says_bases else (whole, says)
    assert bounding.said_problem(right) is None
    assert "versions that its 4 updates answered" in str(bounding.said_problem(wrong))


@pytest.mark.parametrize(
    ("base", "weight", "seconds", "doubted"),
    [
        (50, 65536, 0.0, False),
        (49, 65536, 0.0, True),
        (49, "its", 0.0, False),
        (46, "its", 0.0, False),
        (45, "its", 0.0, True),
        (45, "its", 600.0, False),
        (0, 65536, 600.0, True),
    ],
)
def test_updates_of_a_base_that_weigh_more_than_its_age_leaves_are_doubtful(
    base: int, weight: int | str, seconds: float, *, doubted: bool
) -> None:
    """A thief would mix in a model of long ago, with all the weight of its window."""
    site = Site()
    policy = factories.policy(
        format="fluvial/policy/v6",
        staleness={"versions_max": 4, "seconds_max": seconds},
        edges={"updates_max": 9},
    )
    policies = Policies(site.context)
    policies.of(site.federation.objects.put_object(policy.canonical()))
    each = policy.staleness.weights[min(50 - base, 4)] if weight == "its" else int(weight)
    said = replace(
        factories.aggregate("eu", 0, 0),
        version=50,
        accepted=4,
        counts={"accepted": 4},
        weight_total=4 * each,
        policy_sha256=policy.sha256,
        buckets=(Bucket(4, 4 * each),),
        bases=(Base(base, 4, 4 * each),),
    )
    bounding = Bounding(site.context, policies, lambda _one: False)
    assert ("staleness.weights of its policy" in str(bounding.said_problem(said))) == doubted
    assert Bounding(site.context, policies, lambda _one: True).said_problem(said) is None, (
        "it was folded here"
    )


@pytest.mark.parametrize("said", [0, 1, 2, 32])
def test_no_more_is_read_of_a_windows_sums_than_its_policy_gives(
    site: Site, monkeypatch: pytest.MonkeyPatch, said: int
) -> None:
    """A stolen key names sums of 32 buckets, each as large as the model, whatever it says that they are."""
    federation = site.federation
    planted = np.zeros(federation.layout.sum_elements_of(BUCKETS_MAX), np.int64)
    fields: dict[str, Any] = {"sum_sha256": federation.objects.put_object(encode_sums(planted))}
    if said:
        fields |= buckets((4, 4 << 16), *[(0, 0)] * (said - 1))
    store, got = federation.objects.store, list[int]()
    read = store.get

    def get(key: str, *, bytes_max: int | None = None) -> bytes:
        data = read(key, bytes_max=bytes_max)
        got.append(len(data))
        return data

    monkeypatch.setattr(store, "get", get)
    merger = merger_with(site, site.lie(0, **fields))
    assert not merger.merge_if_due()
    site.offer(*site.honest)
    assert merger.merge_if_due()
    assert 0 < max(got) < 8 * planted.size


@pytest.mark.parametrize("policy", [EVIL, ""], ids=["one that nobody knows", "a large one in the store"])
def test_sums_are_bounded_by_the_policy_of_the_task_whatever_a_window_names(site: Site, policy: str) -> None:
    large = factories.policy(updates={"norm_clip": 1000.0, "norm_max": 1000.0})
    named = policy or site.federation.objects.put_object(large.canonical())
    merger = Merger(site.context)
    merger.resume()
    topic = aggregates_topic(site.federation.task, "eu")
    value = site.lie(0, **sums_of(site, 1.0, policy_sha256=named))
    merger.offer(LogRecord(topic, 0, 0, factories.NOW_MS, None, value), "eu")
    site.federation.clock.sleep(POLICY.buffer.seconds_max)
    assert not merger.merge_if_due()
    assert merger.pending.waiting() == ()


def test_a_version_that_another_merger_made_of_such_sums_is_refused(site: Site) -> None:
    value = site.lie(0, **sums_of(site, 1.0))
    topic = aggregates_topic(site.federation.task, "eu")
    merger = Merger(site.context)
    merger.resume()
    merger.offer(LogRecord(topic, 0, 0, factories.NOW_MS, None, value), "eu")
    merged = MergedWindows.of(tuple(merger.pending.waiting()), ON_TIME)
    with pytest.raises(IntegrityProblem, match=r"FLV-3305[\s\S]*is a lie"):
        merger._adopting._holding._derive(merged, merger.head, merger._windows, "")


@pytest.mark.parametrize("factor", [1.0, 0.0])
def test_audit_and_checker_name_sums_that_reach_too_far(site: Site, factor: float) -> None:
    federation = site.federation
    value = site.lie(1, **sums_of(site, factor))
    federation.writer.append_now(aggregates_topic(federation.task, "eu"), value, partition=0)
    report = audit_task(federation.settings, federation.task_file, sources=federation.sources)
    fields = {one.field for one in report.findings}
    assert ("largest sum" in fields) is bool(factor) and not report.identical
    copy = copy_of(federation)
    entries = copy.logs[aggregates_topic(federation.task, "eu"), 0]
    offset, timestamp_ms, key, _ = entries[1]
    entries[1] = (offset, timestamp_ms, key, value)
    said = [one.message for one in copy.check(drained=False).violations]
    assert said and any("its sums reach" in one for one in said) is bool(factor)
