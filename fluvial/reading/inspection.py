"""One record of an updates topic, taken apart: what it is, who signed it, what it carries, why it got its verdict."""

from __future__ import annotations

import contextlib
import datetime as dt
import math
from typing import Any, Final

import numpy as np

from aggregation.codecs import CODECS
from aggregation.fold.events import Verdict
from aggregation.fold.rejections import ACCEPTED
from aggregation.layout import Layout
from aggregation.server.aggregates import Slot
from backends.log import LogRecord
from fluvial.reading.explanations import explain
from fluvial.reading.merged import merged_at
from fluvial.reading.task_view import TaskView
from fluvial.reading.verdicts import finite, read_verdicts, verdict_document
from schemas.avro import CodecError
from schemas.certificates import BadCertificateError, Trust
from schemas.envelope import Envelope, open_envelope, read_envelope
from schemas.objects import sha256_hex
from schemas.records import SIGNERS
from schemas.topics import updates_topic

RAW_SHOWN_BYTES: Final = 64


def inspect_record(view: TaskView, slot: Slot, offset: int) -> dict[str, Any]:
    """Everything that can be said about one offset, ready for JSON. The record has to exist."""
    topic = updates_topic(view.task, slot[0])
    record = next(view.reader.read(topic, slot[1], offset, offset + 1))
    verdict = next(read_verdicts(view.reader, view.task, slot, offset, offset + 1), None)
    value = record.value or b""
    document: dict[str, Any] = {
        "task": view.task,
        "region": slot[0],
        "partition": slot[1],
        "offset": offset,
        "appended_at": iso_time(record.timestamp_ms),
        "key": (record.key or b"").decode(errors="replace") or None,
        "bytes": len(value),
        "sha256": sha256_hex(value),
    }
    return (
        document
        | content_of(record, value, view.trust, view.genesis.tensor_layout)
        | _judgement(slot, verdict)
        | {"merged": _merged(view, slot, verdict)}
    )


def _merged(view: TaskView, slot: Slot, verdict: Verdict | None) -> dict[str, Any] | None:
    """Where an accepted update counts; None for others, and while no version holds it."""
    if verdict is None or verdict.outcome != ACCEPTED:
        return None
    found = merged_at(view, slot, verdict.offset)
    return None if found is None else found.document()


def iso_time(timestamp_ms: int) -> str:
    """A time in milliseconds since 1970, as ISO 8601 UTC."""
    return dt.datetime.fromtimestamp(timestamp_ms / 1000, dt.UTC).isoformat(timespec="milliseconds")


def content_of(record: LogRecord, value: bytes, trust: Trust, layout: Layout) -> dict[str, Any]:
    """What the bytes say and who signed them; of tensors the size and the norm. ``layout`` is the task's."""
    try:
        envelope = open_envelope(value)
    except CodecError as error:
        return {"undecodable": str(error), "raw_head": value[:RAW_SHOWN_BYTES].hex()}
    return {
        "kind": envelope.kind,
        "schema_version": envelope.schema.version,
        "payload_bytes": len(envelope.payload),
        "signer": _signer(envelope, record.timestamp_ms, trust),
        "payload": _update(envelope.record, layout) if envelope.kind == "ClientUpdate" else envelope.record,
    } | _encoding(value, trust)


def _encoding(value: bytes, trust: Trust) -> dict[str, Any]:
    """Where the task's records have to be in their one encoding: what is not so in this one, None where all is."""
    if not trust.rules.canonical:
        return {}
    try:
        read_envelope(value, trust.rules).open(trust.rules)
    except CodecError as error:
        return {"not_canonical": str(error)}
    return {"not_canonical": None}


def _signer(envelope: Envelope, timestamp_ms: int, trust: Trust) -> dict[str, Any]:
    try:
        identity = trust.identify(envelope.certificate)
    except BadCertificateError as error:
        return {"certificate_problem": str(error), "certificate_sha256": sha256_hex(envelope.certificate)}
    expected = SIGNERS.get(envelope.kind)
    return {
        "region": identity.region,
        "role": identity.role.value,
        "name": identity.name,
        "serial": identity.serial,
        "not_before": iso_time(identity.not_before_ms),
        "not_after": iso_time(identity.not_after_ms),
        "valid_when_appended": identity.valid_at(timestamp_ms),
        "role_may_sign_this": identity.role is expected,
        "signature_ok": envelope.signed_by(identity.public_key, trust.domain),
    }


def _update(record: dict[str, Any], layout: Layout) -> dict[str, Any]:
    """The fields of a ClientUpdate, a tensor's elements replaced by their size and norm; ``norm`` is the weights'."""
    buffers = frozenset(layout.buffers.names)
    tensors = [
        _tensor("float32" if tensor["name"] in buffers else record["codec"], tensor)
        for tensor in record["tensors"]
    ]
    apart = buffers | frozenset(layout.control.names)
    norms = [tensor["norm"] for tensor in tensors if tensor["name"] not in apart]
    whole = math.sqrt(sum(norm * norm for norm in norms)) if None not in norms else None
    metrics = {name: finite(value) for name, value in record["client_metrics"].items()}
    return record | {
        "tensors": tensors,
        "norm": finite(whole),
        "local_loss": finite(record["local_loss"]),
        "client_metrics": metrics,
    }


def _tensor(codec: str, tensor: dict[str, Any]) -> dict[str, Any]:
    data: bytes = tensor["data"]
    norm: float | None = None
    if codec in CODECS:
        with contextlib.suppress(ValueError):  # not a whole number of elements
            levels = CODECS[codec].decode(data)
            norm = finite(abs(tensor["scale"]) * float(np.sqrt(np.sum(levels * levels))))
    return {
        "name": tensor["name"],
        "shape": list(tensor["shape"]),
        "scale": finite(tensor["scale"]),
        "bytes": len(data),
        "norm": norm,
    }


def _judgement(slot: Slot, verdict: Verdict | None) -> dict[str, Any]:
    explanation = explain(verdict.outcome, verdict.detail) if verdict else explain(None)
    return {
        "verdict": verdict_document(slot, verdict) if verdict else None,
        "explanation": explanation.sentence,
        "error_id": explanation.error_id or None,
        "hint": explanation.hint or None,
        "page": explanation.page or None,
    }
