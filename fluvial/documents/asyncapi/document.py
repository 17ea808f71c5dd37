"""The document: from ``schemas/topics.py`` and the ``.avsc`` files to AsyncAPI 3.0 with Kafka bindings."""

from __future__ import annotations

import json
import re
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import schemas
from fluvial.documents.asyncapi.examples import METRICS, RECORDS, avro_json, envelope, heartbeat
from fluvial.local.create import PARTITIONS_MAX
from schemas import avro as codec
from schemas.envelope import ENVELOPE
from schemas.records import SIGNERS
from schemas.topics import DAY_MS, FOREVER_MS, Topic, topics_of
from schemas.vouching import HEADER

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION: Final = "1.4.0"
"""The document's own. Something removed or changed needs a new major version, something added a new minor one."""
AVRO: Final = "application/vnd.apache.avro;version=1.9.0"
BINDING: Final = "0.5.0"
METRICS_SCHEMA: Final = "metrics.v1.schema.json"
HEARTBEAT_SCHEMA: Final = "heartbeat.v1.schema.json"
IN_JSON: Final = frozenset({"JSON", "Heartbeat"})
READERS: Final = {
    "updates": ("worker", "auditor"),
    "verdicts": ("device", "operator", "auditor"),
    "aggregates": ("merger", "auditor"),
    "models": ("device", "evaluator", "auditor"),
    "guides": ("merger", "auditor"),
    "heartbeats": ("operator",),
    "metrics": ("analyst",),
}
UNSIGNED_BY: Final = {"Verdict": ("worker",), "JSON": ("evaluator",), "Heartbeat": ("device",)}
"""Who writes what stands in no signed envelope; a heartbeat has a signature of its own."""
KEYLESS: Final = {
    "Barrier": {"type": "null", "description": "None: one stands in every partition."},
    "EdgeAggregate": {"type": "string", "description": "The edge's name; it stands in its partition."},
    "Tick": {"type": "null", "description": "None: it stands in the partition whose window it closes."},
    "Revoke": {
        "type": "string",
        "description": "What is revoked; one stands in every partition of the region.",
    },
    "Skip": {"type": "string", "const": "operator"},
    "Pardon": {"type": "string", "description": "The device's id; one stands in its partition."},
}
"""What control records have for a key: they are no device's, and are put into their partition by its number."""
KEYS: Final[dict[str, dict[str, Any]]] = {
    "device_id": {
        "type": "string",
        "description": "The device's id; empty on the verdict of a record whose device is not known.",
    },
    "partition": {
        "type": "string",
        "pattern": "^[0-9]+$",
        "description": "The partition's number in decimal digits.",
    },
    "region": {"type": "string", "description": "The region's name."},
    "task": {"type": "string", "description": "The task's name."},
}
SAYS: Final = {
    "updates": "Ingress: devices' updates, and the control records that the fold obeys, in one order a partition.",
    "verdicts": "What became of each offset of the updates topic, in the partition of the same number.",
    "aggregates": "One record a closed window, in the partition of the same number; the bulk is in the object store.",
    "models": "Which version is ready for a region's devices.",
    "guides": "Guardians' announcements of guides, whose bulk is in the object store. Of tasks whose policy has "
    "`defence.kind = guide` only.",
    "heartbeats": "Devices say that they are there, for operators. Of tasks that were created with `--heartbeats` "
    "only. Nothing is folded or decided by it.",
    "metrics": "For analysts: one flat JSON object a record. Nothing here feeds the model.",
}
TRACING: Final = {
    "traceparent": {
        "type": "string",
        "description": "W3C trace context, where tracing is on.",
        "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$",
    }
}
HEADERS: Final = {
    "type": "object",
    "description": "No signature covers them and nothing is decided by them.",
    "properties": TRACING,
}


VERDICT_HEADERS: Final = {
    "type": "object",
    "description": "No verdict is another for them.",
    "properties": {
        **TRACING,
        HEADER: {
            "type": "string",
            "description": "What a worker vouches for, on some records: bytes, see schemas/README.md#heads.",
            "contentEncoding": "binary",
        },
    },
}


def topic_templates(partitions: int = 1) -> tuple[Topic, ...]:
    """The topic table with the names of its parameters in place of a task and a region."""
    return topics_of("{task}", {"{region}": partitions}, guided=True, heartbeats=True)


def channel_of(address: str) -> str:
    """``updates`` of ``fl.{task}.updates.{region}``."""
    return address.split(".")[2]


def build() -> dict[str, Any]:
    """The whole document. Equal code gives an equal document."""
    table = topic_templates()
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Fluvial's topics",
            "version": VERSION,
            "description": "Every Kafka topic of a federated learning task. All but metrics and heartbeats hold Avro's "
            "single-object encoding: C3 01, the schema's CRC-64-AVRO fingerprint, the body; signed ones in a "
            "SignedEnvelope. Bytes in examples are in Avro's JSON encoding.",
        },
        "defaultContentType": "application/avro",
        "channels": {channel_of(topic.name): _channel(topic) for topic in table},
        "operations": {name: operation for topic in table for name, operation in _operations(topic)},
        "components": {
            "messages": {
                _message_name(record): _message(record, topic) for topic in table for record in topic.records
            },
            "schemas": dict(_schemas(table)),
            "parameters": {
                "task": {"description": "The task's name.", "examples": ["digits"]},
                "region": {
                    "description": "A region of the task's genesis document.",
                    "examples": ["eu", "us"],
                },
            },
        },
    }


