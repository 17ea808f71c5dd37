"""docs/asyncapi.yaml: valid, what the code says in both directions, with true examples, and never broken unawares."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any

import fastavro
import jsonschema
import pytest
import yaml

from aggregation.fold.events import RejectedRecord
from aggregation.fold.rules import TASK_RULES
from aggregation.policy import policy_from_mapping
from fluvial.documents.asyncapi import __main__ as command
from fluvial.documents.asyncapi import examples
from fluvial.documents.asyncapi.contract import breaking_changes, contract_of, differences_from_code
from fluvial.documents.asyncapi.document import build
from fluvial.documents.asyncapi.yaml_text import yaml_text
from schemas import avro as codec
from schemas.certificates import Trust
from schemas.envelope import open_envelope
from schemas.records import INGRESS_KINDS, authenticate, decode_record
from schemas.topics import topics_of

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "golden" / "asyncapi.v1.json"
TEXT = (ROOT / "docs" / "asyncapi.yaml").read_text()
DOCUMENT: dict[str, Any] = yaml.safe_load(TEXT)
SPECIFICATION = json.loads((ROOT / "tests" / "vendor" / "asyncapi" / "3.0.0.json").read_text())
EXTERNAL = {
    f"../schemas/{path.name}": json.loads(path.read_text())
    for path in (ROOT / "schemas").glob("*.schema.json")
}


def problems(document: dict[str, Any]) -> list[str]:
    found = jsonschema.Draft7Validator(SPECIFICATION).iter_errors(document)
    return [f"{error.json_path}: {error.message[:200]}" for error in found]


def changed(path: str, value: Any) -> dict[str, Any]:
    """The document with one thing planted in it (None: taken out)."""
    document = copy.deepcopy(DOCUMENT)
    *way, last = path.split("/")
    place: Any = document
    for step in way:
        place = place[int(step)] if isinstance(place, list) else place[step]
    if value is None:
        del place[int(last) if isinstance(place, list) else last]
    else:
        place[int(last) if isinstance(place, list) else last] = value
    return document


def test_the_file_is_what_the_code_says_to_the_byte() -> None:
    assert command.text() == TEXT, "run `python -m fluvial.documents.asyncapi`"
    assert command.main(["--check"]) == 0
    assert command.main(["--wrong"]) == 4


def test_a_yaml_library_reads_what_was_written() -> None:
    assert json.loads(json.dumps(build())) == DOCUMENT
    tricky = {
        "on": "no",
        "a b": [{"x": [], "y": {}}, [1, [2]], "− ü \x7f\x85"],
        "n": None,
        "f": 1e-7,
        "-": -1,
    }
    assert yaml.safe_load(yaml_text(tricky)) == tricky


def test_it_is_valid_asyncapi() -> None:
    assert problems(DOCUMENT) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("channels/models/bindings/kafka/partitions", 0),
        ("channels/models/bindings/kafka/topicConfiguration/retention.ms", "for ever"),
        ("operations/device.send.updates/action", "shout"),
        ("info/version", None),
        ("components/messages/Verdict/examples/0/value", 1),
    ],
)
def test_what_is_not_valid_asyncapi_is_noticed(path: str, value: Any) -> None:
    assert problems(changed(path, value)) != []


# -- the code, in both directions


def test_every_topic_of_the_code_is_in_the_document_and_no_other() -> None:
    """Without the generator's help: the topic table against what the file says."""
    regions = {"eu": 3, "us": 5}
    said: dict[str, Any] = {}
    for channel in DOCUMENT["channels"].values():
        names = (
            [(channel["address"].replace("{region}", region), count) for region, count in regions.items()]
            if "{region}" in channel["address"]
            else [(channel["address"], 0)]
        )
        for name, count in names:
            kafka = channel["bindings"]["kafka"]
            records = {"JSON" if one == "Metrics" else one for one in channel["messages"]}
            partitions = kafka.get("partitions", count if kafka.get("x-partitions", {}).get("of") else 0)
            configuration = {
                key: ",".join(value) if isinstance(value, list) else str(value)
                for key, value in kafka["topicConfiguration"].items()
            }
            said[name.replace("{task}", "digits")] = (partitions, channel["x-key"], records, configuration)
    in_code = {}
    for topic in topics_of("digits", regions, guided=True, heartbeats=True):
        configuration = topic.config(1)
        del configuration["max.message.bytes"]  # of the installation, not of the contract
        in_code[topic.name] = (topic.partitions, topic.key, set(topic.records), configuration)
    assert said == in_code


def test_the_document_agrees_with_the_code() -> None:
    assert differences_from_code(DOCUMENT, EXTERNAL) == []


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("channels/models/bindings/kafka/partitions", 2, "fl.{task}.models/partitions"),
        ("channels/models/x-key", "task", "fl.{task}.models/key"),
        ("channels/metrics/bindings/kafka/topicConfiguration/retention.ms", 1, "retention.ms"),
        ("channels/verdicts/bindings/kafka/topicConfiguration/cleanup.policy", ["compact"], "cleanup.policy"),
        ("channels/verdicts", None, "fl.{task}.verdicts.{region}: the document says nothing"),
        ("channels/models/address", "fl.{task}.model", "fl.{task}.model: the document says {"),
        ("components/messages/Skip/bindings/kafka/key/const", "anybody", "messages/Skip/key/const"),
        ("components/schemas/Tick/schema/fields/2/type", "int", "Tick/inside/partition"),
        ("components/schemas/Tick/schema/fields/2", None, "Tick/inside/partition: the document says nothing"),
        ("operations/worker.send.updates", None, "operations/worker.send.updates: the document says nothing"),
    ],
)
def test_one_planted_difference_turns_it_red(path: str, value: Any, complaint: str) -> None:
    found = differences_from_code(changed(path, value), EXTERNAL)
    assert any(complaint in one for one in found), found


