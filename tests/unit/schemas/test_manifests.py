"""Manifests and genesis: canonical bytes, read strictly."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
import rfc8785
from cryptography.hazmat.primitives.serialization import Encoding

from aggregation.defences import Usual
from aggregation.defences.usual import norm_of_bucket
from aggregation.errors import IntegrityProblem
from schemas.manifest_inputs import input_of, next_cursors, sum_counts, usual_of
from schemas.manifests import (
    Genesis,
    Manifest,
    Pools,
    Region,
    Seal,
    TensorEntry,
    decode_genesis,
    decode_manifest,
)
from tests import naive
from tests.factories import BUFFERED, LAYOUT, aggregate, authority, entries, policy, sha


def pem(region: str) -> str:
    return authority(region).public_bytes(Encoding.PEM).decode()


def genesis() -> Genesis:
    return Genesis(
        task="digits",
        regions={"us": Region(1, pem("us")), "eu": Region(2, pem("eu"))},
        control_authority=pem("control"),
        layout=tuple(TensorEntry(spec.name, spec.shape) for spec in LAYOUT.tensors),
        policy=msgspec.json.decode(policy().canonical()),
        model_sha256=sha("model"),
        optimizer_sha256=sha("optimizer"),
    )


def manifest() -> Manifest:
    inputs = (aggregate("eu", 0, 0), aggregate("eu", 1, 0))
    return Manifest(
        task="digits",
        version=1,
        parent_sha256=sha("parent"),
        policy_sha256=policy().sha256,
        inputs=tuple(input_of(one) for one in inputs),
        cursors=next_cursors({("eu", 0): 0, ("eu", 1): 0, ("us", 0): 0}, inputs),
        counts=sum_counts(inputs),
        accepted=8,
        weight_total=8 << 16,
        staleness_total=0,
        staleness_max=0,
        update_bytes=4000,
        model_sha256=sha("model"),
        optimizer_sha256=sha("optimizer"),
        reference_sha256=sha("reference"),
        floor=0,
    )


def test_documents_survive_the_way_there_and_back() -> None:
    assert decode_genesis(genesis().canonical()).canonical() == genesis().canonical()
    assert decode_manifest(manifest().canonical()) == manifest()


def test_a_genesis_says_all_that_the_logs_meaning_depends_on() -> None:
    one = genesis()
    assert one.tensor_layout == LAYOUT
    assert one.first_policy == policy()
    assert one.slots == (("eu", 0), ("eu", 1), ("us", 0))
    assert one.partitions == {"eu": 2, "us": 1}
    assert one.authorities == {"control": pem("control"), "eu": pem("eu"), "us": pem("us")}


def test_sections_and_ranges_count_from_the_format_on_that_gave_them_a_meaning() -> None:
    """What a v2 document calls a buffer was folded as a weight, and its logs have to audit as they did."""
    newest = msgspec.structs.replace(genesis(), layout=entries(BUFFERED), format="fluvial/genesis/v3")
    assert newest.tensor_layout == BUFFERED
    plain = tuple(TensorEntry(spec.name, spec.shape, spec.section) for spec in BUFFERED.tensors)
    older = msgspec.structs.replace(genesis(), layout=plain, format="fluvial/genesis/v2")
    assert {spec.section for spec in older.tensor_layout.tensors} == {"weights"}
    assert older.tensor_layout.buffers.parameters == 0


def test_a_region_called_control_does_not_take_the_control_cas_place() -> None:
    """Regression: its CA could have vouched for mergers and operators."""
    one = msgspec.structs.replace(genesis(), regions={"control": Region(1, pem("eu"))})
    assert one.authorities == {"control": pem("control")}


def changed(document: Genesis | Manifest, **fields: Any) -> bytes:
    return rfc8785.dumps(msgspec.to_builtins(document) | fields)


BAD = {
    "nothing": b"",
    "no JSON": b"{",
    "no UTF-8": b'{"task":"\xff"}',
    "another document": b"[]",
    "an unknown key": changed(manifest(), extra=1),
    "a value of another type": changed(manifest(), version="1"),
    "a space too many": manifest().canonical().replace(b",", b", ", 1),
    "a byte too many": manifest().canonical() + b"\n",
    "a key twice": manifest().canonical().replace(b"{", b'{"version":1,', 1),
    "a number that has no canonical form": manifest()
    .canonical()
    .replace(b'"version":1', b'"version":9007199254740993'),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_refused_is_a_manifest_with(data: bytes) -> None:
    with pytest.raises(IntegrityProblem) as caught:
        decode_manifest(data)
    assert caught.value.error_id == "FLV-4102"


def test_a_missing_key_is_refused() -> None:
    with pytest.raises(IntegrityProblem):
        decode_genesis(manifest().canonical())


def test_no_changed_byte_of_a_manifest_gives_the_same_manifest() -> None:
    data = manifest().canonical()
    for position in range(len(data)):
        spoiled = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        try:
            other = decode_manifest(spoiled)
        except IntegrityProblem:
            continue
        assert other != manifest()


def test_cursors_follow_the_inputs() -> None:
    before = {("eu", 0): 3, ("eu", 1): 0, ("us", 0): 7}
    inputs = (aggregate("eu", 0, 3), aggregate("us", 0, 7), aggregate("eu", 0, 4))
    assert next_cursors(before, inputs) == {"eu": (5, 0), "us": (8,)}
    assert manifest().slot_cursors == {("eu", 0): 1, ("eu", 1): 1, ("us", 0): 0}


@pytest.mark.parametrize("sequence", [2, 4])
def test_inputs_that_do_not_continue_the_cursors_are_refused(sequence: int) -> None:
    with pytest.raises(IntegrityProblem) as caught:
        next_cursors({("eu", 0): 3}, (aggregate("eu", 0, sequence),))
    assert caught.value.error_id == "FLV-3003"


def test_counts_add_up_by_outcome() -> None:
    inputs = (aggregate("eu", 0, 0, accepted=3), aggregate("eu", 1, 0, accepted=4))
    assert sum_counts(inputs) == naive.merge_counts([one.counts for one in inputs]) == {"accepted": 7}


def manifest_v3(**changed: Any) -> Manifest:
    """A version that holds a fresh window, a late one, and one that came too late."""
    windows = tuple(aggregate("eu", partition, 0) for partition in (0, 1, 2))
    made = Manifest(
        task="digits",
        version=6,
        parent_sha256=sha("parent"),
        policy_sha256=policy().sha256,
        inputs=tuple(input_of(one, weight) for one, weight in zip(windows, (65536, 40000, 0), strict=True)),
        cursors=next_cursors(dict.fromkeys((("eu", 0), ("eu", 1), ("eu", 2)), 0), windows),
        counts=sum_counts(windows),
        accepted=8,
        weight_total=(4 << 16) + 160_000,
        staleness_total=0,
        staleness_max=0,
        update_bytes=4000,
        model_sha256=sha("model"),
        optimizer_sha256=sha("optimizer"),
        reference_sha256=sha("reference"),
        floor=0,
        dropped=4,
        usual=Pools(norms=((8200, 512), (8210, 768)), shares=((1, 3360),)),
        guide_sha256=sha("guide"),
        merger=Seal("", ""),
        format="fluvial/manifest/v3",
    )
    return msgspec.structs.replace(made, **changed)


def test_a_manifest_since_v3_says_how_late_its_windows_were_and_what_is_usual() -> None:
    one = manifest_v3()
    assert decode_manifest(one.canonical()) == one
    assert [named.is_dropped for named in one.inputs] == [False, False, True]
    assert usual_of(one) == Usual(norm_of_bucket(8210), 0, 1)
    assert usual_of(manifest()) == Usual() and not manifest().says_lateness


def test_nothing_of_it_is_left_out_of_a_signature_or_of_an_older_format_in_silence() -> None:
    one, signed = manifest_v3(), set[bytes]()
    late = msgspec.structs.replace(one.inputs[1], weight=39999)
    for changed in (
        {},
        {"dropped": 5},
        {"usual": Pools()},
        {"guide_sha256": ""},
        {"inputs": (one.inputs[0], late, one.inputs[2])},
    ):
        signed.add(manifest_v3(**changed).unsigned())
        if changed:
            older = (
                {"format": "fluvial/manifest/v2"}
                | {"dropped": 0, "usual": Pools(), "guide_sha256": ""}
                | changed
            )
            with pytest.raises(ValueError, match="cannot say how late"):
                manifest_v3(**older)
    assert len(signed) == 5


SPOILT: dict[str, dict[str, Any]] = {
    "a weight above one": {"inputs": [{"weight": 65537}]},
    "a weight below nothing": {"inputs": [{"weight": -1}]},
    "a window of no version": {"inputs": [{"version": -1}]},
    "a count of nothing": {"usual": {"norms": [[8200, 0]]}},
    "a norm that no float has": {"usual": {"norms": [[1 << 14, 1]]}},
    "a cosine above one": {"usual": {"cosines": [[65, 1]]}},
    "a share of nobody": {"usual": {"shares": [[0, 1]]}},
    "a bucket of three numbers": {"usual": {"shares": [[1, 1, 1]]}},
    "a number beyond JSON": {"dropped": 1 << 53},
    "an unknown pool": {"usual": {"moods": []}},
    "no guide": {"guide_sha256": None},
}


@pytest.mark.parametrize("spoilt", SPOILT.values(), ids=SPOILT.keys())
def test_refused_is_a_manifest_of_v3_with(spoilt: dict[str, Any]) -> None:
    document = json.loads(manifest_v3().canonical())
    for key, value in spoilt.items():
        if key == "inputs":
            document["inputs"][0] |= value[0]
        elif isinstance(value, dict):
            document[key] |= value
        else:
            document[key] = value
    data = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(IntegrityProblem) as caught:
        decode_manifest(data)
    assert caught.value.error_id == "FLV-4102"
