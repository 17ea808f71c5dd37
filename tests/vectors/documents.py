"""Vectors of documents: policies, genesis documents, manifests; names of objects and topics; the audit's digest."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import msgspec
import rfc8785

from aggregation.defences import DEFENCES
from aggregation.errors import FluvialError
from aggregation.policy import FORMATS, policy_from_canonical, policy_from_mapping
from aggregation.weights.staleness import staleness_weights
from schemas import objects, topics
from schemas.certificates import Role
from schemas.documents import (
    genesis_v1,
    genesis_v2,
    genesis_v3,
    genesis_v4,
    genesis_v5,
    manifest_v1,
    manifest_v2,
    manifest_v3,
)
from schemas.documents.reading import GENESIS_FORMATS
from schemas.manifest_seals import require_sealed, sealed
from schemas.manifests import (
    Code,
    Genesis,
    Input,
    Manifest,
    Metric,
    Model,
    Parent,
    Pools,
    Region,
    Seal,
    StoredObject,
    TensorEntry,
    decode_genesis,
    decode_manifest,
)
from schemas.objects import sha256_hex
from tests.factories import NONCE, TASK, model_sha, sha, signer
from tests.vectors.wire import authorities
from tests.vectors.writing import document

EXPECTED: Final = Path(__file__).parents[1] / "golden" / "federation.v1" / "expected.json"


def staleness() -> dict[str, Any]:
    """Weights by kind and parameters, as a policy's document carries them."""
    rows = [
        ("constant", 0.5, 4, 1.0, 3),
        ("polynomial", 0.5, 4, 1.0, 20),
        ("polynomial", 0.0, 4, 1.0, 2),
        ("polynomial", 2.0, 4, 1.0, 10),
        ("hinge", 0.5, 4, 1.0, 10),
        ("hinge", 0.5, 0, 0.25, 6),
    ]
    cases = []
    for kind, exponent, hinge_versions, hinge_slope, versions_max in rows:
        parameters = SimpleNamespace(
            exponent=exponent, hinge_versions=hinge_versions, hinge_slope=hinge_slope
        )
        cases.append(
            {
                "kind": kind,
                "exponent": exponent,
                "hinge_versions": hinge_versions,
                "hinge_slope": hinge_slope,
                "versions_max": versions_max,
                "weights": list(staleness_weights(kind, parameters, versions_max=versions_max)),
            }
        )
    return document(
        "staleness weights, units of 1/65536; a policy carries them, so no replay computes them", cases
    )


def policies() -> dict[str, Any]:
    """Policy documents, their hash, and documents that are none."""
    cases: list[dict[str, Any]] = []
    small = {"staleness": {"versions_max": 3}, "server": {"optimizer": "adam", "learning_rate": 0.01}}
    for name in FORMATS:
        made = policy_from_mapping(small, default_format=name)
        data = made.canonical()
        cases.append({"format": name, "document": data.decode(), "sha256": made.sha256, "good": True})
        text = json.loads(data)
        spoiled = {
            "an unknown key": rfc8785.dumps(text | {"windows": 1}),
            "a weight of 0": rfc8785.dumps(
                text | {"staleness": text["staleness"] | {"weights": [65536, 0, 1, 1]}}
            ),
            "a weight too few": rfc8785.dumps(
                text | {"staleness": text["staleness"] | {"weights": [65536, 1, 1]}}
            ),
            "an unknown format": rfc8785.dumps(text | {"format": "fluvial/policy/v99"}),
            "an unknown codec": rfc8785.dumps(text | {"updates": text["updates"] | {"codecs": ["int7"]}}),
            "not in canonical form": json.dumps(text).encode(),
        }
        for what, bad in spoiled.items():
            cases.append(
                {
                    "format": name,
                    "name": what,
                    "document": bad.decode(),
                    "sha256": sha256_hex(bad),
                    "good": _reads(bad),
                }
            )
    cases += _of_v3()
    return document("policies: documents, their SHA-256, and whether they are read", cases)


