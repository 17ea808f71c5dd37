"""What is read quickly is what both full readings read; of anything else it says nothing."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from aggregation.fold.rules import CANONICAL_RULES, FIRST_RULES
from schemas import avro, canonical, quick
from schemas.avro import CodecError
from schemas.envelope import read_envelope, read_update
from tests import factories

if TYPE_CHECKING:
    from collections.abc import Callable

RECORDS = 3000


def update(**fields: Any) -> dict[str, Any]:
    return factories.update_record("d-0001") | fields


def tensor(name: str = "w", shape: tuple[int, ...] = (3,), data: bytes = b"abc") -> dict[str, Any]:
    return {"name": name, "shape": list(shape), "scale": 0.5, "data": data}


ORDINARY = [
    update(),
    update(tensors=[]),
    update(tensors=[tensor(), tensor("ü" * 70, (), b"x" * 300), tensor("z", (2**40, 1, 0), b"")]),
    update(client_metrics={"cohort": 3.0, "": float("nan")}),
    update(codec="float32", base_version=2**45, num_examples=0, local_loss=float("inf")),
    update(codec="int4", tensors=[tensor(data=b"y" * 70_000)]),
]
ODD = [
    update(base_version=-1),
    update(num_examples=2**62),
    update(created_at=-1),
    update(created_at=quick.CREATED_MS_MAX + 1),
    update(tensors=[tensor(shape=(-3,))]),
    update(tensors=[tensor(shape=(1,) * quick.ITEMS_MAX)]),
    update(client_metrics={str(key): 0.0 for key in range(quick.ITEMS_MAX + 1)}),
]


def payload_of(record: dict[str, Any]) -> bytes:
    return avro.encode("ClientUpdate", record)


def view_of(payload: bytes) -> Any:
    return memoryview(payload)


def sealed(record: dict[str, Any]) -> bytes:
    return factories.device_signer("d-0001").sign_payload("ClientUpdate", payload_of(record))


def comparable(record: dict[str, Any]) -> str:
    """NaN is itself here; times are of two types, and the fold does not read them."""
    tensors = [one | {"data": bytes(one["data"])} for one in record["tensors"]]
    return repr({key: value for key, value in record.items() if key != "created_at"} | {"tensors": tensors})


def read_fully(payload: bytes) -> set[str | None]:
    """What the two readings make of a payload; None where one refuses it."""
    schema = avro.schema_of(payload)
    readings: list[Callable[[], dict[str, Any]]] = [
        lambda: canonical.decode(payload, schema),
        lambda: avro.decode(payload)[1],
    ]
    found: set[str | None] = set()
    for read in readings:
        try:
            found.add(comparable(read()))
        except CodecError:
            found.add(None)
    return found


@pytest.mark.parametrize("record", ORDINARY, ids=range(len(ORDINARY)))
def test_an_ordinary_update_is_read_as_both_read_it(record: dict[str, Any]) -> None:
    payload = payload_of(record)
    got = quick.update_in(view_of(payload), avro.schema_of(payload))
    assert got is not None
    assert {comparable(got)} == read_fully(payload)
    assert got["created_at"] == canonical.decode(payload, avro.schema_of(payload))["created_at"]
    assert all(isinstance(one["data"], memoryview) for one in got["tensors"])


@pytest.mark.parametrize("record", ODD, ids=range(len(ODD)))
def test_what_is_not_ordinary_is_left_to_them(record: dict[str, Any]) -> None:
    payload = payload_of(record)
    assert quick.update_in(view_of(payload), avro.schema_of(payload)) is None


@pytest.mark.parametrize("rules", [FIRST_RULES, CANONICAL_RULES], ids=["first", "canonical"])
@pytest.mark.parametrize("record", [ORDINARY[1], ORDINARY[2], ODD[0]], ids=["none", "some", "odd"])
def test_an_envelope_is_the_same_however_it_is_read(record: dict[str, Any], rules: Any) -> None:
    data = sealed(record)
    quickly, fully = read_update(data, rules), read_envelope(data, rules)
    assert quick.is_view(quickly.payload)
    assert (quickly.kind, quickly.schema, quickly.certificate, quickly.signature, bytes(quickly.payload)) == (
        fully.kind, fully.schema, fully.certificate, fully.signature, fully.payload,
    )  # fmt: skip
    assert comparable(quickly.open(rules).record) == comparable(fully.open(rules).record)


def spoilt(data: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, taken away, put in or made longer than they need to be."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(10, len(out)) if rng.random() < 0.9 else rng.randrange(len(out))
        match rng.randrange(5):
            case 0:
                out[at] = rng.randrange(256)
            case 1:
                del out[at]
            case 2:
                out.insert(at, rng.choice((0, 1, 2, 0x7F, 0x80, 0xFF)))
            case 3:
                out[at : at + 1] = bytes((out[at] | 0x80, 0))
            case _:
                out[at] ^= 1 << rng.randrange(8)
    return bytes(out)


def test_spoilt_payloads_are_read_as_both_read_them_or_not_at_all() -> None:
    rng = random.Random(1)
    read = 0
    payloads = [payload_of(record) for record in (*ORDINARY[:5], *ODD[:5])]
    for _ in range(RECORDS):
        payload = spoilt(rng.choice(payloads), rng)
        schema = avro.registry().get(payload[: avro.HEADER_BYTES])
        if schema is None or schema.name != "ClientUpdate":
            continue
        got = quick.update_in(view_of(payload), schema)
        if got is not None:
            read += 1
            assert {comparable(got)} == read_fully(payload)
    assert read > RECORDS // 30


@pytest.mark.parametrize("rules", [FIRST_RULES, CANONICAL_RULES], ids=["first", "canonical"])
def test_spoilt_envelopes_are_read_the_same(rules: Any) -> None:
    rng = random.Random(2)
    data = sealed(update(tensors=[]))

    def outcome(read: Any, value: bytes) -> object:
        try:
            found = read(value, rules)
        except CodecError as error:
            return error.because
        return found.kind, found.schema, bytes(found.payload), found.certificate, found.signature

    for _ in range(RECORDS):
        value = spoilt(data, rng) if rng.random() < 0.9 else data[: rng.randrange(len(data))]
        assert outcome(read_update, value) == outcome(read_envelope, value)
