"""From bytes to events: every kind of bad input, on the level of bytes, through to its verdict."""

from __future__ import annotations

import random
import struct
import tracemalloc
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from aggregation.fold.events import Barrier, RejectedRecord, Revoke, Tick, Update, Verdict
from aggregation.fold.rejections import RejectionReason
from aggregation.fold.transition import fold_into
from aggregation.policy import FORMATS
from aggregation.reasons import Reason, because
from fluvial.proof.checker import fold
from schemas import avro as codec
from schemas.certificates import CONTROL, Role
from schemas.envelope import ENVELOPE, Signer, open_envelope
from schemas.records import SINCE_POLICY_V3, UPDATE_SCHEMAS, decode_record
from tests import naive
from tests.factories import (
    BUFFERED,
    BYTES_MAX,
    NOT_AFTER,
    NOT_BEFORE,
    NOW_MS,
    Site,
    barrier_bytes,
    certificate,
    delta,
    device_signer,
    encoded,
    key,
    merger_signer,
    model_sha,
    operator_signer,
    policy,
    revoke_bytes,
    signer,
    snapshot,
    state_of,
    tick_bytes,
    trust,
    update_bytes,
    update_record,
    worker_signer,
)

if TYPE_CHECKING:
    from collections.abc import Callable

TRUST = trust()
DEVICE = "d-0001"
GOOD = update_bytes(DEVICE)
POLICY = policy()


def event_of(value: bytes | None, timestamp_ms: int = NOW_MS) -> Any:
    return decode_record(value, timestamp_ms, TRUST, POLICY)


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


def tensors(**changed: Any) -> list[dict[str, Any]]:
    """The good tensors with the last one changed."""
    entries = [
        {"name": t.name, "shape": list(t.shape), "scale": t.scale, "data": t.data} for t in encoded(delta(0))
    ]
    return [*entries[:-1], entries[-1] | changed]


def signed(by: Signer | None = None, **fields: Any) -> bytes:
    """A ClientUpdate with fields spoiled after the record was built."""
    return (by or device_signer(DEVICE)).sign("ClientUpdate", update_record(DEVICE) | fields)


def reenveloped(**changed: Any) -> bytes:
    """The good update in an envelope of which one field was changed."""
    envelope = open_envelope(GOOD)
    fields = {
        "kind": envelope.kind,
        "payload": envelope.payload,
        "certificate": envelope.certificate,
        "signature": envelope.signature,
    }
    return codec.encode(ENVELOPE, fields | changed)


def float32(value: float) -> bytes:
    values = delta(0)
    values[3] = value
    return update_bytes(DEVICE, codec="float32", tensors=encoded(values, "float32"))


NAN, INF = float("nan"), float("inf")
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


def test_every_rejection_has_an_input_that_gets_it() -> None:
    # These need a history; see below.
    elsewhere = {"revoked", "wrong_partition", "duplicate", "anomalous", "over_share", "quarantined"}
    inputs = {outcome for _, outcome in (*BAD.values(), *BAD_BUFFERS.values())}
    assert inputs | elsewhere == {r.outcome for r in RejectionReason}


def test_a_float32_with_an_infinite_or_negative_scale_is_not_finite() -> None:
    for scale in (NAN, INF, -1.0):
        parts = [
            {"name": t.name, "shape": list(t.shape), "scale": scale, "data": t.data}
            for t in encoded(delta(0), "float32")
        ]
        assert Site(state_of(POLICY)).append(signed(codec="float32", tensors=parts)).outcome == "not_finite"


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


SINCE_V3 = {name: codec.schemas_for(name)[first - 1] for name, first in SINCE_POLICY_V3.items()}


@pytest.mark.parametrize("name", SINCE_V3)
@pytest.mark.parametrize("place", ["in the place of an envelope", "behind another name", "in an envelope"])
def test_to_a_policy_before_v3_what_came_with_it_is_unknown_wherever_it_stands(name: str, place: str) -> None:
    header = SINCE_V3[name].header
    values = {
        "in the place of an envelope": header + b"body",
        "behind another name": reenveloped(kind="Tick", payload=header),
        "in an envelope": reenveloped(kind=name, payload=header),
    }
    unknown = RejectedRecord(
        RejectionReason.UNKNOWN_SCHEMA, because(Reason.UNKNOWN_FINGERPRINT, header[2:].hex())
    )
    for format_name in FORMATS:
        event = decode_record(values[place], NOW_MS, TRUST, policy(format=format_name))
        assert (event == unknown) == (format_name != "fluvial/policy/v3"), format_name


