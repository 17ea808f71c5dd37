"""Vectors of where things lie: keys of the object store, and topics."""

from __future__ import annotations

from typing import Any

from schemas import objects, topics
from tests.factories import TASK, sha
from tests.vectors.writing import document


def names() -> dict[str, Any]:
    """Where things lie."""
    one = sha("an object")
    keys = {
        "object": objects.object_key(TASK, one),
        "manifest": objects.manifest_key(TASK, 12),
        "genesis": objects.manifest_key(TASK, 0),
        "model": objects.model_key(TASK, 12),
        "optimizer": objects.optimizer_key(TASK, 12),
        "facts": objects.facts_key(TASK, 12),
    }
    case = {"task": TASK, "version": 12, "sha256": one, "keys": keys, "topics": _topics(guided=False)}
    guided = case | {"guided": True, "topics": _topics(guided=True)}
    return document(
        "keys of the object store under its bucket, and topics of a task of eu[2] and us[1]", [case, guided]
    )


def _topics(*, guided: bool) -> list[dict[str, Any]]:
    return [
        {
            "topic": topic.name,
            "records": list(topic.records),
            "key": topic.key,
            "partitions": topic.partitions,
            "retention_ms": topic.retention_ms,
            "timestamp_type": topic.timestamp_type,
        }
        for topic in topics.topics_of(TASK, {"us": 1, "eu": 2}, guided=guided)
    ]
