"""Control records: the genuine ones are events, forged ones change nothing, and those for elsewhere are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aggregation.fold.events import Barrier, Revoke, Tick, Update
from schemas.certificates import CONTROL, Role
from schemas.envelope import Signer
from tests.factories import (
    NOT_BEFORE,
    Site,
    barrier_bytes,
    device_signer,
    edge_signer,
    key,
    merger_signer,
    operator_signer,
    pardon_bytes,
    policy,
    revoke_bytes,
    signer,
    state_of,
    tick_bytes,
    update_bytes,
    worker_signer,
)
from tests.unit.schemas.record_inputs import DEVICE, GOOD, POLICY, event_of

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("by", ["device", "serial"])
def test_a_revoked_device_is_refused_from_that_offset_on(by: str) -> None:
    site = Site(state_of(POLICY))
    event = event_of(GOOD)
    assert isinstance(event, Update)
    revoke = (
        revoke_bytes(device_id=DEVICE) if by == "device" else revoke_bytes(serial=event.certificate_serial)
    )
    assert site.append(revoke).outcome == "control"
    assert site.append(GOOD).outcome == "revoked"
    assert site.append(update_bytes("d-0002")).outcome == "accepted"


def forged(kind: str) -> list[bytes]:
    """Every way to forge a control record of one kind."""
    make: dict[str, Callable[..., bytes]] = {
        "Barrier": lambda by: barrier_bytes(1, POLICY, by=by),
        "Tick": lambda by: tick_bytes(0, by=by),
        "Revoke": lambda by: revoke_bytes("d-0002", by=by),
        "Pardon": lambda by: pardon_bytes("d-0002", 9, by=by),
    }
    holders = {
        "Barrier": (CONTROL, Role.MERGER),
        "Tick": ("eu", Role.WORKER),
        "Revoke": (CONTROL, Role.OPERATOR),
        "Pardon": (CONTROL, Role.OPERATOR),
    }
    signers = [device_signer(DEVICE), worker_signer(), merger_signer(), operator_signer()]
    signers += [signer(CONTROL, Role.GUARDIAN, "g-1"), edge_signer("eu")]
    wrong = [s for s, role in zip(signers, Role, strict=True) if role is not holders[kind][1]]
    region, role = holders[kind]
    good = signer(region, role, "x")
    wrong += [
        signer(region, role, "x", secret="other"),
        signer(region, role, "x", not_after=NOT_BEFORE.replace(month=2)),
        signer(region, role, "x", uris=(f"spiffe://eu/device/{DEVICE}",)),
        Signer(good.certificate, key("somebody else"), good.domain),
        Signer(b"", good.key, good.domain),
    ]
    if kind == "Tick":
        wrong.append(worker_signer(region="us"))
    return [make[kind](by=one) for one in wrong]


@pytest.mark.parametrize("kind", ["Barrier", "Tick", "Revoke", "Pardon"])
def test_a_forged_control_record_is_a_bad_signature_and_changes_nothing(kind: str) -> None:
    site = Site(state_of(policy(format="fluvial/policy/v5") if kind == "Pardon" else POLICY))
    site.append(GOOD)
    records = forged(kind)
    assert len(records) >= 8
    for value in records:
        verdict = site.append(value)
        assert verdict.outcome == "bad_signature"
        assert f"forged {kind}" in verdict.detail
    assert site.closed == []
    assert site.state.version == 0
    assert site.state.revoked == set()
    assert site.append(update_bytes("d-0002")).outcome == "accepted"


def test_genuine_control_records_are_events() -> None:
    assert isinstance(event_of(barrier_bytes(1, POLICY)), Barrier)
    assert isinstance(event_of(tick_bytes(0)), Tick)
    assert isinstance(event_of(revoke_bytes(DEVICE)), Revoke)


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        (barrier_bytes(1, POLICY, task="fashion"), "wrong_task"),
        (barrier_bytes(1, POLICY, region="us"), "wrong_region"),
        (tick_bytes(0, task="fashion"), "wrong_task"),
        (tick_bytes(0, partition=1), "wrong_partition"),
        (revoke_bytes(DEVICE, task="fashion"), "wrong_task"),
    ],
)
def test_a_control_record_for_elsewhere_is_refused(value: bytes, outcome: str) -> None:
    site = Site(state_of(POLICY))
    assert site.append(value).outcome == outcome
    assert (site.state.version, site.state.revoked, site.closed) == (0, set(), [])
