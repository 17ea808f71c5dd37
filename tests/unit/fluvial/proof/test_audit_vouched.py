"""What workers vouch for, in audit and checker: a finding where the log does not give it, and nobody else's word."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from aggregation.fold.events import Parked, Verdict
from backends.memory.log import MemoryLog, MemoryReader
from fluvial.proof.audit import AuditReport, audit_task
from fluvial.proof.audit.sources import Sources
from fluvial.proof.checker import CheckReport, check_logs
from schemas.certificates import Role
from schemas.topics import topics_of, verdicts_topic
from schemas.verdicts import decode_verdict
from schemas.vouching import HEADER, HeadPlace, Stretch, head_in, mark_of, sign_head
from tests import factories
from tests.factories import verdict_bytes
from tests.small_federation import SmallFederation
from tests.unit.fluvial.proof.test_audit_verdicts import skip_of

if TYPE_CHECKING:
    from backends.log import Headers
    from schemas.envelope import Signer

TOPIC = verdicts_topic(factories.TASK, "eu")
Record = tuple[bytes, "Headers"]
Rewrite = Callable[[list[Record]], list[Record]]


@pytest.fixture(scope="module")
def healthy() -> SmallFederation:
    federation = SmallFederation(partitions={"eu": 1})
    federation.append("eu", 0, b"garbage")
    federation.rounds(3)
    federation.fold()
    return federation


def rewritten(federation: SmallFederation, rewrite: Rewrite) -> MemoryLog:
    """The task's log with other records among the verdicts."""
    topics = topics_of(federation.task, federation.partitions)
    log = MemoryLog({topic.name: topic.partitions for topic in topics}, federation.clock)
    for topic in topics:
        records = [(record.value or b"", record.headers) for record in federation.records(topic.name, 0)]
        for value, headers in rewrite(records) if topic.name == TOPIC else records:
            log.append(topic.name, 0, None, value, headers)
    return log


def audit(federation: SmallFederation, rewrite: Rewrite = list) -> AuditReport:
    log = rewritten(federation, rewrite)
    sources = lambda: Sources(lambda _purpose: MemoryReader(log), federation.objects.store)  # noqa: E731
    return audit_task(federation.settings, federation.task_file, jobs=1, sources=sources)


def checked(
    federation: SmallFederation, rewrite: Rewrite = list, *, strangers: bool = True, drained: bool = True
) -> CheckReport:
    log, logs, heads = rewritten(federation, rewrite), {}, {}
    for topic in topics_of(federation.task, federation.partitions):
        reader = MemoryReader(log)
        records = list(reader.read(topic.name, 0, *reader.bounds(topic.name, 0)))
        logs[topic.name, 0] = [(one.offset, one.timestamp_ms, one.key, one.value) for one in records]
        heads[topic.name, 0] = [
            (one.timestamp_ms, value) for one in records for name, value in one.headers if name == HEADER
        ]
    store = federation.objects.store
    return check_logs(
        logs,
        {key: store.get(key) for key in store.list(f"{federation.task}/")},
        federation.task,
        federation.task_file.genesis_sha256,
        drained=drained,
        heads=heads,
        strangers=strangers,
        clock_skew_ms=None,
    )


def here(federation: SmallFederation) -> HeadPlace:
    return HeadPlace.of(federation.genesis.canonical(), ("eu", 0))


def head(federation: SmallFederation, stretch: Stretch, by: Signer | None = None) -> Headers:
    return ((HEADER, sign_head(stretch, by or factories.worker_signer("w-2"), here(federation))),)


def stretch_of(records: list[Record], first: int, after: int) -> Stretch:
    """What the verdicts of these offsets come to."""
    digest, values = hashlib.sha256(), {decode_verdict(value).offset: value for value, _ in records}
    for offset in range(first, after):
        rules = factories.trust().rules
        digest.update(mark_of(decode_verdict(values[offset]), values[offset], rules))
    return Stretch(first, after, digest.digest())


