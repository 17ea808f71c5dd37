"""From bytes to events: how large a record may be, what later formats brought, what its place and past decide."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from aggregation.fold.events import RejectedRecord, Update, Verdict
from aggregation.fold.rejections import RejectionReason
from aggregation.fold.transition import fold_into
from aggregation.policy import FORMATS
from aggregation.reasons import Reason, because
from fluvial.proof.checker import known
from schemas import avro as codec
from schemas.certificates import Role
from schemas.known import (
    SINCE_POLICY_V3,
    SINCE_POLICY_V4,
    SINCE_POLICY_V5,
    SINCE_POLICY_V6,
    UPDATE_SCHEMAS,
)
from schemas.records import decode_record
from tests.factories import (
    NOW_MS,
    Site,
    barrier_bytes,
    delta,
    encoded,
    policy,
    signer,
    snapshot,
    state_of,
    update_bytes,
    worker_signer,
)
from tests.unit.schemas.record_inputs import DEVICE, GOOD, POLICY, TRUST, event_of, reenveloped, signed

if TYPE_CHECKING:
    from schemas.envelope import Signer


def test_a_record_of_exactly_the_limit_is_read_and_one_byte_more_is_too_large() -> None:
    whole = decode_record(GOOD, NOW_MS, TRUST, policy(updates={"bytes_max": len(GOOD)}))
    assert isinstance(whole, Update)
    assert whole.record_bytes == len(GOOD)
    above = decode_record(GOOD, NOW_MS, TRUST, policy(updates={"bytes_max": len(GOOD) - 1}))
    assert isinstance(above, RejectedRecord)
    assert above.rejection is RejectionReason.TOO_LARGE
    assert above.because.text == f"{len(GOOD)} bytes, the policy allows {len(GOOD) - 1}"


LATER = update_bytes(DEVICE, codec="a-later-one", tensors=encoded(delta(0)))
V1 = policy(format="fluvial/policy/v1")


def test_every_policy_format_says_which_updates_it_takes() -> None:
    assert set(UPDATE_SCHEMAS) == set(FORMATS)


@pytest.mark.parametrize(
    "by", [None, worker_signer(), signer("us", Role.DEVICE, DEVICE)], ids=["", "worker", "us"]
)
def test_to_a_policy_of_an_older_format_a_later_schema_is_as_unknown_as_to_its_fluvial(
    by: Signer | None,
) -> None:
    value = update_bytes(DEVICE, by=by, codec="a-later-one", tensors=encoded(delta(0)))
    fingerprint = codec.schemas_for("ClientUpdate")[1].header[2:].hex()
    event = decode_record(value, NOW_MS, TRUST, V1)
    assert event == RejectedRecord(
        RejectionReason.UNKNOWN_SCHEMA, because(Reason.UNKNOWN_FINGERPRINT, fingerprint)
    )


def test_a_codec_that_nobody_knows_is_read_and_then_refused_by_its_name() -> None:
    site = Site(state_of(POLICY))
    verdict = site.fold(decode_record(LATER, NOW_MS, TRUST, POLICY))
    assert (verdict.outcome, verdict.detail) == (
        "wrong_layout",
        "codec a-later-one, the policy takes int8, float32",
    )
    long = update_bytes(DEVICE, codec="x" * 5000, tensors=encoded(delta(0)))
    verdict = site.fold(decode_record(long, NOW_MS, TRUST, POLICY))
    assert verdict.detail == f"codec {'x' * 64}, the policy takes int8, float32"


def test_the_same_bytes_again_are_a_duplicate_and_so_is_a_second_update_for_the_base() -> None:
    site = Site(state_of(POLICY))
    assert [site.append(value).outcome for value in (GOOD, GOOD, update_bytes(DEVICE, seed=5))] == [
        "accepted",
        "duplicate",
        "duplicate",
    ]


def test_a_copy_in_another_partition_is_refused_there() -> None:
    outcomes = [Site(state_of(POLICY, partition=p, partitions=2)).append(GOOD).outcome for p in (0, 1)]
    assert sorted(outcomes) == ["accepted", "wrong_partition"]


def test_a_device_that_has_had_its_share_is_over_it_and_one_that_was_refused_too_often_in_quarantine() -> (
    None
):
    one = policy(format="fluvial/policy/v3", defence={"quarantine_refusals": 1})
    site, zeros = Site(state_of(one)), encoded(np.zeros_like(delta(0)))

    def at(base: int, device: str, **changed: Any) -> Verdict:
        return site.append(update_bytes(device, base=base, **changed))

    assert [at(0, DEVICE).outcome, at(0, "d-0002", tensors=zeros).outcome] == ["accepted", "anomalous"]
    site.append(barrier_bytes(1, one))
    verdicts = [at(1, DEVICE), at(1, "d-0002"), at(0, "d-0003"), at(1, "d-0003")]
    assert [one.outcome for one in verdicts] == ["accepted", "quarantined", "accepted", "accepted"]
    assert verdicts[1].detail == (
        "d-0002 is in quarantine until version 32: too many of its last updates were anomalous"
    )
    site.append(barrier_bytes(2, one))
    last = [
        at(2, "d-0003"),
        at(1, "d-0003"),
        at(2, "d-0003"),
        at(0, "d-0004"),
        at(1, "d-0004"),
        at(2, "d-0004"),
    ]
    assert [one.outcome for one in last] == [
        "accepted", "duplicate", "duplicate", "accepted", "accepted", "over_share"
    ]  # fmt: skip
    assert last[-1].detail == "d-0004 has no contribution left at version 2: each version gives it 1"


SINCE = {
    (name, first): generation
    for generation, since in enumerate(
        (SINCE_POLICY_V3, SINCE_POLICY_V4, SINCE_POLICY_V5, SINCE_POLICY_V6), 3
    )
    for name, first in since.items()
}
"""By record and version: the format of policies that it came with."""


@pytest.mark.parametrize(("name", "version"), SINCE)
@pytest.mark.parametrize("place", ["in the place of an envelope", "behind another name", "in an envelope"])
def test_to_an_older_policy_what_came_later_is_unknown_wherever_it_stands(
    name: str, version: int, place: str
) -> None:
    header = codec.schemas_for(name)[version - 1].header
    values = {
        "in the place of an envelope": header + b"body",
        "behind another name": reenveloped(kind="Tick", payload=header),
        "in an envelope": reenveloped(kind=name, payload=header),
    }
    unknown = RejectedRecord(
        RejectionReason.UNKNOWN_SCHEMA, because(Reason.UNKNOWN_FINGERPRINT, header[2:].hex())
    )
    for generation, format_name in enumerate(FORMATS, start=1):
        event = decode_record(values[place], NOW_MS, TRUST, policy(format=format_name))
        assert (event == unknown) == (generation < SINCE[name, version]), format_name


def test_the_checker_knows_the_same_later_records() -> None:
    released = (SINCE_POLICY_V3, SINCE_POLICY_V4, SINCE_POLICY_V5, SINCE_POLICY_V6)
    assert dict(enumerate(released, 3)) == known.SINCE
    assert known.UPDATES == UPDATE_SCHEMAS


@pytest.mark.parametrize(
    ("said", "cohort"),
    [
        (0.0, 0),
        (99.0, 99),
        (100.0, None),
        (-1.0, None),
        (0.5, None),
        (float("nan"), None),
        (float("inf"), None),
    ],
)
def test_a_device_may_say_its_cohort_and_anything_else_is_as_if_it_had_not(
    said: float, cohort: int | None
) -> None:
    event = event_of(signed(client_metrics={"cohort": said}))
    assert isinstance(event, Update) and event.cohort == cohort
    assert event_of(signed(client_metrics={})).cohort is None


def test_the_fold_does_not_read_what_a_device_says_of_its_cohort() -> None:
    update = event_of(GOOD)
    first, second = state_of(POLICY), state_of(POLICY)
    verdicts = [
        fold_into(state, 0, replace(update, cohort=cohort)) for state, cohort in ((first, None), (second, 7))
    ]
    verdict = verdicts[0][0]
    assert isinstance(verdict, Verdict) and verdict.outcome == "accepted" and verdicts[0] == verdicts[1]
    assert snapshot(first) == snapshot(second)
