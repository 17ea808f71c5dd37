"""Devices are counted by what is authentic of them, and a refusal says what to do about its own cause."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from aggregation.fold.events import Verdict
from aggregation.fold.rejections import ACCEPTED, CONTROL, OUTCOMES, PARKED
from fluvial.console.devices import PLACED, Devices
from fluvial.console.refusals import record_document
from fluvial.reading.explanations import explain
from producers.fleet.behaviours import Behaviour, perform
from schemas.avro import MARKER, schema_for, unknown_schema
from tests import factories
from tests.unit.fluvial.console.console_home import SLOT, LongLog, fill_store, page_on
from tests.unit.producers.fleet.test_device_behaviours import Logs, turn

NOW_MS = 1_800_000_000_000


def judged(logs: Logs, value: bytes | None, region: str = "eu", partition: int = 0) -> Verdict:
    honest = perform(Behaviour.HONEST, turn(logs.policy))[0]
    # A record may have no value, which no device publishes.
    return logs.append(replace(honest, value=value, region=region, partition=partition))  # type: ignore[arg-type]


def test_a_device_that_breaks_every_rule_is_one_device() -> None:
    logs, devices = Logs(factories.policy()), Devices()
    counted = 0
    for behaviour in Behaviour:
        for what in perform(behaviour, turn(logs.policy)):
            verdict = logs.append(what)
            if verdict.device_id:
                devices.add(what.region, verdict.device_id, NOW_MS, verdict.outcome)
                counted += 1
    (one,) = devices.rows()
    assert (one.region, one.device_id, one.placed) == ("eu", "d-0001", True)
    assert one.accepted + one.refused == counted > 10


def test_no_record_that_does_not_show_its_region_places_a_device() -> None:
    """Whatever an authentic device of one region writes into another's log."""
    logs = Logs(factories.policy())
    elsewhere = [
        logs.append(replace(what, region="us"))
        for behaviour in Behaviour
        for what in perform(behaviour, turn(logs.policy))
    ]
    long_id = factories.update_bytes("d-0001", update_id="u" * 65, region="us")
    logs.states["us", 0].revoked.add("d-0002")
    revoked = factories.update_bytes("d-0002", region="us")
    elsewhere += [judged(logs, value, "us") for value in (long_id, revoked)]
    assert [verdict.outcome for verdict in elsewhere if verdict.outcome in PLACED] == []
    assert {"wrong_region", "bad_signature", "wrong_layout"} <= {verdict.outcome for verdict in elsewhere}


def test_every_outcome_places_a_device_or_is_named_here() -> None:
    """A new reason has to be looked at: does its check come after that of the region?"""
    before_the_region = {
        "undecodable",
        "unknown_schema",
        "too_large",
        "bad_certificate",
        "certificate_expired",
        "bad_signature",
        "revoked",
        "wrong_task",
        "wrong_region",
    }
    sometimes_before = {"wrong_layout"}  # an update id that is too long is found while the record is decoded
    assert set(OUTCOMES) - {CONTROL, PARKED} == PLACED | before_the_region | sometimes_before


def test_an_id_that_proves_no_region_is_one_device_and_none_where_two_have_it() -> None:
    devices = Devices()
    for region in ("eu", "us", "ap"):
        devices.add(region, "d-1", NOW_MS, "wrong_region")
    (one,) = devices.rows()
    assert (one.placed, one.region, one.refused) == (False, "ap", 3)
    devices.add("eu", "d-1", NOW_MS + 1, ACCEPTED)
    (one,) = devices.rows()
    assert (one.placed, one.region, one.accepted, one.refused) == (True, "eu", 1, 3)
    devices.add("us", "d-1", NOW_MS + 2, "too_stale")
    assert {(one.region, one.accepted, one.refused) for one in devices.rows()} == {("eu", 1, 0), ("us", 0, 1)}


def test_rows_are_a_copy() -> None:
    devices = Devices()
    devices.add("eu", "d-1", NOW_MS, ACCEPTED)
    devices.add("us", "d-1", NOW_MS, "wrong_region")
    assert [one.refused for one in devices.rows()] == [one.refused for one in devices.rows()] == [1]


REVOKE = {"task": factories.TASK, "device_id": "d-0001", "certificate_serial": "", "reason": "no"}
CAUSES: list[tuple[str, Any, str, str]] = [
    ("no value", lambda: None, "undecodable", "without a value"),
    ("no Avro", lambda: b"GET / HTTP/1.1", "undecodable", "no bytes of Fluvial's"),
    ("cut short", lambda: factories.update_bytes("d-0001")[:200], "undecodable", "cut short"),
    (
        "a length in two bytes",
        lambda: (value := factories.update_bytes("d-0001"))[:10] + b"\x98\x00" + value[11:],
        "undecodable",
        "One encoding",
    ),
    ("garbage like a record", lambda: MARKER + b"\x00" * 60, "unknown_schema", "no bytes of a device"),
    (
        "a control record",
        lambda: factories.worker_signer().sign("Revoke", REVOKE),
        "bad_signature",
        "control record",
    ),
    (
        "another's name",
        lambda: factories.update_bytes("d-0002", by=factories.device_signer("d-0001")),
        "bad_signature",
        "another's name",
    ),
    (
        "changed bytes",
        lambda: factories.update_bytes("d-0001")[:-1] + b"\0",
        "bad_signature",
        "changed on the way",
    ),
    (
        "a codec",
        lambda: factories.update_bytes("d-0001", codec="float32"),
        "wrong_layout",
        "does not take this codec",
    ),
    ("a long id", lambda: factories.update_bytes("d-0001", update_id="u" * 65), "wrong_layout", "update ids"),
    ("another model", lambda: factories.update_bytes("d-0001", tensors=[]), "wrong_layout", "another model"),
]


@pytest.mark.parametrize(
    ("value", "outcome", "words"), [one[1:] for one in CAUSES], ids=[one[0] for one in CAUSES]
)
def test_a_refusal_says_what_to_do_about_its_cause(value: Any, outcome: str, words: str) -> None:
    logs = Logs(factories.policy(updates={"codecs": ["int8"]}))
    home = perform(Behaviour.HONEST, turn(logs.policy))[0].partition
    verdict = judged(logs, value(), partition=home)
    assert verdict.outcome == outcome, verdict.detail
    hint = explain(verdict.outcome, verdict.detail).hint
    assert words in hint, (verdict.detail, hint)


def test_an_update_newer_than_the_policy_is_no_reason_to_upgrade_workers() -> None:
    hint = explain("unknown_schema", unknown_schema(schema_for("ClientUpdate").header).text).hint
    assert "a newer policy" in hint and "workers" not in hint


def test_what_was_never_measured_is_not_zero(tmp_path: Any) -> None:
    page = page_on(fill_store(tmp_path / "store", 1, 1), LongLog(), tmp_path, head=1)

    def numbers(verdict: Verdict) -> tuple[Any, ...]:
        document = record_document(page, SLOT, verdict, NOW_MS)
        return document["norm"], document["norm_deviations"], document["cosine"]

    for outcome in ("undecodable", "bad_signature", "too_stale", "not_finite", "wrong_layout", "duplicate"):
        assert numbers(Verdict(1, outcome)) == (None, None, None)
    assert numbers(Verdict(1, "norm_exceeded", norm=5.0)) == (5.0, None, None)
    assert numbers(Verdict(1, ACCEPTED)) == (0.0, None, None), "a delta of nothing has the norm 0"
    assert numbers(Verdict(1, "anomalous", norm=2.0, norm_deviations=9.0, cosine=-1.0)) == (2.0, 9.0, -1.0)
