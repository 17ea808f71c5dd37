"""Invariant 8 in the audit: which verdicts have to stand, what else may, and what nobody can make of an honest task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from aggregation.fold.events import Parked, Verdict
from aggregation.fold.rules import CANONICAL_RULES, FIRST_RULES, RecordRules
from aggregation.reasons import Reason, because, said
from backends.memory.log import MemoryLog, MemoryReader
from fluvial.proof.audit import AuditReport, audit_task, strays
from fluvial.proof.audit import verdicts as comparing
from fluvial.proof.audit.sources import Sources
from schemas import avro as codec
from schemas.envelope import open_envelope
from schemas.topics import topics_of, verdicts_topic
from schemas.verdicts import decode_verdict
from tests import factories
from tests.factories import verdict_bytes
from tests.small_federation import SmallFederation

TOPIC = verdicts_topic(factories.TASK, "eu")

Rewrite = Callable[[list[bytes]], list[bytes]]


@pytest.fixture(scope="module")
def healthy() -> SmallFederation:
    federation = SmallFederation(partitions={"eu": 1})
    federation.append("eu", 0, b"garbage")
    federation.rounds(3)
    federation.fold()
    return federation


def rewritten(federation: SmallFederation, rewrite: Rewrite, *, begins_at: int = 0) -> Callable[[], Sources]:
    """The same task with another verdicts topic, of which the first ``begins_at`` records are deleted."""
    topics = topics_of(federation.task, federation.partitions)
    log = MemoryLog({topic.name: topic.partitions for topic in topics}, federation.clock)
    for topic in topics:
        records = federation.records(topic.name, 0)
        values = [record.value or b"" for record in records]
        for value in rewrite(values) if topic.name == TOPIC else values:
            log.append(topic.name, 0, None, value, ())
    return lambda: Sources(lambda _purpose: Trimmed(log, begins_at), federation.objects.store)


class Trimmed(MemoryReader):
    """A log of which retention has taken the first verdicts."""

    def __init__(self, log: MemoryLog, begins_at: int) -> None:
        super().__init__(log)
        self.begins_at = begins_at

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        low, high = super().bounds(topic, partition)
        return (self.begins_at, high) if topic == TOPIC else (low, high)


def audit(federation: SmallFederation, rewrite: Rewrite = list, **options: Any) -> AuditReport:
    begins_at = options.pop("begins_at", 0)
    sources = rewritten(federation, rewrite, begins_at=begins_at)
    return audit_task(federation.settings, federation.task_file, jobs=1, sources=sources, **options)


def found(report: AuditReport) -> list[tuple[str, str, str, str]]:
    return [(one.error_id, one.field, one.expected, one.got) for one in report.findings]


def without(*positions: int) -> Rewrite:
    return lambda values: [value for at, value in enumerate(values) if at not in positions]


def changed(at: int, rules: RecordRules = CANONICAL_RULES, **fields: Any) -> Rewrite:
    def rewrite(values: list[bytes]) -> list[bytes]:
        values[at] = verdict_bytes(replace(decode_verdict(values[at]), **fields), rules)
        return values

    return rewrite


def with_planted(*planted: bytes, before: bool = False) -> Rewrite:
    return lambda values: [*planted, *values] if before else [*values, *planted]


def test_every_folded_offset_has_the_verdict_that_the_log_gives(healthy: SmallFederation) -> None:
    report = audit(healthy)
    (one,) = report.partitions
    assert [str(finding) for finding in report.findings] == []
    published = one.aggregates[-1].next_offset
    assert (one.verdicts.compared, one.verdicts.strays.kinds, one.verdicts.because) == (published, {}, "")
    assert one.verdicts.records == len(healthy.records(TOPIC, 0)) > 12


def test_an_offset_without_a_verdict_is_named(healthy: SmallFederation) -> None:
    report = audit(healthy, without(4))
    assert found(report) == [
        ("FLV-5021", "offset 4", "judged, as the signed window that covers it says", "no verdict")
    ]
    assert report.findings.shown[0].where == "fl.digits.verdicts.eu[0]"


def test_offsets_without_a_verdict_are_named_by_their_runs(healthy: SmallFederation) -> None:
    assert [one.field for one in audit(healthy, without(2, 3, 4, 8)).findings] == [
        "offsets 2 to 4",
        "offset 8",
    ]
    everything = audit(healthy, lambda _values: [])
    assert [one.error_id for one in everything.findings] == ["FLV-5021"]


def test_a_verdict_that_the_log_does_not_give_is_named_by_its_outcome(healthy: SmallFederation) -> None:
    report = audit(healthy, changed(3, outcome="duplicate"))
    assert found(report) == [("FLV-5022", "outcome", "accepted", "duplicate")]
    assert (report.findings.shown[0].what, report.findings.shown[0].where) == (
        "verdict of eu[0]@3",
        "fl.digits.verdicts.eu[0]@3",
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"weight": 1},
        {"norm": 0.5},
        {"device_id": "d-x"},
        {"update_id": "x"},
        {"staleness": 7},
        {"clip": 0.25},
    ],
    ids=str,
)
def test_one_that_differs_in_any_field_is_named(healthy: SmallFederation, fields: dict[str, Any]) -> None:
    assert [(one.error_id, one.field) for one in audit(healthy, changed(3, **fields)).findings] == [
        ("FLV-5022", "content")
    ]


def test_an_outcome_that_there_is_not_is_not_repeated(healthy: SmallFederation) -> None:
    report = audit(healthy, changed(3, outcome="\x1b]0;owned\x07"))
    assert found(report) == [("FLV-5022", "outcome", "accepted", "an outcome that there is not")]


def test_the_words_of_a_first_format_verdict_are_not_compared() -> None:
    """An older release, or another Python, may have put a library's text there."""
    federation = SmallFederation(partitions={"eu": 1}, document_format="fluvial/genesis/v3")
    federation.append("eu", 0, b"garbage")
    federation.rounds(1)
    federation.fold()
    written = changed(0, FIRST_RULES, because=said("IndexError: of another library"))
    assert audit(federation, written).identical
    assert not audit(federation, changed(0, FIRST_RULES, outcome="revoked")).identical