def end_of(federation: SmallFederation) -> int:
    return len(federation.records("fl.digits.updates.eu", 0))


def test_what_workers_vouch_for_is_what_the_log_gives(healthy: SmallFederation) -> None:
    report = audit(healthy)
    assert report.identical and report.strays_by_topic() == []
    assert report.verdicts_vouched == end_of(healthy), "the last portion is vouched for as every other"
    assert report.json_document()["verdicts"]["vouched"] == report.verdicts_vouched
    assert checked(healthy).violations == ()


def test_a_copy_of_a_head_says_what_it_said(healthy: SmallFederation) -> None:
    def rewrite(records: list[Record]) -> list[Record]:
        (headers,) = [headers for _, headers in records if headers][:1]
        return [*records, *[(b"junk", headers)] * 3]

    report = audit(healthy, rewrite)
    assert report.identical and report.strays == {"no_verdict": 3}
    assert checked(healthy, rewrite).violations == ()


def test_a_worker_that_vouches_for_other_verdicts_is_named(healthy: SmallFederation) -> None:
    def rewrite(records: list[Record]) -> list[Record]:
        right = stretch_of(records, 2, 6)
        wrong = replace(right, verdicts_sha256=bytes(32))
        return [*records, (records[5][0], head(healthy, right)), (records[5][0], head(healthy, wrong))]

    report = audit(healthy, rewrite)
    (found,) = report.findings
    assert (found.error_id, found.what) == ("FLV-5023", "verdicts of eu[0]@2 to 5")
    assert "by worker w-2 (certificate " in found.got
    (violation,) = checked(healthy, rewrite).violations
    assert violation.invariant == 8 and "vouches for other verdicts than the log gives" in violation.message


def test_a_worker_that_vouches_for_offsets_that_the_log_does_not_have_is_named(
    healthy: SmallFederation,
) -> None:
    end = end_of(healthy)

    def rewrite(records: list[Record]) -> list[Record]:
        heads = [head(healthy, Stretch(end - 1, end + more, bytes(32))) for more in (1, 4, 2)]
        return [*records, *((records[0][0], one) for one in heads)]

    report = audit(healthy, rewrite)
    (found,) = report.findings
    assert (found.error_id, found.expected) == ("FLV-5023", f"below {end}, where the log ends")
    assert found.got.startswith(f"up to {end + 3}, by worker w-2")
    assert {one.invariant for one in checked(healthy, rewrite).violations} == {8}


def strangers() -> dict[str, Callable[[SmallFederation], Headers]]:
    wrong = Stretch(2, 6, bytes(32))
    forged = {
        "another CA": factories.signer("eu", Role.WORKER, "w-2", secret="x"),
        "a device": factories.device_signer("d-1"),
        "another region": factories.worker_signer("w-2", "us"),
        "an expired certificate": factories.signer("eu", Role.WORKER, "w-2", not_after=factories.NOT_BEFORE),
    }
    made: dict[str, Callable[[SmallFederation], Headers]] = {
        name: lambda federation, by=by: head(federation, wrong, by)  # type: ignore[misc]
        for name, by in forged.items()
    }
    elsewhere = HeadPlace(bytes(32), ("eu", 0))
    signed = sign_head(wrong, factories.worker_signer("w-2"), elsewhere)
    return made | {
        "another genesis": lambda _: ((HEADER, signed),),
        "two of them": lambda federation: head(federation, wrong) * 2,
        "no head at all": lambda _: ((HEADER, b"\1junk"),),
        "a head cut short": lambda federation: ((HEADER, head(federation, wrong)[0][1][:-1]),),
    }


@pytest.mark.parametrize("name", strangers())
def test_nobody_elses_head_says_anything(healthy: SmallFederation, name: str) -> None:
    def rewrite(records: list[Record]) -> list[Record]:
        return [*records, (records[0][0], strangers()[name](healthy))]

    report = audit(healthy, rewrite)
    assert report.identical and report.strays == {"forged_head": 1}
    if name != "two of them":  # whoever reads headers for the checker passes it none
        assert checked(healthy, rewrite).violations == ()


