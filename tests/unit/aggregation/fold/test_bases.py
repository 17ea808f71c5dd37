"""Windows under policy v6 say which versions their updates answered, and how many of what weight each."""

from __future__ import annotations

import pytest

from aggregation.fold.bases import Base
from schemas import avro
from schemas.envelope import open_envelope
from schemas.topics import aggregates_topic
from tests import factories
from tests.small_federation import SmallFederation

STALE = {"kind": "hinge", "hinge_versions": 0, "hinge_slope": 1.0, "versions_max": 5}


def lived(form: str) -> SmallFederation:
    """Two versions; then three updates to the newest, one to the first and two to the one between."""
    policy = factories.policy(
        format=form, staleness=STALE, shares={"per_version": 0}, window={"updates_max": 6}
    )
    one = SmallFederation(partitions={"eu": 1}, policy=policy)
    for _ in range(2):
        one.send()
        one.fold()
        one.close_windows()
        one.fold()
        one.merge()
    one.fold()
    devices = factories.devices(6, start=50)
    for number, (device, base) in enumerate(zip(devices, (2, 0, 2, 1, 2, 1), strict=True)):
        one.append("eu", 0, one.update("eu", device, base=base, seed=number))
    one.fold()
    return one


def test_a_window_says_its_bases_in_order_and_they_come_to_its_totals() -> None:
    one = lived("fluvial/policy/v6")
    records = one.records(aggregates_topic(one.task, "eu"), 0)
    record = open_envelope(records[-1].value or b"").record
    assert record["bases"] == [
        {"base": 0, "accepted": 1, "weight": 65536 // 3},
        {"base": 1, "accepted": 2, "weight": 2 * (65536 // 2)},
        {"base": 2, "accepted": 3, "weight": 3 * 65536},
    ]
    assert sum(each["weight"] for each in record["bases"]) == record["weight_total"]
    header = avro.schemas_for("RegionalAggregate")[3].header
    assert open_envelope(records[-1].value or b"").payload.startswith(header)


@pytest.mark.parametrize("form", ["fluvial/policy/v4", "fluvial/policy/v5"])
def test_before_v6_no_window_says_them(form: str) -> None:
    one = lived(form)
    for record in one.records(aggregates_topic(one.task, "eu"), 0):
        assert "bases" not in open_envelope(record.value or b"").record


def test_a_base_counts_one_update_after_another_or_some_at_once() -> None:
    assert Base(3).plus(7).plus(9) == Base(3, 2, 16)
    assert Base(3).plus(16, accepted=2) == Base(3, 2, 16)