# -- examples


def from_avro_json(value: Any, schema: Any) -> Any:
    """The inverse of ``avro_json``, by the document's own schema."""
    match schema:
        case "bytes":
            return value.encode("latin-1")
        case {"type": "record", "fields": fields}:
            return {field["name"]: from_avro_json(value[field["name"]], field["type"]) for field in fields}
        case {"type": "array", "items": items}:
            return [from_avro_json(one, items) for one in value]
        case _:
            return value


def schema_of(reference: dict[str, str]) -> Any:
    return DOCUMENT["components"]["schemas"][reference["$ref"].rpartition("/")[2]]


MESSAGES = DOCUMENT["components"]["messages"]


@pytest.mark.parametrize("name", MESSAGES)
def test_every_message_has_examples_that_are_what_they_say(name: str) -> None:
    message = MESSAGES[name]
    assert message["examples"]
    for example in message["examples"]:
        schema = schema_of(message["payload"])
        if name in {"Metrics", "Heartbeat"}:
            jsonschema.validate(example["payload"], EXTERNAL.get(schema.get("$ref", ""), schema))
            continue
        parsed = fastavro.parse_schema(copy.deepcopy(schema["schema"]))
        fields = from_avro_json(example["payload"], schema["schema"])
        body = io.BytesIO()
        fastavro.schemaless_writer(body, parsed, fields, strict=True)
        value = codec.schemas_for(schema["schema"]["name"])[0].header + body.getvalue()
        if "x-inside" not in message:
            assert codec.decode(value)[1] == fields
            continue
        envelope = open_envelope(value)
        inside = schema_of(message["x-inside"]["payload"])["schema"]
        assert envelope.kind == name
        record = from_avro_json(message["x-inside"]["example"], inside)
        assert envelope.payload == codec.encode(name, record)
        trust = Trust(examples.authorities(), TASK_RULES, examples.DOMAIN, edges=True)
        signer = authenticate(envelope, examples.TIMESTAMP_MS, trust)
        assert not isinstance(signer, RejectedRecord) and signer.role.value == message["x-signed-by"]
        if name in INGRESS_KINDS:
            event = decode_record(
                value, examples.TIMESTAMP_MS, trust, policy_from_mapping({"edges": {"updates_max": 9}})
            )
            assert not isinstance(event, RejectedRecord), event


def test_the_schemas_are_the_released_files() -> None:
    released = {}
    for path in (ROOT / "schemas" / "avsc").glob("*.avsc"):
        document, version = json.loads(path.read_text()), path.stem.rpartition(".")[2]
        released[document["name"] + ("" if version == "v1" else f".{version}")] = document
    for name, schema in DOCUMENT["components"]["schemas"].items():
        if name not in {"Metrics", "Heartbeat"}:
            assert schema["schema"] == released[name]
    in_no_topic = {"PartitionState", "PartitionState.v2", "PartitionState.v3", "Guide"}
    assert set(released) - in_no_topic == set(DOCUMENT["components"]["schemas"]) - {"Metrics", "Heartbeat"}


def test_a_message_names_every_version_of_what_is_inside() -> None:
    inside = MESSAGES["ClientUpdate"]["x-inside"]
    names = [one["$ref"].rpartition("/")[2] for one in (inside["payload"], *inside["x-later"])]
    assert names == ["ClientUpdate", "ClientUpdate.v2"]


# -- the last release


def released() -> dict[str, Any]:
    return json.loads(GOLDEN.read_text())  # type: ignore[no-any-return]


def test_nothing_that_was_released_is_broken() -> None:
    now = contract_of(DOCUMENT, EXTERNAL)
    assert breaking_changes(released(), now) == [], (
        "a new major version (fluvial.documents.asyncapi.document.VERSION)?"
    )


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("channels/aggregates", None),
        ("channels/models/x-key", "task"),
        ("channels/metrics/bindings/kafka/topicConfiguration/retention.ms", 86_400_000),
        ("channels/models/bindings/kafka/partitions", 4),
        ("components/schemas/Verdict/schema/fields/1", None),
        ("components/schemas/ClientUpdate/schema/fields/3/type", "int"),
        ("components/schemas/ClientUpdate/schema/fields/8/type/symbols", ["int8"]),
        ("components/messages/Barrier/x-signed-by", "operator"),
        ("operations/device.receive.verdicts", None),
    ],
)
def test_a_breaking_difference_needs_a_new_major_version(path: str, value: Any) -> None:
    broken = contract_of(changed(path, value), EXTERNAL)
    assert breaking_changes(released(), broken) != []
    assert breaking_changes(released(), broken | {"version": "1.9.0"}) != []
    assert breaking_changes(released(), broken | {"version": "2.0.0"}) == []


def test_what_is_added_breaks_nothing() -> None:
    document = copy.deepcopy(DOCUMENT)
    document["components"]["schemas"]["Verdict"]["schema"]["fields"].append({"name": "new", "type": "long"})
    document["channels"]["more"] = document["channels"]["models"] | {"address": "fl.{task}.more"}
    document["info"]["description"] = "other words"
    assert breaking_changes(released(), contract_of(document, EXTERNAL)) == []
