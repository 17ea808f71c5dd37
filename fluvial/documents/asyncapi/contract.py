"""What a document promises, and how two promises differ: from the code, and from what was released.

A contract is small plain JSON: for each address its partitions, key, configuration and messages; for each message its
key and the type of each field of its payload, and of what is inside. Descriptions and examples are no promise.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from fluvial.documents.asyncapi.document import build

REGIONAL: Final = "region"


def contract_of(document: dict[str, Any], external: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the document promises; ``external`` has the files that it refers to, by the reference's text."""
    return {
        "version": document["info"]["version"],
        "topics": {
            channel["address"]: _topic(channel, document) for channel in document["channels"].values()
        },
        "messages": {
            name: _message(message, document, external or {})
            for name, message in document["components"]["messages"].items()
        },
        "operations": {
            name: {
                "action": one["action"],
                "channel": one["channel"]["$ref"],
                "messages": {_last(message): True for message in one["messages"]},
            }
            for name, one in document["operations"].items()
        },
    }


def differences_from_code(document: dict[str, Any], external: dict[str, Any] | None = None) -> list[str]:
    """What the document says otherwise than the code, in both directions; nothing when they agree."""
    said, is_so = contract_of(document, external), contract_of(build(), external)
    return [f"{path}: the document says {_show(a)}, the code {_show(b)}" for path, a, b in _walk(said, is_so)]


def breaking_changes(released: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What a reader or writer of the released contract cannot rely on any more: removed or changed, not added.

    Nothing, when the new contract's major version is higher.
    """
    if _major(now) > _major(released):
        return []
    return [
        f"{path}: released {_show(before)}, now {_show(after)}"
        for path, before, after in _walk(released, now)
        if path != "version" and before is not None
    ]


def _major(contract: dict[str, Any]) -> int:
    return int(str(contract["version"]).split(".", maxsplit=1)[0])


def _show(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value)


def _walk(one: Any, other: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """(path, value here, value there) wherever two contracts differ; None where there is nothing."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            found
            for key in sorted(one.keys() | other.keys())
            for found in _walk(one.get(key), other.get(key), f"{path}/{key}".lstrip("/"))
        ]
    return [] if one == other else [(path, one, other)]


def _last(reference: dict[str, str]) -> str:
    return reference["$ref"].rpartition("/")[2]


def _topic(channel: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    kafka = channel["bindings"]["kafka"]
    return {
        "topic": kafka["topic"],
        "partitions": kafka.get("partitions") or kafka["x-partitions"]["of"],
        "key": channel["x-key"],
        "configuration": dict(kafka["topicConfiguration"]),
        "parameters": {name: name in document["components"]["parameters"] for name in channel["parameters"]},
        "in address": dict.fromkeys(re.findall(r"{(\w+)}", channel["address"]), True),
        "messages": {_last(one): True for one in channel["messages"].values()},
    }


def _message(message: dict[str, Any], document: dict[str, Any], external: dict[str, Any]) -> dict[str, Any]:
    key = {name: one for name, one in message["bindings"]["kafka"]["key"].items() if name != "description"}
    inside = message.get("x-inside")
    return {
        "key": key,
        "signed by": message.get("x-signed-by", ""),
        "content type": message.get("contentType", document["defaultContentType"]),
        "payload": _fields(message["payload"], document, external),
        "inside": _fields(inside["payload"], document, external) if inside else {},
    }


def _fields(reference: dict[str, Any], document: dict[str, Any], external: dict[str, Any]) -> dict[str, Any]:
    """The type of every field, by name."""
    schema = document["components"]["schemas"][_last(reference)]
    if "$ref" in schema:
        schema = external[schema["$ref"]]
    if "schemaFormat" in schema:
        avro = schema["schema"]
        return {field["name"]: _avro_type(field["type"]) for field in avro["fields"]}
    return _json_fields(schema)


def _json_fields(schema: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in (schema, *schema.get("oneOf", ()), *schema.get("anyOf", ()), *schema.get("allOf", ())):
        for name, field in one.get("properties", {}).items():
            found[name] = field["type"] if "type" in field else _json_type(field["const"])
    for definition in (*schema.get("$defs", {}).values(), *schema.get("definitions", {}).values()):
        found |= _json_fields(definition)
    return found


def _json_type(value: Any) -> str:
    return "string" if isinstance(value, str) else "integer"


def _avro_type(kind: Any) -> Any:
    match kind:
        case {"type": "record", "fields": fields}:
            return {"record": {field["name"]: _avro_type(field["type"]) for field in fields}}
        case {"type": "array", "items": items}:
            return {"array": _avro_type(items)}
        case {"type": "map", "values": values}:
            return {"map": _avro_type(values)}
        case {"type": "enum", "symbols": symbols}:
            return {"enum": dict.fromkeys(symbols, True)}
        case {"type": simple, "logicalType": logical}:
            return f"{simple} {logical}"
        case _:
            return kind
