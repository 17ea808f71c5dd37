"""Formats of genesis documents and manifests: what each can say, and that an older one loses nothing in silence."""

from __future__ import annotations

import json
from typing import Any, Literal

import msgspec
import pytest
import rfc8785

from aggregation.errors import IntegrityProblem
from aggregation.fold.rules import CANONICAL_RULES, FIRST_RULES, TASK_RULES, RecordRules
from aggregation.policy import FORMATS, policy_from_mapping
from fluvial.proof.checker.task import Damaged, task_of
from schemas.manifests import (
    Code,
    Genesis,
    Metric,
    Model,
    Parent,
    Records,
    StoredObject,
    TensorEntry,
    decode_genesis,
    decode_manifest,
)
from schemas.objects import sha256_hex
from schemas.signing import FIRST_DOMAIN, SignatureDomain
from tests.factories import sha
from tests.unit.schemas.test_manifests import genesis, manifest
from tests.vectors.genesis import NONCES_REFUSED, RULES_REFUSED


def with_sections() -> Genesis:
    first, *others = genesis().layout
    layout = (*others, TensorEntry(first.name, first.shape, "buffers"))
    return msgspec.structs.replace(genesis(), layout=layout, format="fluvial/genesis/v2")


def with_everything() -> Genesis:
    first, *others = with_sections().layout
    return msgspec.structs.replace(
        with_sections(),
        layout=(msgspec.structs.replace(first, dtype="bfloat16", nonnegative=True), *others),
        model=Model(kind="torch", tied={"head": first.name}, frozen=StoredObject("ab" * 32, 7)),
        code=Code("cd" * 32, 12, "mine.py"),
        metric=Metric("mae", higher_is_better=False),
        parent=Parent("older", "ef" * 32, 3, "01" * 32),
        format="fluvial/genesis/v3",
    )


def test_a_v1_genesis_says_no_section_and_nothing_of_later_formats() -> None:
    document = json.loads(genesis().canonical())
    assert document["format"] == "fluvial/genesis/v1"
    assert set(document["layout"][0]) == {"name", "shape"}
    assert not {"model", "code", "metric", "parent"} & set(document)


def test_a_task_with_buffers_has_a_v2_genesis_that_names_every_tensors_section() -> None:
    one = with_sections()
    document = json.loads(one.canonical())
    assert document["format"] == "fluvial/genesis/v2"
    assert [tensor["section"] for tensor in document["layout"]][-1] == "buffers"
    assert decode_genesis(one.canonical()) == one


def test_a_v1_genesis_never_loses_a_section_in_silence() -> None:
    with pytest.raises(ValueError, match="fluvial/genesis/v1 has no sections but weights"):
        msgspec.structs.replace(with_sections(), format="fluvial/genesis/v1").canonical()
    with pytest.raises(ValueError, match="has no sections"):
        Genesis(
            **{name: getattr(with_sections(), name) for name in Genesis.__struct_fields__ if name != "format"}
        )


def test_a_v3_genesis_says_what_else_the_task_is_made_of() -> None:
    one = with_everything()
    assert decode_genesis(one.canonical()) == one
    plain = msgspec.structs.replace(genesis(), format="fluvial/genesis/v3")
    document = json.loads(plain.canonical())
    assert document["model"] == {"kind": "torch", "tied": {}, "frozen": None}
    assert (document["code"], document["metric"], document["parent"]) == (None, None, None)
    assert decode_genesis(plain.canonical()) == plain


@pytest.mark.parametrize("key", ["model", "code", "metric", "parent"])
@pytest.mark.parametrize("older", ["fluvial/genesis/v1", "fluvial/genesis/v2"])
def test_an_older_genesis_never_loses_a_key_of_v3_in_silence(older: str, key: str) -> None:
    with pytest.raises(ValueError, match=f"{older} cannot say {key}: fluvial/genesis/v5 can"):
        msgspec.structs.replace(genesis(), format=older, **{key: getattr(with_everything(), key)}).canonical()


def test_a_v4_genesis_says_which_rules_hold_for_records_and_the_first_hold_before() -> None:
    one = msgspec.structs.replace(with_everything(), format="fluvial/genesis/v4")
    document = json.loads(one.canonical())
    assert document["records"] == {"canonical": True, "verdicts": 2}
    read = decode_genesis(one.canonical())
    assert (read.rules, read.trust.rules) == (CANONICAL_RULES, CANONICAL_RULES)
    assert read.canonical() == one.canonical()
    for records in (Records(verdicts=1), Records()):
        said = msgspec.structs.replace(one, records=records)
        assert decode_genesis(said.canonical()).rules == RecordRules(
            canonical=True, verdicts=records.verdicts
        )
    for older in (genesis(), with_sections(), with_everything()):
        assert (older.rules, decode_genesis(older.canonical()).trust.rules) == (FIRST_RULES, FIRST_RULES)
        with pytest.raises(ValueError, match="cannot say records: fluvial/genesis/v5 can"):
            msgspec.structs.replace(older, records=Records()).canonical()


