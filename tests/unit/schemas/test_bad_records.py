"""From bytes to events: every kind of bad update, on the level of bytes, through to its verdict."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest

from aggregation.fold.rejections import RejectionReason
from schemas.certificates import Role
from schemas.envelope import open_envelope
from tests.factories import (
    BUFFERED,
    BYTES_MAX,
    NOT_AFTER,
    NOT_BEFORE,
    Site,
    certificate,
    delta,
    device_signer,
    encoded,
    merger_signer,
    model_sha,
    snapshot,
    state_of,
    update_bytes,
    worker_signer,
)
from tests.unit.schemas.record_inputs import DEVICE, GOOD, POLICY, reenveloped, signed, tensors

if TYPE_CHECKING:
    from collections.abc import Callable

NAN, INF = float("nan"), float("inf")


def float32(value: float) -> bytes:
    values = delta(0)
    values[3] = value
    return update_bytes(DEVICE, codec="float32", tensors=encoded(values, "float32"))


BAD: dict[str, tuple[Callable[[], bytes | None], str]] = {
    "no value": (lambda: None, "undecodable"),
    "no bytes": (lambda: b"", "undecodable"),
    "text": (lambda: b"hello, this is not an envelope", "undecodable"),
    "a bare record": (lambda: open_envelope(GOOD).payload, "undecodable"),
    "a truncated body": (lambda: GOOD[:-20], "undecodable"),
    "a byte too many": (lambda: GOOD + b"\0", "undecodable"),
    "a signed payload that is cut short": (
        lambda: device_signer(DEVICE).sign_payload("ClientUpdate", open_envelope(GOOD).payload[:-20]),
        "undecodable",
    ),
    "an aggregate, which does not belong here": (
        lambda: merger_signer().sign(
            "ModelAnnouncement",
            dict.fromkeys(["task", "region", "manifest_sha256", "model_sha256", "policy_sha256"], "x")
            | {"version": 1},
        ),
        "undecodable",
    ),
    "an unknown fingerprint outside": (lambda: GOOD[:2] + bytes(8) + GOOD[10:], "unknown_schema"),
    "an unknown fingerprint inside": (
        lambda: reenveloped(payload=b"\xc3\x01" + bytes(30)),
        "unknown_schema",
    ),
    "a payload above the limit": (lambda: GOOD + bytes(BYTES_MAX), "too_large"),
    "a tensor too few": (lambda: signed(tensors=tensors()[:-1]), "wrong_layout"),
    "a tensor too many": (lambda: signed(tensors=[*tensors(), *tensors()[:1]]), "wrong_layout"),
    "tensors in another order": (lambda: signed(tensors=tensors()[::-1]), "wrong_layout"),
    "no tensors": (lambda: signed(tensors=[]), "wrong_layout"),
    "a tensor of another name": (lambda: signed(tensors=tensors(name="other")), "wrong_layout"),
    "a tensor of another shape": (lambda: signed(tensors=tensors(shape=[1, 7])), "wrong_layout"),
    "data too short": (lambda: signed(tensors=tensors(data=bytes(6))), "wrong_layout"),
    "data too long": (lambda: signed(tensors=tensors(data=bytes(8))), "wrong_layout"),
    "float32 data called int8": (
        lambda: signed(codec="float32", tensors=tensors(scale=1.0)),
        "wrong_layout",
    ),
    "a float32 scale that is not 1": (
        lambda: signed(
            codec="float32",
            tensors=[
                {"name": t.name, "shape": list(t.shape), "scale": 2.0, "data": t.data}
                for t in encoded(delta(0), "float32")
            ],
        ),
        "wrong_layout",
    ),
    "an update_id of 65 characters": (lambda: signed(update_id="u" * 65), "wrong_layout"),
    "a scale that is NaN": (lambda: signed(tensors=tensors(scale=NAN)), "not_finite"),
    "a scale that is infinite": (lambda: signed(tensors=tensors(scale=INF)), "not_finite"),
    "a scale that is negative": (lambda: signed(tensors=tensors(scale=-0.1)), "not_finite"),
    "a float32 with NaN": (lambda: float32(NAN), "not_finite"),
    "a float32 with an infinity": (lambda: float32(-INF), "not_finite"),
    "a certificate of another CA": (
        lambda: update_bytes(DEVICE, by=device_signer(DEVICE, secret="other")),
        "bad_certificate",
    ),
    "a CA's certificate as a leaf": (
        lambda: update_bytes(DEVICE, by=device_signer(DEVICE, is_authority=True)),
        "bad_certificate",
    ),
    "a certificate with two names": (
        lambda: update_bytes(
            DEVICE, by=device_signer(DEVICE, uris=(f"spiffe://eu/device/{DEVICE}", "spiffe://eu/device/x"))
        ),
        "bad_certificate",
    ),
    "a certificate with an RSA key": (
        lambda: update_bytes(DEVICE, by=device_signer(DEVICE, with_rsa=True)),
        "bad_certificate",
    ),
    "a worker's certificate": (lambda: update_bytes(DEVICE, by=worker_signer(DEVICE)), "bad_certificate"),
    "no certificate": (lambda: reenveloped(certificate=b""), "bad_certificate"),
    "an expired certificate": (
        lambda: update_bytes(DEVICE, by=device_signer(DEVICE, not_after=NOT_BEFORE.replace(month=2))),
        "certificate_expired",
    ),
    "a certificate that is not valid yet": (
        lambda: update_bytes(DEVICE, by=device_signer(DEVICE, not_before=NOT_AFTER.replace(year=2035))),
        "certificate_expired",
    ),
    "a wrong signature": (lambda: reenveloped(signature=bytes(64)), "bad_signature"),
    "no signature": (lambda: reenveloped(signature=b""), "bad_signature"),
    "another device's certificate": (
        lambda: reenveloped(certificate=certificate("eu", Role.DEVICE, "d-0002")),
        "bad_signature",
    ),
    "a device id that is not the certificate's": (lambda: signed(device_id="d-0002"), "bad_signature"),
    "another task": (lambda: signed(task="fashion"), "wrong_task"),
    "another region's name": (lambda: signed(region="us"), "wrong_region"),
    "another region's device": (
        lambda: signed(device_signer(DEVICE, "us"), region="us"),
        "wrong_region",
    ),
    "a base from the future": (lambda: signed(base_version=1), "future_base"),
    "the largest base": (lambda: signed(base_version=(1 << 63) - 1), "future_base"),
    "the smallest base": (lambda: signed(base_version=-(1 << 63)), "too_stale"),
    "a base before the first": (lambda: signed(base_version=-1), "too_stale"),
    "a base of another model": (lambda: signed(base_sha256=model_sha(9)), "unknown_base"),
    "a norm above the hard bound": (
        lambda: update_bytes(DEVICE, tensors=encoded(delta(0, size=1e4))),
        "norm_exceeded",
    ),
    "a scale whose square is infinite": (lambda: signed(tensors=tensors(scale=1e200)), "norm_exceeded"),
}


@pytest.mark.parametrize(("make", "outcome"), BAD.values(), ids=BAD.keys())
def test_bad_input_gets_its_verdict_and_leaves_the_rest_of_the_state_alone(
    make: Callable[[], bytes | None], outcome: str
) -> None:
    site = Site(state_of(POLICY))
    before = snapshot(site.state)
    verdict = site.append(make())
    assert verdict.outcome == outcome
    assert verdict.offset == 0
    assert verdict.detail
    after = snapshot(site.state)
    assert after.pop("next_offset") == 1
    assert after.pop("window.counts") == {outcome: 1}
    before.pop("next_offset")
    before.pop("window.counts")
    assert after == before
    assert site.append(GOOD).outcome == "accepted"  # the partition goes on


def test_a_float32_with_an_infinite_or_negative_scale_is_not_finite() -> None:
    for scale in (NAN, INF, -1.0):
        parts = [
            {"name": t.name, "shape": list(t.shape), "scale": scale, "data": t.data}
            for t in encoded(delta(0), "float32")
        ]
        assert Site(state_of(POLICY)).append(signed(codec="float32", tensors=parts)).outcome == "not_finite"


def buffered(**changed: Any) -> bytes:
    """The good update of a task with buffers, with the last tensor, a variance, changed."""
    made = encoded(delta(0, BUFFERED), layout=BUFFERED)
    parts = [{"name": t.name, "shape": list(t.shape), "scale": t.scale, "data": t.data} for t in made]
    return signed(tensors=[*parts[:-1], parts[-1] | changed])


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


BAD_BUFFERS: dict[str, tuple[bytes, str]] = {
    "an update of the weights only": (GOOD, "wrong_layout"),
    "a buffer of another name": (buffered(name="other"), "wrong_layout"),
    "a buffer of another shape": (buffered(shape=[1, 3]), "wrong_layout"),
    "a buffer as the codec would have it": (buffered(data=bytes(3)), "wrong_layout"),
    "a buffer that is cut short": (buffered(data=bytes(11)), "wrong_layout"),
    "a buffer that is too long": (buffered(data=bytes(16)), "wrong_layout"),
    "a buffer with a scale": (buffered(scale=0.5), "wrong_layout"),
    "a buffer with a scale that is NaN": (buffered(scale=NAN), "not_finite"),
    "a buffer with a scale below 0": (buffered(scale=-1.0), "not_finite"),
    "a buffer with NaN": (buffered(data=floats(1, NAN, 1)), "not_finite"),
    "a buffer with an infinity": (buffered(data=floats(1, 1, INF)), "not_finite"),
    "a variance below 0": (buffered(data=floats(1, 1, -1e-45)), "out_of_range"),
}


@pytest.mark.parametrize(("value", "outcome"), BAD_BUFFERS.values(), ids=BAD_BUFFERS.keys())
def test_bad_buffers_get_their_verdict_and_leave_the_rest_of_the_state_alone(
    value: bytes, outcome: str
) -> None:
    site = Site(state_of(POLICY, layout=BUFFERED))
    verdict = site.append(value)
    assert (verdict.outcome, bool(verdict.detail), verdict.norm) == (outcome, True, 0.0)
    assert site.state.window.sums is None and len(site.state.history) == 0
    assert site.append(buffered()).outcome == "accepted"


def test_a_variance_may_be_0_on_either_side_and_as_large_as_a_float32_goes() -> None:
    for number, values in enumerate([(0.0, -0.0, 1e-45), (3.4e38, 3.4e38, 3.4e38)]):
        site = Site(state_of(POLICY, layout=BUFFERED))
        assert site.append(buffered(data=floats(*values))).outcome == "accepted", number


def test_every_rejection_has_an_input_that_gets_it() -> None:
    # These need a history or a policy; see test_records.py, test_control_records.py and tests/unit/aggregation/fold.
    elsewhere = {"revoked", "wrong_partition", "duplicate", "anomalous", "over_share", "quarantined"}
    elsewhere |= {"round_over", "not_selected", "bad_aggregate"}
    inputs = {outcome for _, outcome in (*BAD.values(), *BAD_BUFFERS.values())}
    assert inputs | elsewhere == {r.outcome for r in RejectionReason}
