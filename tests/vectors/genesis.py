"""Vectors of genesis documents: every format, what they mean, and documents that are none."""

from __future__ import annotations

import json
from typing import Any, Final

import rfc8785

from aggregation.policy import policy_from_mapping
from schemas.documents import genesis_v1, genesis_v2, genesis_v5, genesis_v6
from schemas.documents.genesis_rules import BEFORE_V3, BEFORE_V4, BEFORE_V5
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
    if name not in BEFORE_V3:
        layout = [TensorEntry("hidden.weight", (3, 5), dtype="bfloat16"), TensorEntry("hidden.bias", (5,))]
        layout.append(TensorEntry("norm.mean", (5,), "buffers"))
        layout.append(TensorEntry("norm.var", (5,), "buffers", nonnegative=True))
        later = {
            "model": Model("torch", {"tied.weight": "hidden.weight"}, StoredObject(sha("frozen"), 1234)),
            "code": Code(sha("code"), 5678, "task.py"),
            "metric": Metric("accuracy", higher_is_better=True),
            "parent": Parent("before", sha("before"), 4, sha("manifest 4 of before")),
        }
    if name not in BEFORE_V5:
        later["nonce"] = NONCE
    if name == genesis_v6.FORMAT:
        layout += [
            TensorEntry("control:hidden.weight", (3, 5), "control"),
            TensorEntry("control:hidden.bias", (5,), "control"),
        ]
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


def layouts_refused(good: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Layouts with control variates that no task has; the good one has two weights, two buffers, two of control."""
    *others, first, second = good

    def changed(**keys: Any) -> list[dict[str, Any]]:
        return [*others, first, second | keys]

    return {
        "a control variate before the buffers": [*good[:2], first, second, *good[2:4]],
        "control variates in another order": [*others, second, first],
        "a control variate too few": [*others, first],
        "a control variate too many": [*good, second | {"name": "control:scale"}],
        "a control variate twice": [*good, second],
        "a control variate of another shape": changed(shape=[1, 5]),
        "a control variate of another name": changed(name="control:bias"),
        "a control variate of another dtype": changed(dtype="bfloat16"),
        "a control variate that may not be below 0": changed(nonnegative=True),
        "a weight that is called as control variates are": [
            good[0] | {"name": "control:x"},
            *good[1:4],
            first | {"name": "control:control:x"},
            second,
        ],
        "the same without control variates": [good[0] | {"name": "control:x"}, *good[1:4]],
        "a section that nobody knows": changed(section="momentum"),
    }


def _whole(data: bytes) -> object:
    """A document, and the layout that it describes."""
    return decode_genesis(data).tensor_layout


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
                "control": layout.control.parameters,
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
        if name not in BEFORE_V5:
            bad |= {what: rfc8785.dumps(text | {"nonce": nonce}) for what, nonce in NONCES_REFUSED.items()}
        if name not in BEFORE_V4:
            bad |= {what: rfc8785.dumps(text | {"records": rules}) for what, rules in RULES_REFUSED.items()}
        if name == genesis_v6.FORMAT:
            bad |= {
                what: rfc8785.dumps(text | {"layout": tensors})
                for what, tensors in layouts_refused(text["layout"]).items()
            }
        if name == genesis_v5.FORMAT:
            tensor = text["layout"][0] | {"name": "control:hidden.weight", "section": "control"}
            bad["control variates"] = rfc8785.dumps(text | {"layout": [*text["layout"], tensor]})
        cases += [
            {"format": name, "name": what, "document": one.decode(), "sha256": sha256_hex(one), "good": False}
            for what, one in bad.items()
        ]
    for case in cases:
        assert case["good"] == reads(_whole, case["document"].encode()), case
    return document(
        "genesis documents: their SHA-256, which is the task's identity, and whether they are read", cases
    )