@pytest.mark.parametrize("verdicts", [1, 2])
def test_no_v4_genesis_has_records_that_need_not_be_canonical(verdicts: Literal[1, 2]) -> None:
    one = msgspec.structs.replace(with_everything(), format="fluvial/genesis/v4")
    with pytest.raises(ValueError, match=r"no records\.canonical but true: set it"):
        msgspec.structs.replace(one, records=Records(canonical=False, verdicts=verdicts))
    document = json.loads(one.canonical()) | {"records": {"canonical": False, "verdicts": verdicts}}
    with pytest.raises(IntegrityProblem, match=r"no records\.canonical but true: set it") as caught:
        decode_genesis(rfc8785.dumps(document))
    assert caught.value.error_id == "FLV-4102"


def test_a_v5_genesis_has_a_nonce_and_what_is_signed_names_the_document() -> None:
    one = msgspec.structs.replace(with_everything(), format="fluvial/genesis/v5", nonce=sha("nonce"))
    document = json.loads(one.canonical())
    assert (document["nonce"], document["records"]) == (sha("nonce"), {"canonical": True, "verdicts": 2})
    read = decode_genesis(one.canonical())
    assert (read.canonical(), read.rules, read.trust.rules) == (one.canonical(), TASK_RULES, TASK_RULES)
    assert read.domain == read.trust.domain == SignatureDomain(2, bytes.fromhex(sha256_hex(one.canonical())))
    other = msgspec.structs.replace(one, nonce=sha("another nonce"))
    assert other.domain != one.domain
    for older in (*(replace_format(one, number) for number in (3, 4)), with_sections(), genesis()):
        assert (older.domain, older.trust.domain) == (FIRST_DOMAIN, FIRST_DOMAIN)
        with pytest.raises(ValueError, match="cannot say nonce: fluvial/genesis/v5 can"):
            msgspec.structs.replace(older, nonce=sha("nonce"))


def replace_format(one: Genesis, number: int) -> Genesis:
    records = one.records if number > 3 else None
    return msgspec.structs.replace(one, format=f"fluvial/genesis/v{number}", nonce=None, records=records)


@pytest.mark.parametrize("nonce", NONCES_REFUSED.values(), ids=NONCES_REFUSED.keys())
def test_a_nonce_that_is_none_is_refused(nonce: Any) -> None:
    one = msgspec.structs.replace(with_everything(), format="fluvial/genesis/v5", nonce=sha("nonce"))
    with pytest.raises(IntegrityProblem) as caught:
        decode_genesis(rfc8785.dumps(json.loads(one.canonical()) | {"nonce": nonce}))
    assert caught.value.error_id == "FLV-4102"
    with pytest.raises(Damaged, match="nonce"):
        task_of(rfc8785.dumps(json.loads(one.canonical()) | {"nonce": nonce}))


@pytest.mark.parametrize("records", RULES_REFUSED.values(), ids=RULES_REFUSED.keys())
def test_rules_of_records_that_nobody_knows_are_refused(records: Any) -> None:
    one = msgspec.structs.replace(with_everything(), format="fluvial/genesis/v4")
    document = json.loads(one.canonical()) | {"records": records}
    with pytest.raises(IntegrityProblem) as caught:
        decode_genesis(rfc8785.dumps(document))
    assert caught.value.error_id == "FLV-4102"
    with pytest.raises(Damaged, match="rules of records"):
        task_of(rfc8785.dumps(document))


@pytest.mark.parametrize("more", [{"dtype": "bfloat16"}, {"nonnegative": True}])
def test_an_older_genesis_never_loses_what_v3_says_of_a_tensor_in_silence(more: dict[str, Any]) -> None:
    first, *others = genesis().layout
    with pytest.raises(ValueError, match="cannot say a tensor's dtype or range"):
        msgspec.structs.replace(
            genesis(), layout=(msgspec.structs.replace(first, **more), *others)
        ).canonical()


def test_a_genesis_holds_a_policy_of_any_format() -> None:
    for name in FORMATS:
        rules = policy_from_mapping({}, default_format=name)
        one = msgspec.structs.replace(genesis(), policy=json.loads(rules.canonical()))
        assert decode_genesis(one.canonical()).first_policy == rules