def _of_v3() -> list[dict[str, Any]]:
    """Documents of v3 with every defence, and with keys out of their bounds."""
    text = json.loads(policy_from_mapping({"staleness": {"versions_max": 1}}).canonical())
    changed: dict[str, dict[str, Any]] = {
        **{f"the defence {name}": {"defence": {"kind": name}} for name in DEFENCES},
        "no such defence": {"defence": {"kind": "krum"}},
        "to wait for guides": {"defence": {"guide_missing": "wait"}},
        "to do neither": {"defence": {"guide_missing": "stop"}},
        "shares off": {"shares": {"per_version": 0, "saved_max": 0}},
        "fewer saved than a version gives": {"shares": {"per_version": 3}},
        "more than eight": {"shares": {"per_version": 9, "saved_max": 9}},
        "nine refusals of eight": {"defence": {"quarantine_refusals": 9}},
        "a floor above the clip": {"defence": {"norm_clip_floor": 1.5}},
        "a cosine of 2": {"defence": {"guide_cosine_min": 2}},
        "a history that is too short": {"defence": {"history_updates": 7}},
        "seconds below 0": {"staleness": {"seconds_max": -1}},
        "late windows as a number": {"buffer": {"late_windows": 1}},
        "a section of v2": {"anomaly": {"enabled": True}},
    }
    cases = []
    for what, sections in changed.items():
        keys = {name: text.get(name, {}) | each for name, each in sections.items()}
        data = rfc8785.dumps(text | keys)
        sha256 = sha256_hex(data)
        cases.append(
            {
                "format": text["format"],
                "name": what,
                "document": data.decode(),
                "sha256": sha256,
                "good": _reads(data),
            }
        )
    return cases


def _reads(data: bytes) -> bool:
    try:
        policy_from_canonical(data)
    except FluvialError:
        return False
    return True


def _genesis(name: str) -> Genesis:
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
        made = _genesis(name)
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
        assert case["good"] == _decodes(decode_genesis, case["document"].encode()), case
    return document(
        "genesis documents: their SHA-256, which is the task's identity, and whether they are read", cases
    )


def _decodes(decode: Any, data: bytes) -> bool:
    try:
        decode(data)
    except FluvialError:
        return False
    return True


def manifests() -> dict[str, Any]:
    """A manifest by its values, its bytes and its hash."""
    inputs = tuple(
        Input(
            region,
            partition,
            sequence,
            10 * sequence,
            10 * sequence + 10,
            3,
            sha(f"sum {region}"),
            sha(region),
        )
        for region, partition, sequence in (("us", 0, 4), ("eu", 1, 0), ("eu", 0, 2))
    )
    made = Manifest(
        task=TASK,
        version=7,
        parent_sha256=sha("manifest 6"),
        policy_sha256=sha("policy"),
        inputs=inputs,
        cursors={"us": (5,), "eu": (3, 1)},
        counts={"accepted": 9, "anomalous": 1, "duplicate": 2},
        accepted=9,
        weight_total=9 * 65536 - 19195,
        staleness_total=1,
        staleness_max=1,
        update_bytes=4500,
        model_sha256=model_sha(7),
        optimizer_sha256=sha("optimizer 7"),
        reference_sha256=sha("reference 7"),
        floor=0,
    )
    data = made.canonical()
    text = json.loads(data)
    cases: list[dict[str, Any]] = [{"document": data.decode(), "sha256": sha256_hex(data), "good": True}]
    bad = {
        "not in canonical form": json.dumps(text).encode(),
        "an unknown key": rfc8785.dumps(text | {"mood": "good"}),
        "an unknown format": rfc8785.dumps(text | {"format": "fluvial/manifest/v99"}),
        "v1 with a merger": rfc8785.dumps(text | {"merger": {"certificate": "", "signature": ""}}),
        "v2 without a merger": rfc8785.dumps(text | {"format": manifest_v2.FORMAT}),
    }
    cases += [
        {"name": what, "document": one.decode(), "sha256": sha256_hex(one), "good": False}
        for what, one in bad.items()
    ]
    cases += _signed_manifests(msgspec.structs.replace(made, format=manifest_v2.FORMAT))
    cases += _manifests_of_v3(made)
    for case in cases:
        assert case["good"] == _decodes(decode_manifest, str(case["document"]).encode()), case
    return document(
        "manifests: their SHA-256, whether they are read, and whether a merger signed them", cases
    )