def test_a_reason_is_compared_to_the_byte(healthy: SmallFederation) -> None:
    report = audit(healthy, changed(0, because=because(Reason.NO_VALUE)))
    assert found(report) == [("FLV-5022", "content", found(report)[0][2], found(report)[0][3])]


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda values: values + values,
        lambda values: [value for value in values for _ in range(3)],
        lambda values: values[::-1],
        lambda values: values[5:] + values[:5],
    ],
    ids=["all again", "each three times", "backwards", "the first ones late"],
)
def test_copies_and_their_order_are_harmless(healthy: SmallFederation, rewrite: Rewrite) -> None:
    report = audit(healthy, rewrite)
    assert report.identical and report.strays == {}


def planted(healthy: SmallFederation) -> dict[str, tuple[bytes, str]]:
    end = len(healthy.records("fl.digits.updates.eu", 0))
    third = decode_verdict(healthy.records(TOPIC, 0)[3].value or b"")
    strange = codec.encode("Revoke", {"task": "t", "device_id": "d", "certificate_serial": "", "reason": ""})
    return {
        "nothing": (b"", strays.NOT_A_VERDICT),
        "junk": (b"\xc3\x01 not ours", strays.NOT_A_VERDICT),
        "another kind": (strange, strays.NOT_A_VERDICT),
        "too long": (verdict_bytes(replace(third, update_id="x" * 5000)), strays.NOT_A_VERDICT),
        "negative": (verdict_bytes(Verdict(-4, "accepted")), strays.NOT_A_VERDICT),
        "at the end": (verdict_bytes(Verdict(end, "undecodable")), strays.BEYOND),
        "far beyond it": (verdict_bytes(Verdict(2**62, "accepted")), strays.BEYOND),
        "another outcome": (verdict_bytes(replace(third, outcome="revoked")), strays.ANOTHER),
        "another weight": (verdict_bytes(replace(third, weight=1)), strays.ANOTHER),
    }