GENESIS_V2, GENESIS_V3 = json.loads(with_sections().canonical()), json.loads(with_everything().canonical())
GENESIS, MANIFEST = json.loads(genesis().canonical()), json.loads(manifest().canonical())
BAD = {
    "an unknown genesis format": (decode_genesis, GENESIS | {"format": "fluvial/genesis/v9"}),
    "a manifest's format in a genesis": (decode_genesis, GENESIS | {"format": "fluvial/manifest/v1"}),
    "a genesis without a format": (decode_genesis, {k: v for k, v in GENESIS.items() if k != "format"}),
    "a v1 genesis with sections": (
        decode_genesis,
        GENESIS | {"layout": [one | {"section": "weights"} for one in GENESIS["layout"]]},
    ),
    "a v2 genesis without sections": (decode_genesis, GENESIS | {"format": "fluvial/genesis/v2"}),
    "a v2 genesis with an unknown section": (
        decode_genesis,
        GENESIS
        | {
            "format": "fluvial/genesis/v2",
            "layout": [one | {"section": "attic"} for one in GENESIS["layout"]],
        },
    ),
    "a v2 genesis with a key of v3": (decode_genesis, GENESIS_V2 | {"metric": None}),
    "a v3 genesis without a metric": (
        decode_genesis,
        {key: value for key, value in GENESIS_V3.items() if key != "metric"},
    ),
    "a v3 genesis with an unknown dtype": (
        decode_genesis,
        GENESIS_V3 | {"layout": [one | {"dtype": "int8"} for one in GENESIS_V3["layout"]]},
    ),
    "a genesis of another version": (decode_genesis, GENESIS | {"version": 1}),
    "an unknown manifest format": (decode_manifest, MANIFEST | {"format": "fluvial/manifest/v9"}),
    "a v1 manifest that says it is v2": (decode_manifest, MANIFEST | {"format": "fluvial/manifest/v2"}),
    "a v1 manifest that says it is v3": (decode_manifest, MANIFEST | {"format": "fluvial/manifest/v3"}),
    "a v1 manifest with a key of v3": (decode_manifest, MANIFEST | {"dropped": 0}),
    "a genesis' format in a manifest": (decode_manifest, MANIFEST | {"format": "fluvial/genesis/v1"}),
}


@pytest.mark.parametrize(("decode", "document"), BAD.values(), ids=BAD.keys())
def test_a_document_is_refused_that_is(decode: Any, document: dict[str, Any]) -> None:
    with pytest.raises(IntegrityProblem) as caught:
        decode(rfc8785.dumps(document))
    assert caught.value.error_id == "FLV-4102"


def test_a_document_with_two_formats_is_refused() -> None:
    for decode, data in ((decode_genesis, genesis().canonical()), (decode_manifest, manifest().canonical())):
        twice = data.replace(b'"format"', b'"format":"fluvial/genesis/v1","format"', 1)
        with pytest.raises(IntegrityProblem, match="two formats"):
            decode(twice)


def with_control(number: int = 6) -> Genesis:
    """A genesis whose first tensor has a control variate beside it; of the others nothing is learned."""
    first = genesis().layout[0]
    entries = (
        TensorEntry(first.name, first.shape),
        TensorEntry("mean", (2,), "buffers"),
        TensorEntry(f"control:{first.name}", first.shape, "control"),
    )
    format_name = f"fluvial/genesis/v{number}"
    return msgspec.structs.replace(genesis(), layout=entries, format=format_name, nonce=sha("nonce"))


def test_a_v6_genesis_may_have_control_variates_and_is_else_as_v5() -> None:
    one = with_control()
    document = json.loads(one.canonical())
    assert document["format"] == "fluvial/genesis/v6"
    assert [tensor["section"] for tensor in document["layout"]] == ["weights", "buffers", "control"]
    read = decode_genesis(one.canonical())
    assert (read, read.rules) == (one, TASK_RULES)
    assert read.tensor_layout.control.parameters == read.tensor_layout.trainable.parameters
    assert set(document) == set(json.loads(replace_format_of_v5().canonical()))


def replace_format_of_v5() -> Genesis:
    return msgspec.structs.replace(with_everything(), format="fluvial/genesis/v5", nonce=sha("nonce"))


@pytest.mark.parametrize("number", [3, 4, 5])
def test_no_older_genesis_has_control_variates(number: int) -> None:
    with pytest.raises(ValueError, match=f"genesis/v{number} has no section control: fluvial/genesis/v6 has"):
        with_control(number)
    document = json.loads(with_control().canonical()) | {"format": f"fluvial/genesis/v{number}"}
    with pytest.raises(IntegrityProblem) as caught:
        decode_genesis(rfc8785.dumps(document))
    assert caught.value.error_id == "FLV-4102"


@pytest.mark.parametrize("section", ["weights", "buffers"])
def test_in_a_v6_genesis_nothing_else_is_called_like_a_control_variate(section: str) -> None:
    layout = (TensorEntry("w", (2,)), TensorEntry("control:x", (2,), section))
    layout = layout if section == "buffers" else layout[::-1]
    said = replace_format_of_v5()
    older = msgspec.structs.replace(said, layout=layout)
    assert decode_genesis(older.canonical()) == older, "before v6 it is a name like others"
    with pytest.raises(ValueError, match="no weight or buffer called 'control:x'"):
        msgspec.structs.replace(older, format="fluvial/genesis/v6")
    document = json.loads(older.canonical()) | {"format": "fluvial/genesis/v6"}
    with pytest.raises(IntegrityProblem, match="control:x") as caught:
        decode_genesis(rfc8785.dumps(document))
    assert caught.value.error_id == "FLV-4102"
