"""Sealing: equal states give equal bytes, and a snapshot gives back the state that it was taken of."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from aggregation.codecs import direction_of
from aggregation.errors import IntegrityProblem
from aggregation.fold.events import Revoke, Verdict
from aggregation.fold.rules import FIRST_RULES
from aggregation.reasons import VALUE_CHARACTERS_MAX, Reason, because
from schemas import avro as codec
from schemas.checkpoints import decode_sums
from schemas.objects import facts_key, manifest_key, model_key, object_key, optimizer_key, sha256_hex
from schemas.verdicts import DETAIL_MAX, decode_verdict
from schemas.windows import (
    EncodedWindow,
    aggregate_of,
    encode_state,
    encode_window,
    restore_state,
    state_names,
)
from tests.factories import (
    LAYOUT,
    TASK,
    Site,
    barrier,
    delta,
    devices,
    policy,
    snapshot,
    state_of,
    update,
    verdict_bytes,
)

RULES = policy(window={"updates_max": 5})
REFERENCE = direction_of(delta(3).astype(np.float64), LAYOUT)


def encoded(order: int = 1) -> tuple[Site, EncodedWindow]:
    """A site whose window has just closed; ``order`` -1 feeds the updates backwards."""
    site = Site(state_of(RULES))
    for name in ["b", "a"][::order]:
        site.fold(Revoke(TASK, name, "", "lost"))
    site.fold(barrier(1, RULES, REFERENCE))
    for number, name in enumerate(devices(5)):
        site.fold(update(name, base=number % 2, seed=number))
    return site, encode_window(site.state, site.closed[-1])


def test_the_payload_names_what_is_stored_under_its_hash() -> None:
    site, one = encoded()
    assert {sha256_hex(data) for data in one.objects.values()} == set(one.objects)
    assert one.aggregate.state_sha256 in one.objects
    assert site.closed[-1].sums is not None
    assert (
        decode_sums(one.objects[one.aggregate.sum_sha256], LAYOUT).tobytes() == site.closed[-1].sums.tobytes()
    )
    assert one.aggregate.sha256 == sha256_hex(one.payload)


def test_an_aggregate_is_read_back_as_it_was_sealed() -> None:
    _, one = encoded()
    _, record = codec.decode(one.payload)
    assert aggregate_of(record, one.payload) == one.aggregate


def test_equal_states_give_equal_bytes_whatever_the_sets_order() -> None:
    assert encode_state(encoded(1)[0].state) == encode_state(encoded(-1)[0].state)


def test_aggregates_form_a_chain() -> None:
    site, first = encoded()
    for name in devices(5, start=50):
        site.fold(update(name, base=1))
    second = encode_window(site.state, site.closed[-1])
    assert first.aggregate.previous_sha256 == ""
    assert second.aggregate.previous_sha256 == first.aggregate.sha256
    assert second.aggregate.first_offset == first.aggregate.next_offset


def test_a_snapshot_gives_back_the_state() -> None:
    site, one = encoded()
    data = one.objects[one.aggregate.state_sha256]
    policy_sha256, reference_sha256, _ = state_names(data)
    assert policy_sha256 == RULES.sha256
    assert reference_sha256 == site.state.reference_sha256
    again = restore_state(data, one.aggregate, partitions=1, layout=LAYOUT, policy=RULES, reference=REFERENCE)
    again.validate()
    assert snapshot(again) == snapshot(site.state)
    assert encode_state(again) == data


def test_a_snapshot_of_another_window_is_refused() -> None:
    _, one = encoded()
    data = one.objects[one.aggregate.state_sha256]
    for changed in ({"next_offset": 3}, {"partition": 1}, {"region": "us"}):
        wrong = dataclasses.replace(one.aggregate, **changed)
        with pytest.raises(IntegrityProblem) as caught:
            restore_state(data, wrong, partitions=1, layout=LAYOUT, policy=RULES, reference=REFERENCE)
        assert caught.value.error_id == "FLV-3005"


@pytest.mark.parametrize("data", [b"", b"\xc3\x01" + bytes(20), verdict_bytes(Verdict(0, "accepted"))])
def test_bytes_that_are_no_snapshot_are_refused(data: bytes) -> None:
    with pytest.raises(IntegrityProblem) as caught:
        state_names(data)
    assert caught.value.error_id == "FLV-3005"


def test_a_window_that_accepted_nothing_has_no_sums() -> None:
    site = Site(state_of(policy(window={"updates_max": 1, "records_max": 1})))
    site.append(None)
    one = encode_window(site.state, site.closed[0])
    assert one.aggregate.sum_sha256 == ""
    assert set(one.objects) == {one.aggregate.state_sha256}
    assert one.aggregate.counts == {"undecodable": 1}


def test_a_verdict_survives_and_its_detail_is_cut() -> None:
    site, _ = encoded()
    for verdict in site.verdicts:
        assert decode_verdict(verdict_bytes(verdict)) == verdict
    long = Verdict(7, "wrong_task", because(Reason.CONTROL_OF_ANOTHER_TASK, "x" * 10_000))
    assert decode_verdict(verdict_bytes(long)).because.values == ("x" * VALUE_CHARACTERS_MAX,)
    assert len(decode_verdict(verdict_bytes(long, FIRST_RULES)).detail) == DETAIL_MAX


def test_another_record_is_not_a_verdict() -> None:
    with pytest.raises(codec.CodecError):
        decode_verdict(encode_state(state_of()))


def test_objects_lie_under_their_hashes_and_versions_under_their_numbers() -> None:
    sha = "ab" * 32
    assert object_key("t", sha) == f"t/objects/ab/{sha}"
    assert [make("t", 7) for make in (manifest_key, model_key, optimizer_key, facts_key)] == [
        "t/versions/7/manifest.json",
        "t/versions/7/model.safetensors",
        "t/versions/7/optimizer.safetensors",
        "t/versions/7/facts.json",
    ]
