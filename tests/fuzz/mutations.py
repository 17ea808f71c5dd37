"""The ways to spoil a record: each function makes one bad record, and is registered with what it may get."""

from __future__ import annotations

from typing import Any

from aggregation.codecs import CODECS
from aggregation.fold.rejections import ACCEPTED, CONTROL
from schemas import avro as codec
from schemas.avro import HEADER_BYTES, MARKER
from schemas.envelope import ENVELOPE, Signer
from schemas.known import SINCE_POLICY_V5, WITH_EDGES
from schemas.records import CONTROL_KINDS
from tests.fuzz.mutator import STALE, UNAUTHENTIC, Moment, Mutator, mutation

# -- bytes changed after signing


@mutation(*UNAUTHENTIC)
def bit_flip(m: Mutator, at: Moment) -> bytes:
    value = bytearray(m.signed(at))
    value[m.place(value)] ^= 1 << m.random.randrange(8)
    return bytes(value)


@mutation(*UNAUTHENTIC)
def many_bit_flips(m: Mutator, at: Moment) -> bytes:
    value = bytearray(m.signed(at))
    for place in m.random.sample(range(len(value)), m.random.randint(2, 40)):
        value[place] ^= 1 << m.random.randrange(8)
    return bytes(value)


@mutation(*UNAUTHENTIC)
def overwritten(m: Mutator, at: Moment) -> bytes:
    value = bytearray(m.signed(at))
    start = m.random.randrange(len(value) - 8)
    size = m.random.randint(4, min(200, len(value) - start))
    value[start : start + size] = m.noise(size)
    return bytes(value)


@mutation("undecodable", "unknown_schema")
def truncated(m: Mutator, at: Moment) -> bytes:
    value = m.signed(at)
    return value[: m.place(value)]


@mutation("undecodable")
def extended(m: Mutator, at: Moment) -> bytes:
    return m.signed(at) + m.noise(m.random.randint(1, 500))


@mutation("undecodable")
def doubled(m: Mutator, at: Moment) -> bytes:
    return m.signed(at) * 2


@mutation(*UNAUTHENTIC)
def spliced(m: Mutator, at: Moment) -> bytes:
    one, other = m.signed(at), m.signed(at)
    cut = m.random.randint(HEADER_BYTES, min(len(one), len(other)) - 1)
    joined = one[:cut] + other[cut:]
    return joined if joined not in {one, other} else joined + b"\0"


@mutation(*UNAUTHENTIC)
def a_piece_removed(m: Mutator, at: Moment) -> bytes:
    value = m.signed(at)
    start = m.place(value)
    return value[:start] + value[start + m.random.randint(1, 64) :]


@mutation("undecodable")
def noise(m: Mutator, at: Moment) -> bytes:
    return b"\0" + m.noise(m.random.randint(1, 2000))


@mutation("undecodable")
def no_bytes(m: Mutator, at: Moment) -> bytes:
    return b""


@mutation("undecodable")
def no_value(m: Mutator, at: Moment) -> None:
    return None


@mutation("undecodable")
def a_header_and_noise(m: Mutator, at: Moment) -> bytes:
    return codec.schema_for(ENVELOPE).header + b"\xff" + m.noise(m.random.randint(0, 300))


# -- fields of one record in another


def _rewrapped(m: Mutator, at: Moment, **changed: Any) -> bytes:
    return codec.encode(ENVELOPE, m.envelope(at) | changed)


@mutation("bad_signature")
def anothers_signature(m: Mutator, at: Moment) -> bytes:
    return _rewrapped(m, at, signature=m.cast.elsewhere.signer.key.sign(m.noise(64)))


@mutation("bad_signature")
def anothers_certificate(m: Mutator, at: Moment) -> bytes:
    return _rewrapped(m, at, certificate=m.cast.loose[0].signer.certificate)


@mutation("bad_signature")
def anothers_payload(m: Mutator, at: Moment) -> bytes:
    record = m.record(m.cast.revoked.device_id, at, seed=99)
    return _rewrapped(m, at, payload=codec.encode("ClientUpdate", record))


@mutation("bad_signature")
def a_signature_of_any_length(m: Mutator, at: Moment) -> bytes:
    return _rewrapped(m, at, signature=m.noise(m.random.choice([0, 1, 63, 65, 5000])))


@mutation("undecodable")
def another_kind(m: Mutator, at: Moment) -> bytes:
    return _rewrapped(m, at, kind=m.random.choice(["Barrier", "Tick", "", "Nothing", "x" * 5000, "\u202e"]))


