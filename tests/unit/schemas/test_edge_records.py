"""EdgeAggregates as bytes: who may sign one, in which one form sums travel, and what is undecodable."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregation.fold.events import EdgeAggregate, RejectedRecord
from schemas.certificates import BadCertificateError, Role
from schemas.checkpoints import encode_sums
from schemas.edges import packed, unpacked, width_of
from schemas.records import decode_record
from schemas.windows import encode_state, encode_window, restore_state
from tests.factories import (
    EDGE,
    LAYOUT,
    NOW_MS,
    Edge,
    Site,
    devices,
    edge_policy,
    edge_signer,
    merger_signer,
    policy,
    sha,
    signer,
    state_of,
    tick,
    trust,
    update_bytes,
)

RULES = edge_policy()


def published(edge: Edge | None = None) -> Edge:
    edge = edge or Edge(RULES)
    edge.window(*devices(3))
    return edge


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=9), st.integers(0, 63))
def test_sums_come_back_from_as_few_bytes_as_hold_them(values: list[int], shift: int) -> None:
    sums = np.array([value >> shift for value in values], dtype=np.int64)
    width = width_of(sums)
    assert unpacked(packed(sums, width), width).tolist() == sums.tolist()
    assert width == 1 or any(not -(1 << 8 * width - 9) <= one < 1 << 8 * width - 9 for one in sums.tolist())
    assert encode_sums(unpacked(packed(sums, width), width)) == encode_sums(sums)


def test_a_signed_window_of_an_edge_is_read_and_counts() -> None:
    edge, site = published(), Site(state_of(RULES))
    value = edge.bytes()
    event = site.event(value)
    assert isinstance(event, EdgeAggregate)
    assert (event.record_bytes, event.timestamp_ms, event.edge) == (len(value), NOW_MS, EDGE)
    assert site.append(value).outcome == "aggregated"


def test_a_snapshot_remembers_how_far_edges_have_come() -> None:
    edge, site = published(), Site(state_of(RULES))
    site.append(edge.bytes())
    site.fold(tick(0))
    state, (closed,) = site.state, site.closed
    data = encode_state(state)
    encoded = encode_window(state, closed)
    restored = restore_state(
        data, encoded.aggregate, partitions=1, layout=LAYOUT, policy=RULES, reference=None
    )
    assert restored.edges == state.edges != {}
    assert encode_state(restored) == data


REFUSED: dict[str, tuple[dict[str, Any], Any, tuple[str, str]]] = {
    "a device's key": ({"by": signer(EDGE, Role.DEVICE, "d-1", issuer="eu")}, RULES, ("bad_certificate", "")),
    "a worker's key": ({"by": signer(EDGE, Role.WORKER, "w-1", issuer="eu")}, RULES, ("bad_certificate", "")),
    "a merger's key": ({"by": merger_signer()}, RULES, ("bad_certificate", "")),
    "a certificate of another region's CA": (
        {"by": edge_signer(issuer="us")},
        RULES,
        ("bad_certificate", ""),
    ),
    "a certificate below no region": (
        {"by": edge_signer("asia.e1", issuer="eu")},
        RULES,
        ("bad_certificate", ""),
    ),
    "the key of another edge": ({"by": edge_signer("eu.e2")}, RULES, ("wrong_region", "eu.e2")),
    "another parent": ({"region": "us"}, RULES, ("wrong_region", EDGE)),
    "another edge": ({"edge": "eu.e2"}, RULES, ("wrong_region", EDGE)),
    "no window": ({"aggregate": b""}, RULES, ("undecodable", EDGE)),
    "another record in the place of a window": (
        {"aggregate": update_bytes("d-1")},
        RULES,
        ("undecodable", EDGE),
    ),
    "no width": ({"width": 0}, RULES, ("undecodable", EDGE)),
    "too wide numbers": ({"width": 9}, RULES, ("undecodable", EDGE)),
    "no sums": ({"sums": b""}, RULES, ("undecodable", EDGE)),
    "half a number": ({"width": 5, "sums": bytes(9)}, RULES, ("undecodable", EDGE)),
    "other sums": ({"width": 1, "sums": bytes([1]) * LAYOUT.sum_elements}, RULES, ("undecodable", EDGE)),
    "wider numbers than it takes": (
        {"width": 2, "sums": bytes([1, 0]) * LAYOUT.sum_elements},
        RULES,
        ("undecodable", EDGE),
    ),
    "a policy without edges": ({}, edge_policy(edges={"updates_max": 0}), ("unknown_schema", "")),
    "a policy of before": ({}, policy(), ("unknown_schema", "")),
}


@pytest.mark.parametrize("what", REFUSED)
def test_an_edges_record_is_refused_with(what: str) -> None:
    changed, rules, expected = REFUSED[what]
    event = decode_record(published().bytes(**changed), NOW_MS, trust(), rules)
    assert isinstance(event, RejectedRecord)
    assert (event.rejection.outcome, event.device_id) == expected
    assert not event.because.forged


def test_a_window_with_a_byte_to_spare_is_undecodable() -> None:
    edge = published()
    whole = edge.records[-1]["aggregate"]
    for flawed in (whole + b"\0", whole[:-1], b"\xc3\x01" + bytes(8) + whole[10:]):
        event = decode_record(edge.bytes(aggregate=flawed), NOW_MS, trust(), RULES)
        assert isinstance(event, RejectedRecord)
        assert event.because.values == (EDGE, "aggregate")


def test_a_changed_signature_is_none() -> None:
    value = bytearray(published().bytes())
    value[-1] ^= 1
    event = decode_record(bytes(value), NOW_MS, trust(), RULES)
    assert isinstance(event, RejectedRecord)
    assert event.rejection.outcome == "bad_signature"


def test_devices_below_an_edge_are_known_where_edges_are() -> None:
    device = signer(EDGE, Role.DEVICE, "d-1", issuer="eu")
    value = update_bytes("d-1", by=device, region=EDGE)
    assert Edge(RULES).site.append(value).outcome == "accepted"
    assert Site(state_of(RULES)).append(value).outcome == "wrong_region"
    assert Site(state_of(policy())).append(value).outcome == "bad_certificate"


def test_who_is_known_with_edges_is_unknown_without() -> None:
    known = trust()
    edge = edge_signer().certificate
    assert known.identify(edge, edges=True).role is Role.EDGE
    with pytest.raises(BadCertificateError):
        known.identify(edge)
    assert known.of_edges().identify(edge).region == EDGE


def test_control_has_no_edges() -> None:
    below = signer("control.x", Role.EDGE, "e", issuer="control")
    with pytest.raises(BadCertificateError, match="no CA is known"):
        trust().identify(below.certificate, edges=True)


def test_names_a_model_by_its_hash() -> None:
    assert published().records[-1]["model_sha256"] == sha("model 0")
