"""An inspected record as text for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from backends.shown import one_line

TENSORS_SHOWN_MAX: Final = 40


def lines_of(found: dict[str, Any]) -> Iterator[str]:
    """The lines of one inspected record, as ``inspection.inspect_record`` gives it; none becomes two."""
    yield from map(one_line, _lines(found))


def _lines(found: dict[str, Any]) -> Iterator[str]:
    yield f"{found['region']}[{found['partition']}]@{found['offset']} of task {found['task']}"
    size = f"{found['bytes']} bytes   sha256 {found['sha256'][:16]}"
    yield f"  appended  {found['appended_at']}   key {found['key'] or '-'}   {size}"
    if "undecodable" in found:
        yield f"  no envelope: {found['undecodable']}"
        yield f"  begins with {found['raw_head'] or 'nothing'}"
    else:
        yield f"  kind      {found['kind']} v{found['schema_version']}, a payload of {found['payload_bytes']} bytes"
        yield from _signer(found["signer"])
        yield from _payload(found["kind"], found["payload"])
    yield from _judgement(found)


def _signer(signer: dict[str, Any]) -> Iterator[str]:
    if "certificate_problem" in signer:
        yield f"  signer    unknown: {signer['certificate_problem']}"
        return
    yield f"  signer    {signer['role']} {signer['name']} of {signer['region']}, certificate {signer['serial'][:16]}"
    validity = "valid" if signer["valid_when_appended"] else "NOT VALID"
    yield f"  validity  {signer['not_before']} to {signer['not_after']}: {validity} when it was appended"
    if not signer["role_may_sign_this"]:
        yield f"  role      a {signer['role']} may NOT sign this kind of record"
    yield f"  signature {'ok' if signer['signature_ok'] else 'WRONG'}"


def _payload(kind: str, payload: dict[str, Any]) -> Iterator[str]:
    tensors = payload.get("tensors") if kind == "ClientUpdate" else None
    for name, value in payload.items():
        if name != "tensors":
            yield f"    {name:<16} {value}"
    if tensors is None:
        return
    for tensor in tensors[:TENSORS_SHOWN_MAX]:
        norm = "not computable" if tensor["norm"] is None else f"{tensor['norm']:.6g}"
        scale = "not finite" if tensor["scale"] is None else f"{tensor['scale']:.6g}"
        yield f"    tensor {tensor['name']} {tensor['shape']}   scale {scale}   norm {norm}   {tensor['bytes']} bytes"
    if len(tensors) > TENSORS_SHOWN_MAX:
        yield f"    showing {TENSORS_SHOWN_MAX} of {len(tensors)} tensors"


def _judgement(found: dict[str, Any]) -> Iterator[str]:
    verdict = found["verdict"]
    if verdict is None:
        yield f"  verdict   none: {found['explanation']}"
        return
    error_id = f" [{found['error_id']}]" if found["error_id"] else ""
    yield f"  verdict   {verdict['outcome']}{error_id}: {found['explanation']}"
    if verdict["detail"]:
        yield f"            {verdict['detail']}"
    if verdict["staleness"] is not None:
        factors = f"weight {verdict['weight']:.4f}, clip {verdict['clip']:.4g}"
        yield f"            staleness {verdict['staleness']}, {factors}"
    if found.get("merged"):
        yield f"  merged    {found['merged']['sentence']}"
    if found["hint"]:
        yield f"  hint      {found['hint']}"
        yield f"  page      {found['page']}"
