"""Records of an earlier task of the same name, with the same CAs and model: in the next one they are nobody's."""

from __future__ import annotations

from collections import Counter

import pytest

from backends.skips import find_skips
from fluvial.proof.audit import audit_task
from schemas.records import Flaw, Unverified, aggregate_in, announcement_in, decode_record
from schemas.topics import aggregates_topic, models_topic, updates_topic, verdicts_topic
from schemas.verdicts import decode_verdict
from tests import factories
from tests.factories import operator_signer, revoke_bytes
from tests.small_federation import SmallFederation
from tests.unit.fluvial.proof.checked_copy import copy_of

PARTITIONS = {"eu": 1, "us": 1}


def lived(nonce: str) -> SmallFederation:
    """A task in which every kind of record was written."""
    federation = SmallFederation(partitions=PARTITIONS, nonce=nonce)
    federation.rounds(3)
    skip = {"task": federation.task, "region": "eu", "partition": 0, "offset": 0, "reason": "it raises"}
    operator = federation.signer(operator_signer())
    federation.append("eu", 0, operator.sign("Skip", skip))
    federation.append("eu", 0, revoke_bytes("d-0000", by=operator))
    federation.fold()
    return federation


@pytest.fixture(scope="module")
def earlier() -> SmallFederation:
    return lived(factories.sha("an earlier nonce"))


def test_two_tasks_of_the_same_arguments_are_two_tasks(earlier: SmallFederation) -> None:
    again = SmallFederation(partitions=PARTITIONS)
    assert again.models == earlier.models[:1]
    assert again.genesis.sha256 != earlier.genesis.sha256


def test_no_record_of_the_earlier_task_counts_in_the_next(earlier: SmallFederation) -> None:
    following = SmallFederation(partitions=PARTITIONS)
    kinds = Counter[str]()
    following.rounds(1)
    for region in PARTITIONS:
        for record in earlier.records(updates_topic(earlier.task, region), 0):
            following.append(region, 0, record.value)
    following.rounds(2)
    following.fold()
    for region in PARTITIONS:
        replayed = {record.value for record in earlier.records(updates_topic(earlier.task, region), 0)}
        verdicts = {
            one.offset: one
            for record in following.records(verdicts_topic(following.task, region), 0)
            if (one := decode_verdict(record.value or b"")).because.reason.code
        }
        for record in following.records(updates_topic(following.task, region), 0):
            if record.value in replayed:
                said = verdicts[record.offset]
                assert said.outcome == "bad_signature"
                assert "another task" in said.detail
                kinds[said.because.forged or "ClientUpdate"] += 1
    assert set(kinds) == {"ClientUpdate", "Barrier", "Tick", "Skip", "Revoke"}
    assert following.version == 3, "its versions go on"
    with following.open_reader("skips") as reader:
        assert find_skips(reader, following.trust, following.task, ("eu", 0), first=0, end=99) == {}
    audit = audit_task(following.settings, following.task_file, sources=following.sources)
    assert audit.identical, audit.findings.shown
    copy = copy_of(following)
    assert copy.check(drained=False).violations == ()


def test_windows_and_announcements_of_the_earlier_task_are_forged(earlier: SmallFederation) -> None:
    trust = SmallFederation(partitions=PARTITIONS).trust
    windows = earlier.records(aggregates_topic(earlier.task, "eu"), 0)
    announced = earlier.records(models_topic(earlier.task), 0)
    assert windows and announced
    found = [aggregate_in(one.value, one.timestamp_ms, trust, earlier.task, ("eu", 0)) for one in windows]
    told = [announcement_in(one.value, one.timestamp_ms, trust) for one in announced]
    for one in (*found, *told):
        assert isinstance(one, Unverified)
        assert one.flaw is Flaw.FORGED
        assert "another task" in one.reason


def test_a_task_before_v5_takes_the_first_domain_only() -> None:
    first = SmallFederation(partitions=PARTITIONS, document_format="fluvial/genesis/v4")
    later = first.update("eu", "d-0001", by=factories.device_signer("d-0001"))
    event = decode_record(later, factories.NOW_MS, first.trust, first.policy)
    assert not hasattr(event, "rejection")
    named = factories.device_signer("d-0001").of_task(factories.DOMAIN)
    value = factories.update_bytes("d-0001", by=named, task=first.task)
    event = decode_record(value, factories.NOW_MS, first.trust, first.policy)
    assert getattr(event, "because").reason.code == 222  # noqa: B009
