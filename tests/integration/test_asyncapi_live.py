"""A short real run of a user's task, and docs/asyncapi.yaml against a hundred records of each of its topics, or all."""

from __future__ import annotations

import copy
import io
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastavro
import jsonschema
import pytest
import yaml

from backends.environment import child_environment, load_settings
from backends.kafka.reading import LogReader
from backends.log import LogRecord
from backends.tasks import read_task_file
from fluvial.local.stack import LocalStack
from schemas.topics import topics_of

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
DOCUMENT: dict[str, Any] = yaml.safe_load((ROOT / "docs" / "asyncapi.yaml").read_text())
SCHEMAS = DOCUMENT["components"]["schemas"]
EXTERNAL = {
    f"../schemas/{path.name}": json.loads(path.read_text())
    for path in (ROOT / "schemas").glob("*.schema.json")
}
RECORDS_MAX = 100
RUN_S = 480.0
REGIONS = {"eu": 1, "us": 1}


@dataclass(frozen=True)
class Run:
    """What `fluvial run` of a user's task left behind: its home, where the stack still runs, and what it said."""

    home: Path
    told: dict[str, Any]
    stderr: str


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """From `fluvial new` to the audit at the run's end, as a user types it, in a folder that is not this one."""
    folder = tmp_path_factory.mktemp("run")
    home = folder / "home"
    fluvial = [sys.executable, "-m", "fluvial.cli", "--home", str(home)]
    small = ["--devices", "8", "--versions", "4", "--regions", "eu:1,us:1", "--store", "file", "--json"]
    try:
        typed([*fluvial, "new", "mine"], folder)
        done = typed([*fluvial, "run", "mine.py", *small], folder)
        yield Run(home, json.loads(done.stdout), done.stderr)
    finally:
        LocalStack(home).down()


def typed(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command,
        cwd=folder,
        env=child_environment({"PYTHONPATH": str(ROOT)}),
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def named(reference: dict[str, str]) -> Any:
    return SCHEMAS[reference["$ref"].rpartition("/")[2]]


def header_of(schema: dict[str, Any]) -> bytes:
    """Hexadecimal digits of a fingerprint are its bytes as they stand in the header."""
    canonical = fastavro.schema.to_parsing_canonical_form(schema)
    return b"\xc3\x01" + bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))


def decoded(value: bytes, schema: dict[str, Any]) -> dict[str, Any]:
    """One record by the document's schema and nothing of the product's: single-object encoding, to the last byte."""
    parsed = fastavro.parse_schema(copy.deepcopy(schema))
    assert value.startswith(header_of(schema)), f"another schema than {schema['name']}"
    body = io.BytesIO(value[10:])
    record = fastavro.schemaless_reader(body, parsed)
    assert body.read() == b""
    assert isinstance(record, dict)
    return record


def schema_of(value: bytes, message: dict[str, Any]) -> dict[str, Any]:
    """Which of a message's versions the header names; the first where it names none."""
    schemas = [named(one)["schema"] for one in (message["payload"], *message.get("x-later", ()))]
    return next((one for one in schemas if value.startswith(header_of(one))), schemas[0])


def conforms(record: LogRecord, channel: dict[str, Any]) -> str:
    """Which of the channel's messages a record is; AssertionError or a decoder's own when it is none."""
    value, kinds = record.value or b"", list(channel["messages"])
    if kinds == ["Metrics"]:
        schema = named({"$ref": "#/components/schemas/Metrics"})
        jsonschema.validate(json.loads(value), EXTERNAL.get(schema.get("$ref", ""), schema))
        kind = "Metrics"
    elif "x-inside" in DOCUMENT["components"]["messages"][kinds[0]]:
        envelope = decoded(value, SCHEMAS["SignedEnvelope"]["schema"])
        kind = envelope["kind"]
        assert kind in kinds
        inside = DOCUMENT["components"]["messages"][kind]["x-inside"]
        decoded(envelope["payload"], schema_of(envelope["payload"], inside))
    else:
        (kind,) = kinds
        message = DOCUMENT["components"]["messages"][kind]
        decoded(value, schema_of(value, message))
    key = DOCUMENT["components"]["messages"][kind]["bindings"]["kafka"]["key"]
    jsonschema.validate(None if record.key is None else record.key.decode(), key)
    return str(kind)


def test_a_users_task_runs_from_new_to_audit(run: Run) -> None:
    assert run.told["task"] == "mine" and run.told["versions"] >= 4
    assert run.told["audit"]["identical"] is True
    assert "version 1/4  accuracy" in run.stderr


def test_the_records_of_a_real_run_are_what_the_document_says(run: Run) -> None:
    settings = load_settings(run.home)
    task = read_task_file(run.home, None).task
    seen: dict[str, set[str]] = {name: set() for name in DOCUMENT["channels"]}
    with LogReader(settings, "test-asyncapi") as reader:
        for topic in topics_of(task, REGIONS):
            name = topic.name.split(".")[2]
            channel = DOCUMENT["channels"][name]
            said = channel["bindings"]["kafka"].get("partitions", REGIONS.get(topic.name.split(".")[-1]))
            assert len(reader.partitions(topic.name)) == said
            low, high = reader.bounds(topic.name, 0)
            assert high > low, f"{topic.name} is empty"
            for record in reader.read(topic.name, 0, max(low, high - RECORDS_MAX), high):
                seen[name].add(conforms(record, channel))
    assert {"ClientUpdate", "Barrier"} <= seen["updates"]
    assert seen.pop("guides") == set(), "a task of the default policy has no guardian"
    del seen["updates"]
    assert seen == {
        "verdicts": {"Verdict"},
        "aggregates": {"RegionalAggregate"},
        "models": {"ModelAnnouncement"},
        "metrics": {"Metrics"},
    }


def test_a_record_that_is_not_what_the_document_says_is_noticed() -> None:
    record = LogRecord("fl.t.models", 0, 0, 0, b"eu", b'{"version": 1}')
    with pytest.raises(AssertionError, match="another schema than SignedEnvelope"):
        conforms(record, DOCUMENT["channels"]["models"])
    record = LogRecord("fl.t.metrics", 0, 0, 0, b"t", b'{"version": 1}')
    with pytest.raises(jsonschema.ValidationError):
        conforms(record, DOCUMENT["channels"]["metrics"])