def _signed_manifests(unsigned: Manifest) -> list[dict[str, Any]]:
    """Manifests of a task of v5, by who signed what for which task."""
    genesis = _genesis(genesis_v5.FORMAT)
    other = msgspec.structs.replace(genesis, nonce="0" * 64)
    merger, trust = signer("control", Role.MERGER, "m-1"), genesis.trust
    good = sealed(unsigned, merger.of_task(genesis.domain))
    assert good.merger is not None
    spoiled = {
        "by its merger": good,
        "for another task": sealed(unsigned, merger.of_task(other.domain)),
        "by a worker": sealed(unsigned, signer("eu", Role.WORKER, "w-1").of_task(genesis.domain)),
        "over other keys": msgspec.structs.replace(good, floor=1),
        "by nobody": msgspec.structs.replace(good, merger=Seal("", "")),
        "not in base64": msgspec.structs.replace(good, merger=Seal(good.merger.certificate, "*")),
        "in base64 with the end of a line": msgspec.structs.replace(
            good, merger=Seal(good.merger.certificate + "\n", good.merger.signature)
        ),
        "in a format that is not its task's": msgspec.structs.replace(
            good, merger=None, format=manifest_v1.FORMAT
        ),
    }
    cases = []
    for what, one in spoiled.items():
        data = one.canonical()
        case = {"name": what, "document": data.decode(), "sha256": sha256_hex(data), "good": True}
        signed = _decodes(lambda _, one=one: require_sealed(one, trust), data)
        assert signed == (what == "by its merger"), what
        cases.append(case | {"genesis": genesis.canonical().decode(), "signed": signed})
    return cases


def _manifests_of_v3(made: Manifest) -> list[dict[str, Any]]:
    """Manifests that say lateness, what is usual and a guide; and what is none."""
    late = [(6, 3 * 65536, 65536), (3, 3 * 65536 - 19195, 32768), (0, 65536, 0)]
    inputs = tuple(
        msgspec.structs.replace(one, version=version, weight_total=weight_total, weight=weight)
        for one, (version, weight_total, weight) in zip(made.inputs, late, strict=True)
    )
    usual = Pools(
        norms=((8100, 215040), (8184, 630)), cosines=((-64, 1), (20, 215040)), shares=((1, 7), (255, 1))
    )
    unsigned = msgspec.structs.replace(
        made,
        inputs=inputs,
        accepted=6,
        dropped=3,
        weight_total=3 * 65536 + 88707,
        usual=usual,
        guide_sha256=sha("guide 6"),
        format=manifest_v3.FORMAT,
    )
    genesis = _genesis(genesis_v5.FORMAT)
    text = json.loads(
        sealed(unsigned, signer("control", Role.MERGER, "m-1").of_task(genesis.domain)).canonical()
    )
    bad: dict[str, Any] = {
        "of v3": text,
        "over another weight of an input": text
        | {"inputs": [text["inputs"][0] | {"weight": 1}, *text["inputs"][1:]]},
        "by nobody, of v3": text | {"merger": {"certificate": "", "signature": ""}},
        "an input without its weight": text
        | {"inputs": [{key: one[key] for key in one if key != "weight"} for one in text["inputs"]]},
        "v3 without what is usual": {key: text[key] for key in text if key != "usual"},
        "v2 with a guide": text | {"format": manifest_v2.FORMAT},
        "v3 without a merger": {key: text[key] for key in text if key != "merger"},
    }
    for what, key, pool in (
        ("a count of 0", "norms", [[8100, 0]]),
        ("a bucket of three", "norms", [[8100, 1, 1]]),
        ("a norm's bucket above all", "norms", [[1 << 14, 1]]),
        ("a norm's bucket below 0", "norms", [[-1, 1]]),
        ("a cosine above 1", "cosines", [[65, 1]]),
        ("a cosine below -1", "cosines", [[-65, 1]]),
        ("a share of 0", "shares", [[0, 1]]),
        ("a share of 256", "shares", [[256, 1]]),
    ):
        bad[what] = text | {"usual": text["usual"] | {key: pool}}
    for what, weight in (("a weight above 1", 65537), ("a weight below 0", -1)):
        bad[what] = text | {"inputs": [text["inputs"][0] | {"weight": weight}]}
    bad["a version below 0"] = text | {"inputs": [text["inputs"][0] | {"version": -1}]}
    cases = []
    for what, one in bad.items():
        data = rfc8785.dumps(one)
        good = _decodes(decode_manifest, data)
        case = {"name": what, "document": data.decode(), "sha256": sha256_hex(data), "good": good}
        if good:
            signed = _decodes(lambda one: require_sealed(decode_manifest(one), genesis.trust), data)
            case |= {"genesis": genesis.canonical().decode(), "signed": signed}
        cases.append(case)
    assert [one["name"] for one in cases if one.get("signed")] == ["of v3"]
    return cases


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