@pytest.mark.parametrize("before", [False, True], ids=["behind", "in front"])
def test_what_anybody_may_write_is_counted_and_named_and_no_finding(
    healthy: SmallFederation, *, before: bool
) -> None:
    for name, (value, kind) in planted(healthy).items():
        report = audit(healthy, with_planted(value, value, before=before))
        assert report.identical, (name, list(map(str, report.findings)))
        assert report.strays == {kind: 2}, name
        assert (
            len(report.partitions[0].verdicts.strays.named)
            == {True: 1, False: 2}[before and kind == strays.ANOTHER]
        ), name


def test_all_of_it_at_once_changes_neither_digest_nor_document(healthy: SmallFederation) -> None:
    alone = audit(healthy)
    flooded = audit(healthy, with_planted(*[value for value, _ in planted(healthy).values()] * 30))
    timing = {"seconds"}
    assert {k: v for k, v in flooded.document().items() if k not in timing} == {
        k: v for k, v in alone.document().items() if k not in timing
    }
    said = flooded.json_document()["verdicts"]
    assert sum(said["strays"].values()) == 9 * 30 and len(said["partitions"][0]["first_strays"]) == 5


def test_what_is_planted_does_not_hide_what_is_missing(healthy: SmallFederation) -> None:
    """The right verdict cannot be taken away by a stranger: where it is lacking, no other stands for it."""

    def rewrite(values: list[bytes]) -> list[bytes]:
        third = decode_verdict(values[3])
        return [*values[:3], *values[4:], verdict_bytes(replace(third, outcome="revoked"))]

    report = audit(healthy, rewrite)
    assert found(report) == [("FLV-5022", "outcome", "accepted", "revoked")] and report.strays == {}


def test_more_others_than_are_remembered_are_all_found(
    healthy: SmallFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "UNSETTLED_MAX", 2)

    def rewrite(values: list[bytes]) -> list[bytes]:
        return [verdict_bytes(replace(decode_verdict(value), outcome="revoked")) for value in values]

    report = audit(healthy, rewrite)
    assert report.findings.total == report.partitions[0].verdicts.compared
    assert {one.error_id for one in report.findings} == {"FLV-5022"}


def test_marks_that_do_not_fit_into_memory_lie_in_the_folder(
    healthy: SmallFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "MARKS_IN_MEMORY_BYTES_MAX", 20)
    assert audit(healthy).identical
    assert [one.error_id for one in audit(healthy, without(4)).findings] == ["FLV-5021"]


def test_a_worker_that_signs_for_offsets_that_the_log_does_not_have_is_named() -> None:
    federation = SmallFederation(partitions={"eu": 1})
    federation.rounds(2)
    federation.fold()
    end = len(federation.records("fl.digits.updates.eu", 0))
    published = federation.records("fl.digits.aggregates.eu", 0)[-1]
    record = open_envelope(published.value or b"").record | {"sequence": 9, "next_offset": end + 6}
    invented = [verdict_bytes(Verdict(end + n, "undecodable")) for n in range(5)]
    assert audit(federation, with_planted(*invented)).identical
    federation.publish_payload("eu", 0, codec.encode("RegionalAggregate", record))
    report = audit(federation, with_planted(*invented, verdict_bytes(Verdict(end + 6, "accepted"))))
    assert [one.error_id for one in report.findings] == ["FLV-5004", "FLV-5020"]
    _, beyond = report.findings.shown
    assert beyond.expected == f"below {end}, where the log ends"
    assert beyond.got == f"{end} to {end + 4} in 5 records, and a signed window that covers them"
    assert report.strays == {strays.BEYOND: 1}


def test_what_is_folded_and_not_yet_published_need_not_be_judged() -> None:
    federation = SmallFederation(partitions={"eu": 1})
    federation.rounds(1)
    federation.fold()
    federation.send(3)
    report = audit(federation)
    assert report.identical and report.partitions[0].next_offset > report.verdicts_compared > 0
    # Its worker has judged the open window by now, and nothing is published: a verdict may be another's, or lacking.
    federation.fold()
    at = len(federation.records(TOPIC, 0)) - 1
    assert audit(federation, without(at)).identical
    assert audit(federation, changed(at, outcome="duplicate")).strays == {strays.ANOTHER: 1}