@mutation("unknown_schema")
def an_unknown_fingerprint(m: Mutator, at: Moment) -> bytes:
    return MARKER + b"\xee" + m.noise(7) + m.signed(at)[HEADER_BYTES:]


@mutation("unknown_schema")
def an_unknown_fingerprint_inside(m: Mutator, at: Moment) -> bytes:
    return m.device(at).signer.sign_payload("ClientUpdate", MARKER + b"\xee" + m.noise(17))


@mutation("undecodable")
def anothers_schema(m: Mutator, at: Moment) -> bytes:
    """The envelope's body under another record's fingerprint."""
    name = m.random.choice(["Barrier", "Tick", "Revoke", "ClientUpdate", "Verdict", "PartitionState"])
    return codec.schemas_for(name)[0].header + m.signed(at)[HEADER_BYTES:]


@mutation("undecodable")
def anothers_schema_inside(m: Mutator, at: Moment) -> bytes:
    """A Tick's bytes that call themselves a ClientUpdate, rightly signed."""
    body = codec.encode("Tick", _control(m, at, "Tick"))[HEADER_BYTES:]
    return m.device(at).signer.sign_payload("ClientUpdate", codec.schema_for("ClientUpdate").header + body)


@mutation(
    *STALE,
    *{"wrong_task", "wrong_layout", "bad_signature", "future_base", "unknown_base", "wrong_region"},
    *{"norm_exceeded", "anomalous", "duplicate", ACCEPTED},
)
def fields_swapped(m: Mutator, at: Moment) -> bytes:
    """A record of some fields of one update and some of another, rightly signed: it may even be a good one."""
    device, other = m.device(at, loose=True), m.device(at)
    one = m.record(device.device_id, at)
    two = m.record(
        other.device_id, at, task="another", region="us", base=at.version + m.random.choice([-1, 0, 5])
    )
    two |= {
        "codec": m.random.choice([*CODECS, "a-later-one"]),
        "base_sha256": m.random.choice([at.model_sha256, "0"]),
    }
    swapped = m.random.sample(sorted(one), m.random.randint(1, 3))
    return device.signer.sign("ClientUpdate", one | {name: two[name] for name in swapped})


# -- wrong keys


@mutation("bad_signature")
def the_wrong_key(m: Mutator, at: Moment) -> bytes:
    device = m.device(at)
    record = m.record(device.device_id, at)
    stolen = Signer(device.signer.certificate, m.cast.foreign.signer.key, device.signer.domain)
    return stolen.sign("ClientUpdate", record)


@mutation("bad_signature")
def another_devices_id(m: Mutator, at: Moment) -> bytes:
    return m.device(at).signer.sign("ClientUpdate", m.record(m.cast.revoked.device_id, at))


@mutation("bad_certificate")
def the_wrong_role(m: Mutator, at: Moment) -> bytes:
    signer = m.random.choice([m.cast.worker, m.cast.merger, m.cast.operator])
    return signer.sign("ClientUpdate", m.record(m.device(at).device_id, at))


@mutation("bad_certificate")
def a_foreign_authority(m: Mutator, at: Moment) -> bytes:
    return m.cast.foreign.signer.sign("ClientUpdate", m.record(m.cast.foreign.device_id, at))


@mutation("certificate_expired")
def an_expired_certificate(m: Mutator, at: Moment) -> bytes:
    return m.cast.expired.signer.sign("ClientUpdate", m.record(m.cast.expired.device_id, at))


@mutation("revoked")
def a_revoked_device(m: Mutator, at: Moment) -> bytes:
    return m.cast.revoked.signer.sign("ClientUpdate", m.record(m.cast.revoked.device_id, at))


@mutation("bad_certificate")
def a_certificate_of_noise(m: Mutator, at: Moment) -> bytes:
    return _rewrapped(m, at, certificate=m.noise(m.random.choice([0, 1, 300, 4096, 20_000])))


@mutation("bad_certificate")
def a_damaged_certificate(m: Mutator, at: Moment) -> bytes:
    fields = m.envelope(at)
    damaged = bytearray(fields["certificate"])
    damaged[m.place(damaged)] ^= 1 << m.random.randrange(8)
    return codec.encode(ENVELOPE, fields | {"certificate": bytes(damaged)})


# -- what was right before


@mutation(*STALE, "duplicate", "undecodable")
def replayed(m: Mutator, at: Moment) -> bytes:
    """An honest update's own bytes, again."""
    return m.random.choice(at.honest) if at.honest else b""


@mutation(CONTROL, "undecodable")
def a_replayed_control_record(m: Mutator, at: Moment) -> bytes:
    """A genuine barrier, tick or revocation, again: true, and it changes nothing."""
    return m.random.choice(at.controls) if at.controls else b""