def test_the_checker_knows_the_same_later_records() -> None:
    assert fold.LATER == SINCE_POLICY_V3


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
    }
    holders = {
        "Barrier": (CONTROL, Role.MERGER),
        "Tick": ("eu", Role.WORKER),
        "Revoke": (CONTROL, Role.OPERATOR),
    }
    signers = [device_signer(DEVICE), worker_signer(), merger_signer(), operator_signer()]
    signers.append(signer(CONTROL, Role.GUARDIAN, "g-1"))
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


@pytest.mark.parametrize("kind", ["Barrier", "Tick", "Revoke"])
def test_a_forged_control_record_is_a_bad_signature_and_changes_nothing(kind: str) -> None:
    site = Site(state_of(POLICY))
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


def small_records() -> dict[str, bytes]:
    return {
        "update": GOOD,
        "barrier": barrier_bytes(1, POLICY),
        "tick": tick_bytes(0),
        "revoke": revoke_bytes(DEVICE),
    }


@pytest.mark.parametrize("name", small_records())
def test_a_record_cut_anywhere_is_undecodable(name: str) -> None:
    value = small_records()[name]
    for length in range(len(value)):
        event = event_of(value[:length])
        assert isinstance(event, RejectedRecord)
        assert event.rejection is RejectionReason.UNDECODABLE


@pytest.mark.parametrize("name", small_records())
def test_no_flipped_bit_of_a_record_is_taken(name: str) -> None:
    value = small_records()[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of cryptography, about odd serial numbers
        for position in range(len(value)):
            for bit in range(8):
                changed = value[:position] + bytes([value[position] ^ 1 << bit]) + value[position + 1 :]
                assert isinstance(event_of(changed), RejectedRecord), f"byte {position}, bit {bit}"


def mutated(value: bytes, rng: random.Random) -> bytes:
    """The bytes with a few random edits."""
    data = bytearray(value)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data))
        match rng.randrange(5):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                del data[at : at + rng.randint(1, 30)]
            case 2:
                data[at:at] = rng.randbytes(rng.randint(1, 30))
            case 3:
                data[at : at + 10] = naive.zigzag(rng.choice([-1, 1, -(1 << 63), (1 << 63) - 1, 1 << 40]))
            case _:
                data[at:at] = data[at : at + rng.randint(1, 50)]
        if not data:
            return b""
    return bytes(data)


def test_twenty_thousand_mutated_records_are_all_refused_without_an_exception() -> None:
    rng = random.Random(20260921)
    originals = list(small_records().values())
    taken = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(20_000):
            value = rng.choice(originals)
            changed = mutated(value, rng)
            if changed != value:
                taken += not isinstance(event_of(changed), RejectedRecord)
    assert taken == 0


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


def test_four_thousand_mutated_payloads_with_a_good_signature_never_raise_through_the_fold() -> None:
    """What a device of ours can send on purpose: any bytes, well signed."""
    rng = random.Random(7)
    payload, by = open_envelope(GOOD).payload, device_signer(DEVICE)
    site = Site(state_of(POLICY))
    for _ in range(4_000):
        header = payload[: codec.HEADER_BYTES]
        body = header + mutated(payload[codec.HEADER_BYTES :], rng)
        site.append(by.sign_payload("ClientUpdate", body))
        site.effects.clear()


def test_a_strangers_bomb_costs_no_more_than_its_bytes() -> None:
    """Regression: the payload was decoded before the signature was looked at: 2 s and 225 MB for 8 MB."""
    count = (BYTES_MAX - 4096) // 11
    whole = codec.encode("ClientUpdate", open_envelope(GOOD).record | {"tensors": [], "client_metrics": {}})
    at = len(whole) - len(naive.zigzag(NOW_MS)) - 2
    bomb = whole[:at] + naive.zigzag(count) + bytes(11 * count) + whole[at:]
    value = reenveloped(payload=bomb)
    tracemalloc.start()
    event = event_of(value)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(event, RejectedRecord)
    assert event.rejection is RejectionReason.BAD_SIGNATURE
    assert peak < 3 * len(value)