def test_a_head_by_a_revoked_worker_says_nothing() -> None:
    federation = SmallFederation(partitions={"eu": 1})
    serial = federation.trust.identify(factories.worker_signer("w-2").certificate).serial
    fields = {"task": federation.task, "device_id": "", "certificate_serial": serial, "reason": "stolen"}
    federation.append("eu", 0, federation.signer(factories.operator_signer()).sign("Revoke", fields))
    federation.rounds(1)
    federation.fold()
    wrong = Stretch(0, 99, bytes(32))
    report = audit(federation, lambda records: [*records, (records[0][0], head(federation, wrong))])
    assert report.identical and report.strays == {"revoked_head": 1}


def test_where_workers_vouch_strangers_beside_them_turn_neither_audit_nor_checker_red(
    healthy: SmallFederation,
) -> None:
    end = end_of(healthy)

    def rewrite(records: list[Record]) -> list[Record]:
        third = decode_verdict(records[3][0])
        planted = [
            verdict_bytes(replace(third, outcome="revoked")),
            verdict_bytes(replace(third, offset=4)),
            verdict_bytes(Verdict(end, "accepted")),
            verdict_bytes(Verdict(2**60, "skipped")),
            b"junk",
        ]
        return [*((value, ()) for value in planted), *records, *((value, ()) for value in planted)]

    report = audit(healthy, rewrite)
    assert report.identical and sum(report.strays.values()) == 10
    assert checked(healthy, rewrite).violations == ()
    assert checked(healthy, rewrite).ignored > checked(healthy).ignored
    # Where nobody but workers can have written them, or no worker vouches for any, they are a worker's fault.
    assert {1, 8} <= {one.invariant for one in checked(healthy, rewrite, strangers=False).violations}
    old = checked(healthy, lambda records: [(value, ()) for value, _ in rewrite(records)])
    assert {1, 8} <= {one.invariant for one in old.violations}


def test_a_verdict_that_is_wrong_or_missing_is_found_though_workers_vouch(healthy: SmallFederation) -> None:
    def wrong(records: list[Record]) -> list[Record]:
        value, headers = records[3]
        return [
            *records[:3],
            (verdict_bytes(replace(decode_verdict(value), weight=1)), headers),
            *records[4:],
        ]

    def missing(records: list[Record]) -> list[Record]:
        gone = decode_verdict(records[3][0]).offset
        return [one for one in records if decode_verdict(one[0]).offset != gone]

    assert [one.error_id for one in audit(healthy, wrong).findings] == ["FLV-5022"]
    assert [one.error_id for one in audit(healthy, missing).findings] == ["FLV-5021"]
    assert 8 in {one.invariant for one in checked(healthy, wrong).violations}
    assert 8 in {one.invariant for one in checked(healthy, missing, drained=False).violations}


@pytest.fixture
def parking() -> tuple[SmallFederation, int]:
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
    return federation, first


def test_whoever_plants_verdicts_for_both_cannot_say_which_record_was_skipped(
    parking: tuple[SmallFederation, int],
) -> None:
    """With the verdicts of both planted as skipped and as not, an audit took the wrong one (FLV-5004)."""
    federation, first = parking
    claims = [head_in(record.headers) for record in federation.records(TOPIC, 0)]
    assert [one.stretch.skipped for one in claims if one and one.stretch.skipped] == [(first + 1,)]
    lies = [verdict_bytes(Verdict(first, "skipped")), verdict_bytes(Verdict(first + 1, "accepted"))]

    def rewrite(records: list[Record]) -> list[Record]:
        # Of the first every verdict that is looked at says skipped; of the second they disagree.
        honest = [one for one in records if decode_verdict(one[0]).offset != first]
        own = [one for one in records if decode_verdict(one[0]).offset == first]
        return [*((lie, ()) for lie in lies), *honest, *own]

    report = audit(federation, rewrite)
    assert [str(one) for one in report.findings] == []
    assert not checked(federation, rewrite, drained=False).violations