# -- forged control records


def _control(m: Mutator, at: Moment, kind: str) -> dict[str, Any]:
    """Any record of this kind that the schema allows, for this task and partition."""
    named = {"task": m.task, "region": m.region, "partition": at.partition, "version": at.version + 1}
    return {
        name: named.get(name, _any_value(m, schema))
        for name, schema in _fields(codec.schemas_for(kind)[0].parsed)
    }


def _fields(parsed: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(one["name"], one["type"]) for one in parsed["fields"]]


def _any_value(m: Mutator, schema: Any) -> Any:
    if isinstance(schema, dict):
        match schema["type"]:
            case "enum":
                return m.random.choice(schema["symbols"])
            case "map":
                return {}
            case "array":
                return []
            case inner:
                return _any_value(m, inner)
    return {
        "string": m.random.choice(["", "0" * 64, "d-0001"]),
        "bytes": m.noise(8),
        "long": m.random.choice([0, 1, 1 << 40]),
        "int": 1,
        "double": 0.5,
        "float": 0.5,
        "boolean": True,
    }[schema]


def _control_kinds() -> list[str]:
    """The kinds of control records that an updates topic takes under a policy of any format."""
    return sorted(CONTROL_KINDS - SINCE_POLICY_V5.keys())


@mutation("bad_signature")
def a_control_record_by_a_device(m: Mutator, at: Moment) -> bytes:
    kind = m.random.choice(_control_kinds())
    return m.device(at).signer.sign(kind, _control(m, at, kind))


@mutation("unknown_schema")
def a_control_record_of_a_later_policy(m: Mutator, at: Moment) -> bytes:
    """To the policies here, which are older, whoever signed it."""
    kind, signer = (
        m.random.choice(sorted(SINCE_POLICY_V5 | WITH_EDGES)),
        m.random.choice([m.cast.operator, m.cast.worker]),
    )
    return signer.sign(kind, _control(m, at, kind))


@mutation("bad_signature")
def a_control_record_by_the_wrong_role(m: Mutator, at: Moment) -> bytes:
    kind, signer = m.random.choice(
        [
            ("Barrier", m.cast.worker),
            ("Barrier", m.cast.operator),
            ("Tick", m.cast.merger),
            ("Tick", m.cast.operator),
            ("Revoke", m.cast.worker),
            ("Revoke", m.cast.merger),
            ("Skip", m.cast.worker),
            ("Skip", m.cast.merger),
        ]
    )
    return signer.sign(kind, _control(m, at, kind))


@mutation("bad_signature")
def a_control_record_by_a_foreign_authority(m: Mutator, at: Moment) -> bytes:
    kind = m.random.choice(_control_kinds())
    return m.cast.foreign.signer.sign(kind, _control(m, at, kind))


@mutation("bad_signature")
def a_control_record_with_a_changed_byte(m: Mutator, at: Moment) -> bytes:
    kind, signer = m.random.choice(
        [
            ("Barrier", m.cast.merger),
            ("Tick", m.cast.worker),
            ("Skip", m.cast.operator),
            ("Revoke", m.cast.operator),
        ]
    )
    fields = codec.decode(signer.sign(kind, _control(m, at, kind)))[1]
    payload = bytearray(fields["payload"])
    payload[m.random.randrange(HEADER_BYTES, len(payload))] ^= 1 << m.random.randrange(8)
    return codec.encode(ENVELOPE, fields | {"payload": bytes(payload)})


@mutation("wrong_task")
def a_control_record_of_another_task(m: Mutator, at: Moment) -> bytes:
    kind, signer = m.random.choice(
        [
            ("Barrier", m.cast.merger),
            ("Tick", m.cast.worker),
            ("Skip", m.cast.operator),
            ("Revoke", m.cast.operator),
        ]
    )
    return signer.sign(kind, _control(m, at, kind) | {"task": "another"})


@mutation("wrong_partition")
def a_tick_of_another_partition(m: Mutator, at: Moment) -> bytes:
    other = m.random.choice([at.partition + 1, -1, 1 << 30])
    return m.cast.worker.sign("Tick", _control(m, at, "Tick") | {"partition": other})


@mutation("undecodable")
def a_record_of_another_topic(m: Mutator, at: Moment) -> bytes:
    kind, signer = m.random.choice(
        [
            ("ModelAnnouncement", m.cast.merger),
            ("RegionalAggregate", m.cast.worker),
            ("Verdict", m.cast.worker),
        ]
    )
    return signer.sign(kind, _control(m, at, kind))
