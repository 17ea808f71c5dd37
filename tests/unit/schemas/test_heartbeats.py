"""A heartbeat counts for the device that signed it, for this task, and for nothing else."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from aggregation.fold.rules import TASK_RULES
from schemas.certificates import Role
from schemas.heartbeats import Heartbeat, heartbeat_in, seal_heartbeat
from schemas.signing import SignatureDomain
from schemas.topics import HEARTBEAT_BYTES_MAX
from tests import factories
from tests.factories import NOW_MS, TASK

DOMAIN = SignatureDomain.of(TASK_RULES, factories.sha("genesis"))
TRUST = factories.trust(rules=TASK_RULES, domain=DOMAIN)
SIGNER = replace(factories.device_signer("d-1"), domain=DOMAIN)
BEAT = Heartbeat(TASK, "eu", "d-1", NOW_MS, 3, "waiting", "")
SCHEMA = json.loads((Path(__file__).parents[3] / "schemas" / "heartbeat.v1.schema.json").read_text())


def read(value: bytes | None, timestamp_ms: int = NOW_MS) -> Any:
    return heartbeat_in(value, timestamp_ms, TRUST, TASK, bytes_max=HEARTBEAT_BYTES_MAX)


def test_what_a_device_signed_is_read() -> None:
    value = seal_heartbeat(BEAT, SIGNER)
    beat, signer = read(value)
    assert beat == BEAT and (signer.name, signer.region) == ("d-1", "eu")
    assert len(value) < HEARTBEAT_BYTES_MAX
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(value))


def test_its_cohort_is_its_certificates() -> None:
    uris = factories.names_of("eu", Role.DEVICE, "d-1", "old")
    value = seal_heartbeat(BEAT, replace(factories.device_signer("d-1", uris=uris), domain=DOMAIN))
    assert read(value)[1].cohort == "old"


def test_every_changed_byte_is_no_heartbeat() -> None:
    value = seal_heartbeat(BEAT, SIGNER)
    for place in range(0, len(value), 7):
        changed = value[:place] + bytes([value[place] ^ 1]) + value[place + 1 :]
        assert isinstance(read(changed), str), place


ELSE = {
    "another device's name": {"device_id": "d-2"},
    "another region": {"region": "us"},
    "another task": {"task": "other"},
}


@pytest.mark.parametrize("changed", ELSE.values(), ids=ELSE.keys())
def test_a_device_speaks_for_itself_and_for_its_task(changed: dict[str, Any]) -> None:
    assert isinstance(read(seal_heartbeat(msgspec.structs.replace(BEAT, **changed), SIGNER)), str)


@pytest.mark.parametrize(
    "signer",
    [
        factories.worker_signer("d-1"),
        factories.merger_signer("d-1"),
        factories.device_signer("d-1", secret="another CA"),
        factories.device_signer("d-1", region="us"),
    ],
    ids=["a worker", "a merger", "a stranger", "of another region"],
)
def test_nobody_else_does(signer: Any) -> None:
    assert isinstance(read(seal_heartbeat(BEAT, replace(signer, domain=DOMAIN))), str)


def test_one_of_another_task_of_the_same_name_is_none() -> None:
    other = SignatureDomain.of(TASK_RULES, factories.sha("another genesis"))
    assert isinstance(read(seal_heartbeat(BEAT, replace(SIGNER, domain=other))), str)


def test_an_expired_certificate_says_nothing() -> None:
    assert isinstance(
        read(seal_heartbeat(BEAT, SIGNER), int(factories.NOT_AFTER.timestamp() * 1000) + 1), str
    )


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"{}",
        b"[]",
        b"\xff\xfe",
        b"x" * (HEARTBEAT_BYTES_MAX + 1),
        json.dumps({"certificate": "!", "heartbeat": msgspec.to_builtins(BEAT), "signature": ""}).encode(),
        json.dumps(
            {
                "certificate": base64.b64encode(b"no").decode(),
                "heartbeat": msgspec.to_builtins(BEAT),
                "signature": "",
            }
        ).encode(),
        json.dumps({"certificate": "", "heartbeat": {"state": "dead"}, "signature": ""}).encode(),
        *(
            json.dumps({"heartbeat": msgspec.to_builtins(BEAT), **texts}, ensure_ascii=False).encode()
            for texts in (
                {"certificate": "é", "signature": ""},
                {"certificate": "", "signature": "\U0001f600"},
                {"certificate": "AAAA=", "signature": "A"},
            )
        ),
        b'{"certificate":"\\ud800","heartbeat":{},"signature":""}',
    ],
)
def test_what_anybody_may_write_is_passed_over(value: bytes | None) -> None:
    assert isinstance(read(value), str)
