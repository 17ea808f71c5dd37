"""Vectors of genesis documents: every format, what they mean, and documents that are none."""

from __future__ import annotations

import json
from typing import Any, Final

import rfc8785

from aggregation.policy import policy_from_mapping
from schemas.documents import genesis_v1, genesis_v2, genesis_v3, genesis_v4, genesis_v5
from schemas.documents.reading import GENESIS_FORMATS
from schemas.manifests import (
    Code,
    Genesis,
    Metric,
    Model,
    Parent,
    Region,
    StoredObject,
    TensorEntry,
    decode_genesis,
)
from schemas.objects import sha256_hex
from tests.factories import NONCE, TASK, model_sha, sha
from tests.vectors.reading import reads
from tests.vectors.wire import authorities
from tests.vectors.writing import document


def genesis_of(name: str) -> Genesis:
    """A genesis document of one format, with all that the format can say."""
    pems = authorities()
    later: dict[str, Any] = {}
    layout = [
        TensorEntry("hidden.weight", (3, 5)),
        TensorEntry("hidden.bias", (5,)),
        TensorEntry("scale", ()),
    ]
    if name == genesis_v2.FORMAT:
        layout.append(TensorEntry("norm.mean", (5,), "buffers"))
    if name in {genesis_v3.FORMAT, genesis_v4.FORMAT, genesis_v5.FORMAT}:
        layout = [TensorEntry("hidden.weight", (3, 5), dtype="bfloat16"), TensorEntry("hidden.bias", (5,))]
        layout.append(TensorEntry("norm.mean", (5,), "buffers"))
        layout.append(TensorEntry("norm.var", (5,), "buffers", nonnegative=True))
        later = {
            "model": Model("torch", {"tied.weight": "hidden.weight"}, StoredObject(sha("frozen"), 1234)),
            "code": Code(sha("code"), 5678, "task.py"),
            "metric": Metric("accuracy", higher_is_better=True),
            "parent": Parent("before", sha("before"), 4, sha("manifest 4 of before")),
        }
    if name == genesis_v5.FORMAT:
        later["nonce"] = NONCE
    rules = policy_from_mapping(
        {"staleness": {"versions_max": 3}},
        default_format="fluvial/policy/v1" if name == genesis_v1.FORMAT else "fluvial/policy/v2",
    )
    return Genesis(
        task=TASK,
        regions={"us": Region(1, pems["us"]), "eu": Region(2, pems["eu"])},
        control_authority=pems["control"],
        layout=tuple(layout),
        policy=json.loads(rules.canonical()),
        model_sha256=model_sha(0),
        optimizer_sha256=sha("optimizer 0"),
        format=name,
        **later,
    )


RULES_REFUSED: Final[dict[str, Any]] = {
    "records that need not be canonical": {"canonical": False, "verdicts": 2},
    "the rules of the tasks of before": {"canonical": False, "verdicts": 1},
    "canonical as a number": {"canonical": 1, "verdicts": 2},
    "a version of verdicts that nobody knows": {"canonical": True, "verdicts": 3},
    "a rule missing": {"canonical": True},
    "a rule that nobody knows": {"canonical": True, "verdicts": 2, "mood": "good"},
    "no rules": None,
}
"""Rules of records that no task has."""
NONCES_REFUSED: Final[dict[str, Any]] = {
    "no nonce": None,
    "an empty nonce": "",
    "a nonce that is too short": NONCE[:-1],
    "a nonce that is too long": NONCE + "0",
    "a nonce in upper case": NONCE.upper(),
    "a nonce that is not hex": "g" + NONCE[1:],
    "a nonce with the end of a line": NONCE + "\n",
    "a nonce that is a number": 7,
}


def genesis() -> dict[str, Any]:
    """Genesis documents of every format, what they mean, and documents that are none."""
    cases: list[dict[str, Any]] = []
    for name in GENESIS_FORMATS:
        made = genesis_of(name)
        data = made.canonical()
        layout = made.tensor_layout
        cases.append(
            {
                "format": name,
                "document": data.decode(),
                "sha256": sha256_hex(data),
                "good": True,
                "policy_sha256": made.first_policy.sha256,
                "slots": [f"{region}[{partition}]" for region, partition in made.slots],
                "weights": layout.trainable.parameters,
                "buffers": layout.buffers.parameters,
                "sum_elements": layout.sum_elements,
                "records": {"canonical": made.rules.canonical, "verdicts": made.rules.verdicts},
            }
        )
        text = json.loads(data)
        bad = {
            "not in canonical form": json.dumps(text).encode(),
            "an unknown key": rfc8785.dumps(text | {"mood": "good"}),
            "a key missing": rfc8785.dumps(
                {key: value for key, value in text.items() if key != "model_sha256"}
            ),
            "an unknown format": rfc8785.dumps(text | {"format": "fluvial/genesis/v99"}),
        }
        if name == genesis_v5.FORMAT:
            bad |= {what: rfc8785.dumps(text | {"nonce": nonce}) for what, nonce in NONCES_REFUSED.items()}
        if name in {genesis_v4.FORMAT, genesis_v5.FORMAT}:
            bad |= {what: rfc8785.dumps(text | {"records": rules}) for what, rules in RULES_REFUSED.items()}
        cases += [
            {"format": name, "name": what, "document": one.decode(), "sha256": sha256_hex(one), "good": False}
            for what, one in bad.items()
        ]
    for case in cases:
        assert case["good"] == reads(decode_genesis, case["document"].encode()), case
    return document(
        "genesis documents: their SHA-256, which is the task's identity, and whether they are read", cases
    )