def test_an_audit_of_a_part_compares_that_part(healthy: SmallFederation) -> None:
    whole, part = audit(healthy), audit(healthy, first=3)
    assert part.identical and 0 < part.verdicts_compared < whole.verdicts_compared
    assert audit(healthy, last=1).verdicts_compared < whole.verdicts_compared
    # One that is missing before the part moves those of the part towards the front.
    assert audit(healthy, without(1), first=3).identical
    assert [one.error_id for one in audit(healthy, without(1)).findings] == ["FLV-5021"]


def test_where_there_is_no_such_topic_that_is_said_and_nothing_is_missing(healthy: SmallFederation) -> None:
    """As of a recorded log that was kept without its verdicts, which derive from the rest."""
    topics = [topic for topic in topics_of(healthy.task, healthy.partitions) if topic.name != TOPIC]
    log = MemoryLog({topic.name: topic.partitions for topic in topics}, healthy.clock)
    for topic in topics:
        for record in healthy.records(topic.name, 0):
            log.append(topic.name, 0, None, record.value or b"", ())
    sources = lambda: Sources(lambda _purpose: MemoryReader(log), healthy.objects.store)  # noqa: E731
    report = audit_task(healthy.settings, healthy.task_file, jobs=1, sources=sources)
    assert report.identical and report.verdicts_compared == 0
    assert (
        report.json_document()["verdicts"]["partitions"][0]["not_all_because"] == f"there is no topic {TOPIC}"
    )


def test_where_the_first_verdicts_were_deleted_none_is_called_missing(healthy: SmallFederation) -> None:
    report = audit(healthy, begins_at=6)
    (one,) = report.partitions
    assert report.identical and 0 < one.verdicts.compared < audit(healthy).verdicts_compared
    assert one.verdicts.because == f"{TOPIC}[0] begins at record 6"


def test_an_audit_of_a_part_needs_no_verdicts_from_before_it(healthy: SmallFederation) -> None:
    begins_at = audit(healthy, first=3).partitions[0].first_offset
    report = audit(healthy, first=3, begins_at=begins_at)
    assert report.identical and report.partitions[0].verdicts.because == ""


def skip_of(federation: SmallFederation, offset: int) -> bytes:
    record = {
        "task": federation.task,
        "region": "eu",
        "partition": 0,
        "offset": offset,
        "reason": "it raises",
    }
    return federation.signer(factories.operator_signer()).sign("Skip", record)


@pytest.fixture
def parking() -> tuple[SmallFederation, int, int]:
    """Two records that operators have named in one window, of which only the second was skipped."""
    federation = SmallFederation(partitions={"eu": 1}, policy=factories.policy(window={"updates_max": 4}))
    names = factories.devices(5, partition=0, partitions=1)
    first, second = [
        federation.append("eu", 0, federation.update("eu", name, seed=n)) for n, name in enumerate(names[:2])
    ]
    federation.append("eu", 0, skip_of(federation, first))
    skip = federation.append("eu", 0, skip_of(federation, second))
    federation.parked[("eu", 0), second] = Parked(skip, "it raises")
    for n, name in enumerate(names[2:]):
        federation.append("eu", 0, federation.update("eu", name, seed=10 + n))
    federation.fold()
    federation.merge()
    return federation, first, second


def test_which_record_was_parked_is_not_for_strangers_to_say(
    parking: tuple[SmallFederation, int, int],
) -> None:
    federation, first, _ = parking
    assert audit(federation).identical
    junk = (b"", b"\xc3\x01 not ours", verdict_bytes(Verdict(2**40, "skipped")))
    assert audit(federation, with_planted(*junk, before=True)).identical
    lie = verdict_bytes(Verdict(first, "skipped"))
    for before in (True, False):
        report = audit(federation, with_planted(*junk, lie, before=before))
        assert report.identical and report.strays[strays.ANOTHER] == 1
