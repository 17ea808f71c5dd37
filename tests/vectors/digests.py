"""Vectors of hashes over many things: a window's contributors, and the audit's digest."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any, Final

from schemas.objects import sha256_hex
from tests.vectors.writing import document

EXPECTED: Final = Path(__file__).parents[1] / "golden" / "federation.v1" / "expected.json"


def digests() -> dict[str, Any]:
    """`contributors_sha256` of a window, and the audit's digest."""
    rows = [(3, 65536, 1.0, "first"), (4, 46341, 0.4375, "second"), (1 << 40, 1, 1e-9, "third")]
    updates = [
        {
            "offset": offset,
            "weight": weight,
            "clip": clip,
            "signature": hashlib.sha512(text.encode()).hexdigest(),
        }
        for offset, weight, clip, text in rows
    ]
    hashed = hashlib.sha256()
    for (offset, weight, clip, _), update in zip(rows, updates, strict=True):
        hashed.update(struct.pack("<qqd", offset, weight, clip))
        hashed.update(bytes.fromhex(str(update["signature"])))
    expected = json.loads(EXPECTED.read_text())
    windows = _windows_of_golden(expected)
    lines = [f"fluvial/audit/v1 {expected['genesis_sha256']}\n"]
    for one in expected["versions"][1:]:
        named = " ".join(
            one[key] for key in ("manifest_sha256", "model_sha256", "optimizer_sha256", "reference_sha256")
        )
        lines.append(f"version {one['version']} {named}\n")
    lines += [
        f"window {region} {partition} {sequence} {name}\n" for (region, partition, sequence), name in windows
    ]
    text = "".join(lines)
    assert sha256_hex(text.encode()) == expected["digest"], "the formula is not the audit's"
    cases: list[dict[str, Any]] = [
        {"kind": "contributors", "updates": [], "sha256": sha256_hex(b"")},
        {"kind": "contributors", "updates": updates, "sha256": hashed.hexdigest()},
        {"kind": "audit", "text": text, "sha256": expected["digest"]},
    ]
    return document(
        "SHA-256 over contributors, and the digest of an audit with the text that is hashed", cases
    )


def _windows_of_golden(expected: dict[str, Any]) -> list[tuple[tuple[str, int, int], str]]:
    """Every window that a version of the recorded federation holds, by region, partition and sequence."""
    store = EXPECTED.parent / "store" / expected["task"] / "versions"
    found = {}
    for one in expected["versions"][1:]:
        for named in json.loads((store / str(one["version"]) / "manifest.json").read_text())["inputs"]:
            found[named["region"], named["partition"], named["sequence"]] = named["sha256"]
    return sorted(found.items())
