"""Golden files: every released record version decodes for ever, and a fixed log gives the same hashes for
ever."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aggregation.fold.events import RejectedRecord
from aggregation.policy import NEWEST, policy_from_canonical
from schemas import avro as codec
from schemas.checkpoints import encode_model
from schemas.envelope import ENVELOPE, open_envelope
from schemas.objects import sha256_hex
from schemas.records import INGRESS_KINDS, authenticate, decode_record
from tests.factories import LAYOUT, NOW_MS, policy, trust
from tests.golden import make

HERE = Path(__file__).parent
RECORDS = sorted(path.name for path in HERE.glob("*.avro"))


def golden_log() -> list[bytes]:
    return [bytes.fromhex(value) for value in json.loads((HERE / "log.v1.json").read_text())]


def released() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((HERE / "hashes.v1.json").read_text())
    return found


@pytest.mark.parametrize("name", RECORDS)
def test_a_released_record_still_decodes(name: str) -> None:
    data = (HERE / name).read_bytes()
    schema, fields = codec.decode(data)
    if schema.name == ENVELOPE:
        schema, fields = codec.decode(fields["payload"])
    snake = "".join(f"_{c.lower()}" if c.isupper() else c for c in schema.name).lstrip("_")
    assert name.startswith(f"{snake}.v{schema.version}.")
    assert set(fields) == {field["name"] for field in schema.parsed["fields"]}


SIGNED = [name for name in RECORDS if codec.schema_of((HERE / name).read_bytes()).name == ENVELOPE]


@pytest.mark.parametrize("name", SIGNED)
def test_a_released_signature_still_verifies(name: str) -> None:
    data = (HERE / name).read_bytes()
    envelope = open_envelope(data)
    assert not isinstance(authenticate(envelope, NOW_MS, trust(), edges=True), RejectedRecord)
    if envelope.kind in INGRESS_KINDS:
        in_force = policy(format=NEWEST, edges={"updates_max": 9})
        assert not isinstance(decode_record(data, NOW_MS, trust(), in_force), RejectedRecord)


def test_every_released_schema_has_a_golden_record() -> None:
    golden = set()
    for name in RECORDS:
        schema, fields = codec.decode((HERE / name).read_bytes())
        golden.add((schema.name, schema.version))
        if schema.name == ENVELOPE:
            inner = codec.schema_of(fields["payload"])
            golden.add((inner.name, inner.version))
    assert golden == {(schema.name, schema.version) for schema in codec.registry().values()}


def test_the_code_still_writes_the_released_bytes() -> None:
    for name, made in make.files().items():
        assert made() == (HERE / name).read_bytes(), name


def test_the_released_log_gives_the_released_verdicts_aggregates_and_model() -> None:
    records = golden_log()
    verdicts, aggregates, _, checkpoint = make.replay(records)
    expected = released()
    assert [verdict.outcome for verdict in verdicts] == expected["outcomes"]
    assert [aggregate.sha256 for aggregate in aggregates] == expected["aggregates"]
    assert sha256_hex(encode_model(checkpoint.model, LAYOUT)) == expected["model"]
    assert make.hashes() == expected


def test_the_released_policy_still_reads() -> None:
    data = (HERE / "policy.v1.json").read_bytes()
    assert policy_from_canonical(data).canonical() == data


def test_made_files_are_never_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make, "HERE", tmp_path)
    (tmp_path / "tick.v1.avro").write_bytes(b"released")
    assert make.main() == 1
    assert (tmp_path / "tick.v1.avro").read_bytes() == b"released"
    (tmp_path / "tick.v1.avro").write_bytes((HERE / "tick.v1.avro").read_bytes())
    assert make.main() == 0
