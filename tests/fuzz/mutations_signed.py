"""Bad records with a true signature, as only a certified device can send them: registered as those of ``mutations``."""

from __future__ import annotations

import math

from schemas import avro as codec
from schemas.envelope import ENVELOPE
from tests import factories
from tests.fuzz.mutator import LENGTHS, STALE, Moment, Mutator, long, mutation

# -- Avro that asks for too much


@mutation("undecodable")
def a_giant_or_negative_length(m: Mutator, at: Moment) -> bytes:
    return codec.schema_for(ENVELOPE).header + long(m.random.choice(LENGTHS)) + m.noise(40)


@mutation("undecodable")
def a_giant_or_negative_length_inside(m: Mutator, at: Moment) -> bytes:
    payload = codec.schema_for("ClientUpdate").header + long(m.random.choice(LENGTHS)) + m.noise(40)
    return m.device(at).signer.sign_payload("ClientUpdate", payload)


@mutation("undecodable")
def a_number_without_end(m: Mutator, at: Moment) -> bytes:
    payload = codec.schema_for("ClientUpdate").header + b"\xff" * m.random.randint(11, 5000)
    return m.device(at).signer.sign_payload("ClientUpdate", payload)


def _before_tensors(m: Mutator, at: Moment, device_id: str) -> bytes:
    """A payload up to where its tensors begin."""
    empty = codec.encode(
        "ClientUpdate", m.record(device_id, at, tensors=[]) | {"client_metrics": {}, "created_at": 0}
    )
    return empty[:-3]  # the end of the tensors, the end of the metrics, the time


@mutation("undecodable")
def a_giant_or_negative_array(m: Mutator, at: Moment) -> bytes:
    device = m.device(at)
    count = m.random.choice([value for value in LENGTHS if value > 0])
    block = m.random.choice([long(count), long(-count) + long(m.random.choice(LENGTHS))])
    return device.signer.sign_payload(
        "ClientUpdate", _before_tensors(m, at, device.device_id) + block + b"\2x"
    )


@mutation(*STALE, "wrong_layout", "undecodable")
def an_array_of_nothings(m: Mutator, at: Moment) -> bytes:
    """As many empty tensors as fit."""
    device = m.device(at)
    tensor = {"name": "", "shape": [], "scale": 0.0, "data": b""}
    record = m.record(device.device_id, at) | {"tensors": [tensor] * (m.bytes_max // 20)}
    return device.signer.sign("ClientUpdate", record)


@mutation(*STALE, "wrong_layout", "undecodable")
def a_shape_without_end(m: Mutator, at: Moment) -> bytes:
    return m.with_tensor(at, shape=[m.random.choice([0, 1, -1, 1 << 62])] * (m.bytes_max // 20))


@mutation("undecodable")
def envelopes_in_envelopes(m: Mutator, at: Moment) -> bytes:
    value, signer = m.signed(at), m.device(at).signer
    for _ in range(m.random.randint(1, 40)):
        value = signer.sign_payload(ENVELOPE, value)
    return value


@mutation("undecodable")
def text_that_is_none(m: Mutator, at: Moment) -> bytes:
    payload = codec.encode("ClientUpdate", m.record(m.device(at).device_id, at))
    return m.device(at).signer.sign_payload("ClientUpdate", payload.replace(b"u-d-", b"\xff\xfe\xc0\x80", 1))


@mutation("too_large")
def too_many_bytes(m: Mutator, at: Moment) -> bytes:
    return m.with_tensor(at, data=bytes(m.bytes_max + m.random.randrange(1 << 18)))


# -- content that is rightly signed and makes no sense


@mutation(*STALE, "not_finite")
def a_scale_that_is_no_number(m: Mutator, at: Moment) -> bytes:
    return m.with_tensor(at, scale=m.random.choice([math.nan, math.inf, -math.inf, -1.0]))


@mutation(*STALE, "not_finite")
def elements_that_are_no_numbers(m: Mutator, at: Moment) -> bytes:
    device = m.device(at)
    values = factories.delta(1, m.layout).copy()
    values[m.random.randrange(len(values))] = m.random.choice([math.nan, math.inf, -math.inf])
    tensors = factories.encoded(values, "float32", 1, m.layout)
    return device.signer.sign(
        "ClientUpdate", m.record(device.device_id, at, codec="float32", tensors=tensors)
    )


@mutation(*STALE, "norm_exceeded")
def a_scale_beyond_all_bounds(m: Mutator, at: Moment) -> bytes:
    device = m.device(at)
    record = m.record(device.device_id, at)
    for tensor in record["tensors"]:
        tensor |= {"scale": m.random.choice([1e30, 1e300, 1.7e308]), "data": b"\x7f" * len(tensor["data"])}
    return device.signer.sign("ClientUpdate", record)


@mutation(*STALE, "wrong_layout")
def another_shape(m: Mutator, at: Moment) -> bytes:
    return m.with_tensor(at, shape=m.random.choice([[2], [0], [-1], [3, 5, 1], [1 << 62]]))


@mutation(*STALE, "wrong_layout")
def data_of_another_size(m: Mutator, at: Moment) -> bytes:
    return m.with_tensor(at, data=m.random.choice([b"", b"\1" * 100]))


@mutation(*STALE, "wrong_layout")
def another_name(m: Mutator, at: Moment) -> bytes:
    return m.with_tensor(at, name=m.random.choice(["", "stranger", "x" * 10_000]))


@mutation(*STALE, "wrong_layout")
def other_tensors(m: Mutator, at: Moment) -> bytes:
    tensors = factories.encoded(factories.delta(1, m.layout), "int8", 1, m.layout)
    return m.signed(at, tensors=m.random.choice([[], tensors[:-1], tensors + tensors, tensors[::-1]]))


@mutation("wrong_layout")
def an_id_without_end(m: Mutator, at: Moment) -> bytes:
    return m.signed(at, update_id="x" * m.random.choice([65, 5000]))


@mutation("wrong_task")
def another_task(m: Mutator, at: Moment) -> bytes:
    return m.signed(at, task=m.random.choice(["", "another", "x" * 10_000, "\0"]))


@mutation("wrong_region")
def another_region(m: Mutator, at: Moment) -> bytes:
    if m.random.random() < 0.5:
        return m.signed(at, region=m.random.choice(["", "us", "x" * 10_000]))
    other = m.cast.elsewhere
    return other.signer.sign("ClientUpdate", m.record(other.device_id, at, region="us"))


@mutation("wrong_partition")
def another_partition(m: Mutator, at: Moment) -> bytes:
    other = m.random.choice([device for device in m.cast.idle if device.partition != at.partition])
    return other.signer.sign("ClientUpdate", m.record(other.device_id, at))


@mutation("future_base")
def a_base_from_the_future(m: Mutator, at: Moment) -> bytes:
    return m.signed(at, base_version=m.random.choice([at.version + 1_000_000, (1 << 63) - 1]))


@mutation("too_stale")
def a_base_below_nought(m: Mutator, at: Moment) -> bytes:
    return m.signed(at, base_version=m.random.choice([-1, -(1 << 63)]))


@mutation(*STALE, "unknown_base")
def another_model(m: Mutator, at: Moment) -> bytes:
    return m.signed(at, base_sha256=m.random.choice(["", "0" * 64, "x" * 10_000]))
