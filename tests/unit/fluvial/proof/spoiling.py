"""Ways to spoil a federation's logs and objects, each of which the checker has to find or to bear."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import rfc8785

from fluvial.proof.checker import Acknowledged
from schemas import avro as codec
from schemas.envelope import Signer, open_envelope
from schemas.manifest_seals import sealed
from schemas.manifests import Manifest
from schemas.objects import manifest_key, object_key, sha256_hex
from schemas.topics import aggregates_topic, models_topic, updates_topic, verdicts_topic
from tests import factories

if TYPE_CHECKING:
    from tests.unit.fluvial.proof.checked_copy import Copy

EU, US = "eu", "us"


def verdicts(data: Copy) -> str:
    return verdicts_topic(data.task, US)


def verdict_at(data: Copy, number: int) -> dict[str, Any]:
    return codec.decode(data.logs[verdicts(data), 0][number][3] or b"")[1]


def drop_verdict(data: Copy) -> None:
    del data.logs[verdicts(data), 0][1]


def change_verdict(data: Copy, **changed: Any) -> None:
    data.edit(verdicts(data), 1, codec.encode("Verdict", verdict_at(data, 1) | changed))


def second_verdict(data: Copy) -> None:
    data.append(verdicts(data), codec.encode("Verdict", verdict_at(data, 1) | {"weight": 1}))


def accept_twice(data: Copy) -> None:
    data.edit(verdicts(data), 1, codec.encode("Verdict", verdict_at(data, 0) | {"offset": 1}))


def verdict_beyond(data: Copy, offset: int = 10_000) -> None:
    data.append(
        verdicts(data), codec.encode("Verdict", verdict_at(data, 1) | {"offset": offset, "device_id": "q"})
    )


def window_beyond(data: Copy) -> None:
    """What a worker signed that was made to fold what the log does not have."""
    edited_aggregate(data, -1, append=True, sequence=4, next_offset=10_000)


def lose_acknowledged(data: Copy) -> None:
    data.acknowledged.append(Acknowledged(US, 0, 10_000, "u", "d"))


def acknowledge_another(data: Copy) -> None:
    data.acknowledged[0] = replace(data.acknowledged[0], update_id="another")


def edit_manifest(data: Copy, version: int, **changed: Any) -> None:
    key = manifest_key(data.task, version)
    made = msgspec.convert(msgspec.json.decode(data.objects[key]) | changed, Manifest)
    # By a merger that lies: what nobody signed is no manifest at all.
    data.objects[key] = sealed(made, factories.merger_signer().of_task(data.domain)).canonical()


def edit_manifest_as_bytes(data: Copy, version: int, **changed: Any) -> None:
    """As ``edit_manifest``, by a merger whose code lets any value stand; None takes a key away."""
    key, signer = manifest_key(data.task, version), factories.merger_signer().of_task(data.domain)
    document = msgspec.json.decode(data.objects[key]) | changed
    document = {name: value for name, value in document.items() if name != "merger" and value is not None}
    digest = hashlib.sha256(rfc8785.dumps(document)).digest()
    signature = signer.key.sign(b"fluvial/Manifest/v2\0" + signer.domain.genesis + digest)
    texts = [base64.b64encode(part).decode() for part in (signer.certificate, signature)]
    document["merger"] = {"certificate": texts[0], "signature": texts[1]}
    data.objects[key] = rfc8785.dumps(document)


def lose_manifest(data: Copy) -> None:
    del data.objects[manifest_key(data.task, 2)]


def sign(data: Copy, kind: str, by: Signer, topic: str, **changed: Any) -> None:
    """Append a copy of a topic's newest record of a kind, changed and signed."""
    records = [open_envelope(value or b"") for _, _, _, value in data.logs[topic, 0] if value != b"junk"]
    last = [one.record for one in records if one.kind == kind][-1]
    data.append(topic, by.of_task(data.domain).sign(kind, last | changed))


def fork_in_barrier(data: Copy) -> None:
    sign(data, "Barrier", factories.merger_signer(), updates_topic(data.task, US), manifest_sha256="f" * 64)


def barrier_of_nothing(data: Copy) -> None:
    sign(data, "Barrier", factories.merger_signer(), updates_topic(data.task, US), version=9)


def fork_in_announcement(data: Copy) -> None:
    sign(
        data,
        "ModelAnnouncement",
        factories.merger_signer(),
        models_topic(data.task),
        manifest_sha256="f" * 64,
    )


def announce_nothing(data: Copy) -> None:
    sign(data, "ModelAnnouncement", factories.merger_signer(), models_topic(data.task), version=9)


def announce_early(data: Copy) -> None:
    log = data.logs[models_topic(data.task), 0]
    offset, timestamp_ms, key, value = log[-1]
    log[-1] = (offset, timestamp_ms - 3_600_000, key, value)


def gap_in_aggregates(data: Copy) -> None:
    del data.logs[aggregates_topic(data.task, US), 0][1]


def second_aggregate(data: Copy) -> None:
    edited_aggregate(data, -1, append=True, weight_total=1)


def edited_aggregate(data: Copy, at: int, *, append: bool = False, **changed: Any) -> None:
    topic = aggregates_topic(data.task, US)
    record = open_envelope(data.logs[topic, 0][at][3] or b"").record
    value = (
        factories.worker_signer("w-1", US).of_task(data.domain).sign("RegionalAggregate", record | changed)
    )
    if append:
        data.append(topic, value)
    else:
        data.edit(topic, at, value)


def named_by_aggregate(data: Copy, at: int, name: str) -> str:
    topic = aggregates_topic(data.task, US)
    return object_key(data.task, open_envelope(data.logs[topic, 0][at][3] or b"").record[name])


def flip(data: Copy, key: str) -> None:
    value = bytearray(data.objects[key])
    value[-1] ^= 1
    data.objects[key] = bytes(value)


def poor_snapshot(data: Copy) -> None:
    snapshot = codec.decode(data.objects[named_by_aggregate(data, -1, "state_sha256")])[1]
    value = codec.encode("PartitionState", snapshot | {"counted": []})
    data.objects[object_key(data.task, sha256_hex(value))] = value
    edited_aggregate(data, -1, state_sha256=sha256_hex(value))


def other_sums(data: Copy) -> None:
    value = bytearray(data.objects[named_by_aggregate(data, -1, "sum_sha256")])
    value[0] ^= 1
    data.objects[object_key(data.task, sha256_hex(bytes(value)))] = bytes(value)
    edited_aggregate(data, -1, sum_sha256=sha256_hex(bytes(value)))


def hold_twice(data: Copy) -> None:
    inputs = msgspec.json.decode(data.objects[manifest_key(data.task, 3)])["inputs"]
    edit_manifest(data, 4, inputs=inputs)


def undrained_update(data: Copy) -> None:
    data.append(updates_topic(data.task, US), b"too late")


def early_device(data: Copy) -> None:
    """An honest device's update on version 1, that stands before the barrier of version 1."""
    topic = updates_topic(data.task, US)
    (device,) = factories.devices(1, start=900)
    record = factories.update_record(device, base=1, region=US, task=data.task, update_id="early")
    data.edit(topic, 0, factories.device_signer(device, US).of_task(data.domain).sign("ClientUpdate", record))
    data.acknowledged = [Acknowledged(US, 0, 0, "early", device)]
