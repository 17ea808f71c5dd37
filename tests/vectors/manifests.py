"""Vectors of manifests: their values, who signed them, and documents that are none."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import rfc8785

from schemas.certificates import Role
from schemas.documents import genesis_v5, manifest_v1, manifest_v2, manifest_v3
from schemas.manifest_seals import require_sealed, sealed
from schemas.manifests import Input, Manifest, Pools, Seal, decode_manifest
from schemas.objects import sha256_hex
from tests.factories import TASK, model_sha, sha, signer
from tests.vectors.genesis import genesis_of
from tests.vectors.reading import reads
from tests.vectors.writing import document


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
        assert case["good"] == reads(decode_manifest, str(case["document"]).encode()), case
    return document(
        "manifests: their SHA-256, whether they are read, and whether a merger signed them", cases
    )


def _signed_manifests(unsigned: Manifest) -> list[dict[str, Any]]:
    """Manifests of a task of v5, by who signed what for which task."""
    genesis = genesis_of(genesis_v5.FORMAT)
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
        signed = reads(lambda read: require_sealed(decode_manifest(read), trust), data)
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
    genesis = genesis_of(genesis_v5.FORMAT)
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
        good = reads(decode_manifest, data)
        case = {"name": what, "document": data.decode(), "sha256": sha256_hex(data), "good": good}
        if good:
            signed = reads(lambda one: require_sealed(decode_manifest(one), genesis.trust), data)
            case |= {"genesis": genesis.canonical().decode(), "signed": signed}
        cases.append(case)
    assert [one["name"] for one in cases if one.get("signed")] == ["of v3"]
    return cases