def _channel(topic: Topic) -> dict[str, Any]:
    name = channel_of(topic.name)
    config = topic.config(0)
    binding: dict[str, Any] = {"topic": topic.name}
    if per_region(topic):
        binding["x-partitions"] = {
            "of": "region",
            "minimum": 1,
            "maximum": PARTITIONS_MAX,
            "description": "As many as the task's genesis document says for the region; never changed.",
        }
    else:
        binding["partitions"] = topic.partitions
    binding["topicConfiguration"] = {
        "cleanup.policy": config["cleanup.policy"].split(","),
        "retention.ms": int(config["retention.ms"]),
        "retention.bytes": int(config["retention.bytes"]),
        "message.timestamp.type": config["message.timestamp.type"],
    } | {name: value for name, value in config.items() if name == "compression.type"}
    binding["bindingVersion"] = BINDING
    days = topic.retention_ms // DAY_MS
    kept = "for ever" if topic.retention_ms == FOREVER_MS else f"for {days} day{'' if days == 1 else 's'}"
    return {
        "address": topic.name,
        "description": f"{SAYS[name]} Kept {kept}.",
        "messages": {
            _message_name(one): {"$ref": f"#/components/messages/{_message_name(one)}"}
            for one in topic.records
        },
        "parameters": {
            one: {"$ref": f"#/components/parameters/{one}"} for one in re.findall(r"{(\w+)}", topic.name)
        },
        "bindings": {"kafka": binding},
        "x-key": topic.key,
    }


def per_region(topic: Topic) -> bool:
    """Whether a topic has as many partitions as its region, rather than a number of its own."""
    more = {one.name: one.partitions for one in topic_templates(topic.partitions + 1)}
    return more[topic.name] != topic.partitions


def _operations(topic: Topic) -> Iterator[tuple[str, dict[str, Any]]]:
    channel = channel_of(topic.name)
    senders: dict[str, list[str]] = {}
    for record in topic.records:
        roles = UNSIGNED_BY.get(record) or (SIGNERS[record].value,)
        for role in roles:
            senders.setdefault(role, []).append(record)
    for role, records in senders.items():
        yield f"{role}.send.{channel}", _operation("send", role, channel, records)
    for role in READERS[channel]:
        yield f"{role}.receive.{channel}", _operation("receive", role, channel, list(topic.records))


def _operation(action: str, role: str, channel: str, records: list[str]) -> dict[str, Any]:
    names = [_message_name(record) for record in records]
    verb = "writes" if action == "send" else "reads"
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": f"{'An' if role[0] in 'aeiou' else 'A'} {role} {verb} {', '.join(names)}.",
        "tags": [{"name": role}],
        "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names],
    }


def _message_name(record: str) -> str:
    return "Metrics" if record == "JSON" else record


def _message(record: str, topic: Topic) -> dict[str, Any]:
    key = KEYLESS.get(record) or KEYS[topic.key]
    message: dict[str, Any] = {
        "name": _message_name(record),
        "headers": VERDICT_HEADERS if record == "Verdict" else HEADERS,
        "bindings": {"kafka": {"key": key, "bindingVersion": BINDING}},
    }
    if record == "JSON":
        return message | {
            "summary": "One flat JSON object.",
            "contentType": "application/json",
            "payload": {"$ref": "#/components/schemas/Metrics"},
            "examples": [{"name": "evaluation", "payload": METRICS}],
        }
    if record == "Heartbeat":
        return message | {
            "summary": "A device says that it is there. Signed by the device; nothing is decided by it.",
            "contentType": "application/json",
            "payload": {"$ref": "#/components/schemas/Heartbeat"},
            "x-signed-by": "device",
            "examples": [{"name": "waiting", "payload": json.loads(heartbeat())}],
        }
    message["summary"] = _avsc(record)["doc"]
    if record in SIGNERS:
        return message | {
            "payload": {"$ref": f"#/components/schemas/{ENVELOPE}"},
            "x-signed-by": SIGNERS[record].value,
            "x-inside": {
                "payload": {"$ref": f"#/components/schemas/{record}"},
                **_later(record),
                "example": avro_json(RECORDS[record]),
            },
            "examples": [{"name": "signed", "payload": avro_json(envelope(record))}],
        }
    return message | {
        "payload": {"$ref": f"#/components/schemas/{record}"},
        **_later(record),
        "examples": [{"name": "accepted", "payload": avro_json(RECORDS[record])}],
    }


def _schemas(table: tuple[Topic, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    records = [record for topic in table for record in topic.records if record not in IN_JSON]
    for record in (ENVELOPE, *records):
        for schema in codec.schemas_for(record):
            yield _schema_name(schema), {"schemaFormat": AVRO, "schema": _avsc(record, schema.version)}
    yield "Metrics", {"$ref": f"../schemas/{METRICS_SCHEMA}"}
    yield "Heartbeat", {"$ref": f"../schemas/{HEARTBEAT_SCHEMA}"}


def _schema_name(schema: codec.Schema) -> str:
    return schema.name if schema.version == 1 else f"{schema.name}.v{schema.version}"


def _later(record: str) -> dict[str, Any]:
    """The later versions of a record: for what the first cannot hold, and in tasks whose genesis document says so."""
    later = codec.schemas_for(record)[1:]
    return (
        {"x-later": [{"$ref": f"#/components/schemas/{_schema_name(one)}"} for one in later]} if later else {}
    )


def _avsc(record: str, version: int = 1) -> dict[str, Any]:
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", record).lower()
    file = resources.files(schemas) / "avsc" / f"{name}.v{version}.avsc"
    document: dict[str, Any] = json.loads(file.read_bytes())
    return document
