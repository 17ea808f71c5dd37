"""Formats of policies, genesis documents and manifests: old ones keep bytes, hash, meaning; a new key is a new one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from aggregation.errors import IntegrityProblem, UsageProblem
from aggregation.fold.rules import CANONICAL_RULES, FIRST_RULES, TASK_RULES, RecordRules
from aggregation.optimizers import OPTIMIZERS
from aggregation.policy import (
    FORMATS,
    NEWEST,
    checks,
    policy_from_canonical,
    policy_from_mapping,
    policy_from_toml,
    v1,
    v2,
    v3,
)
from aggregation.policy.checks import ranges
from aggregation.policy.v1 import DocumentV1
from aggregation.policy.v2 import DocumentV2
from aggregation.policy.v3 import DocumentV3
from fluvial.local.policies import layered_policy, read_policy_file
from fluvial.proof.checker.task import Damaged, task_of
from schemas.documents.genesis_v1 import GenesisV1
from schemas.documents.genesis_v2 import GenesisV2
from schemas.documents.genesis_v3 import GenesisV3
from schemas.documents.genesis_v4 import GenesisV4
from schemas.documents.genesis_v5 import GenesisV5
from schemas.documents.manifest_v1 import ManifestV1
from schemas.documents.manifest_v2 import ManifestV2
from schemas.documents.manifest_v3 import ManifestV3
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
from tests.factories import policy, sha
from tests.unit.schemas.test_manifests import genesis, manifest
from tests.vectors.genesis import NONCES_REFUSED, RULES_REFUSED

GOLDEN = Path(__file__).parents[3] / "golden"
V1 = (GOLDEN / "policy.v1.json").read_bytes()
V2 = (GOLDEN / "policy.v2.json").read_bytes()
V3 = (GOLDEN / "policy.v3.json").read_bytes()
DOCUMENTS: dict[str, type[msgspec.Struct]] = {
    "fluvial/policy/v1": DocumentV1,
    "fluvial/policy/v2": DocumentV2,
    "fluvial/policy/v3": DocumentV3,
    "fluvial/genesis/v1": GenesisV1,
    "fluvial/genesis/v2": GenesisV2,
    "fluvial/genesis/v3": GenesisV3,
    "fluvial/genesis/v4": GenesisV4,
    "fluvial/genesis/v5": GenesisV5,
    "fluvial/manifest/v1": ManifestV1,
    "fluvial/manifest/v2": ManifestV2,
    "fluvial/manifest/v3": ManifestV3,
}


def keys_of(kind: Any, name: str = "") -> dict[str, str]:
    """Every key of a document, dotted, with its type and default in words."""
    found: dict[str, str] = {}
    for field in msgspec.structs.fields(kind):
        inner = [one for one in (field.type, *getattr(field.type, "__args__", ())) if isinstance(one, type)]
        nested = [one for one in inner if issubclass(one, msgspec.Struct)]
        if nested:
            found |= keys_of(nested[0], f"{name}{field.name}.")
        else:
            default = "required" if field.default is msgspec.NODEFAULT else repr(field.default)
            found[name + field.name] = f"{field.type} = {default}".replace("<class '", "").replace("'>", "")
    return found


def released() -> dict[str, dict[str, str]]:
    listing: dict[str, dict[str, str]] = json.loads((GOLDEN / "formats.json").read_text())
    return listing


def test_released_formats_have_the_keys_types_and_defaults_that_they_were_released_with() -> None:
    assert {name: keys_of(kind) for name, kind in DOCUMENTS.items()} == released()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_key_planted_into_a_released_format_is_noticed(name: str) -> None:
    kind = DOCUMENTS[name]
    planted = msgspec.defstruct("Planted", [("planted", int, 0)], bases=(kind,), kw_only=True, frozen=True)
    assert keys_of(planted) != released()[name]
    assert set(keys_of(planted)) - set(released()[name]) == {"planted"}


def planted_in(kind: type[msgspec.Struct], section: str) -> type[msgspec.Struct]:
    """The same document with one more key, with a default, in one of its sections."""
    types = {field.name: field.type for field in msgspec.structs.fields(kind)}
    wider = msgspec.defstruct(
        "Wider", [("planted", int, 0)], bases=(types[section],), kw_only=True, frozen=True
    )
    fields = [(section, wider, wider())]
    return msgspec.defstruct("Planted", fields, bases=(kind,), kw_only=True, frozen=True)


@pytest.mark.parametrize(
    ("name", "section"),
    [
        (name, section)
        for name, data in (("fluvial/policy/v1", V1), ("fluvial/policy/v2", V2), ("fluvial/policy/v3", V3))
        for section in json.loads(data)
        if section != "format"
    ],
)
def test_a_key_planted_into_a_section_of_a_released_policy_is_noticed(name: str, section: str) -> None:
    found = keys_of(planted_in(DOCUMENTS[name], section))
    assert set(found) - set(released()[name]) == {f"{section}.planted"}


@pytest.mark.parametrize("entry", ranges(DocumentV3()), ids=lambda entry: str(entry[0]))
def test_a_released_policy_is_read_for_ever_so_no_range_may_become_narrower(
    entry: tuple[str, float, float, float],
) -> None:
    key, _, low, high = entry
    least, greatest = json.loads((GOLDEN / "policy_ranges.json").read_text())[key]
    assert low <= least
    assert high >= greatest


def test_every_name_that_v1_knows_is_still_in_its_table() -> None:
    for section, key, names in (
        ("updates", "codecs", [["int8"], ["float32"]]),
        ("staleness", "kind", ["constant", "polynomial", "hinge"]),
        ("server", "optimizer", ["sgd", "adam"]),
        ("server", "divide_by", ["updates", "weights"]),
    ):
        for name in names:
            one = policy_from_mapping({section: {key: name}}, default_format="fluvial/policy/v1")
            assert policy_from_canonical(one.canonical()) == one


def test_a_name_that_came_after_v1_is_refused_in_it_with_its_key_and_the_format_that_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checks, "OPTIMIZERS", (*OPTIMIZERS, "planted"))
    later = json.loads(V1)
    later["server"]["optimizer"] = "planted"
    reads: list[Callable[[], object]] = [
        lambda: policy_from_canonical(rfc8785.dumps(later)),
        lambda: policy_from_toml('format = "fluvial/policy/v1"\n[server]\noptimizer = "planted"\n'),
    ]
    for read in reads:
        with pytest.raises(UsageProblem) as caught:
            read()
        assert "server.optimizer" in caught.value.message
        assert "fluvial/policy/v" in str(caught.value.hint)
    assert policy_from_canonical(rfc8785.dumps(later | {"format": v2.FORMAT})).server.optimizer == "planted"


@pytest.mark.parametrize("data", [V1, V2, V3], ids=["v1", "v2", "v3"])
def test_a_released_policy_keeps_its_bytes_and_its_hash(data: bytes) -> None:
    one = policy_from_canonical(data)
    assert one.canonical() == data
    assert one.sha256 == hashlib.sha256(data).hexdigest()


def test_v1_says_in_v2_what_it_said() -> None:
    old, new = json.loads(V1), json.loads(V2)
    assert old | {"format": v2.FORMAT} == new
    one, other = policy_from_canonical(V1), policy_from_canonical(V2)
    assert (one.format, other.format) == (v1.FORMAT, v2.FORMAT)
    for section in ("updates", "staleness", "window", "buffer", "shares", "server", "defence", "fixed_point"):
        assert getattr(one, section) == getattr(other, section)
    assert one != other  # another document, another hash


def test_to_v2_all_that_came_later_is_off() -> None:
    meaning, said = policy_from_canonical(V2), json.loads(V2)
    assert not meaning.counts_shares
    assert meaning.shares.per_version == 0
    assert meaning.staleness.seconds_max == 0.0
    assert meaning.buffer.late_windows is False
    assert meaning.defence.quarantine_refusals == 0
    assert meaning.defence.kind == ("peers" if said["anomaly"]["enabled"] else "none")
    for key in ("norm_deviations_max", "cosine_min", "history_updates", "history_updates_min"):
        assert getattr(meaning.defence, key) == said["anomaly"][key]
    off = policy_from_canonical(rfc8785.dumps(said | {"anomaly": said["anomaly"] | {"enabled": False}}))
    assert off.defence.kind == "none"


def test_a_clip_that_v2_allows_is_taken_by_v3() -> None:
    small = policy(updates={"norm_clip": 1e-9}, format=v2.FORMAT)
    assert policy_from_canonical(small.canonical()).updates.norm_clip == 1e-9
    assert policy(updates={"norm_clip": 1e-9}, format=v3.FORMAT).updates.norm_clip == 1e-9


def test_beside_a_guide_sums_are_divided_by_their_weights_unless_it_is_said() -> None:
    assert policy(format=v3.FORMAT).server.divide_by == "updates"
    assert policy(format=v3.FORMAT, defence={"kind": "guide"}).server.divide_by == "weights"
    said = policy(format=v3.FORMAT, defence={"kind": "guide"}, server={"divide_by": "updates"})
    assert said.server.divide_by == "updates"
    assert policy_from_canonical(said.canonical()).server.divide_by == "updates"


def test_who_writes_anomaly_into_a_new_policy_is_told_what_it_is_called_now() -> None:
    with pytest.raises(UsageProblem) as caught:
        policy_from_toml("[anomaly]\nenabled = false\n")
    assert caught.value.error_id == "FLV-2001"
    assert "[defence]" in str(caught.value.hint)
    assert v2.FORMAT in str(caught.value.hint)
    assert policy_from_toml("[anomaly]\nenabled = false\n", default_format=v2.FORMAT).defence.kind == "none"


@given(st.randoms(use_true_random=False), st.sampled_from([None, 1, 4]), st.booleans())
def test_a_v1_document_is_named_by_the_hash_of_its_bytes_whatever_their_order_and_spaces(
    random: Any,
    indent: int | None,
    ascii_only: bool,  # noqa: FBT001
) -> None:
    document = json.loads(V1)
    shuffled = dict(random.sample(sorted(document.items()), len(document)))
    data = json.dumps(shuffled, indent=indent, ensure_ascii=ascii_only).encode()
    one = policy_from_canonical(data)
    assert (one.canonical(), one.sha256) == (data, hashlib.sha256(data).hexdigest())
    assert one.buffer == policy_from_canonical(V1).buffer


def with_format(name: Any) -> bytes:
    return rfc8785.dumps(json.loads(V1) | {"format": name})


REFUSED = {
    "an unknown format": (with_format("fluvial/policy/v9"), "FLV-2005"),
    "a format that is no text": (with_format(2), "FLV-2005"),
    "no format, said aloud": (with_format(None), "FLV-2005"),
    "v1's format, which its documents do not say": (with_format("fluvial/policy/v1"), "FLV-2005"),
    "two formats": (V2.replace(b'"format"', b'"format":"fluvial/policy/v1","format"', 1), "FLV-2005"),
    "two formats that are the same": (
        V2.replace(b'"format"', b'"format":"fluvial/policy/v2","format"', 1),
        "FLV-2005",
    ),
    "a v2 document that is not canonical": (json.dumps(json.loads(V2)).encode(), "FLV-2001"),
    "a v2 document with a key too many": (rfc8785.dumps(json.loads(V2) | {"lots": {}}), "FLV-2001"),
    "a v3 document with a key too many": (rfc8785.dumps(json.loads(V3) | {"lots": {}}), "FLV-2001"),
    "a v3 document with v2's section": (rfc8785.dumps(json.loads(V3) | {"anomaly": {}}), "FLV-2001"),
    "a v3 document that is not canonical": (json.dumps(json.loads(V3)).encode(), "FLV-2001"),
    "a v1 document with a key too many": (rfc8785.dumps(json.loads(V1) | {"lots": {}}), "FLV-2001"),
    "a byte order mark": (b"\xef\xbb\xbf" + V1, "FLV-2001"),
    "UTF-16": (V1.decode().encode("utf-16"), "FLV-2001"),
    "NaN": (V1.replace(b'"cosine_min":-0.5', b'"cosine_min":NaN'), "FLV-2001"),
    "nothing": (b"", "FLV-2001"),
    "a list": (b"[]", "FLV-2001"),
    "brackets without end": (b"[" * 100_000, "FLV-2001"),
}


@pytest.mark.parametrize(("data", "error_id"), REFUSED.values(), ids=REFUSED.keys())
def test_a_policy_is_refused_that_has(data: bytes, error_id: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        policy_from_canonical(data)
    assert caught.value.error_id == error_id
    assert caught.value.hint


@pytest.mark.parametrize(
    "name", [name for name in REFUSED if name.startswith(("two formats", "v1's format"))]
)
def test_whoever_has_a_document_that_names_its_format_wrongly_is_not_told_to_upgrade(name: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        policy_from_canonical(REFUSED[name][0])
    assert "upgrade" not in str(caught.value.hint)


def test_an_unknown_format_says_which_are_known() -> None:
    with pytest.raises(UsageProblem, match="fluvial/policy/v1, fluvial/policy/v2"):
        policy_from_toml('format = "fluvial/policy/v9"\n')


def test_toml_without_a_format_is_of_the_newest() -> None:
    assert policy_from_toml("").format == NEWEST
    assert policy_from_toml("", default_format="fluvial/policy/v1").format == "fluvial/policy/v1"


def test_toml_may_name_v1() -> None:
    one = policy_from_toml('format = "fluvial/policy/v1"\n[buffer]\nupdates = 7\n')
    assert "format" not in json.loads(one.canonical())
    assert (one.format, one.buffer.updates) == ("fluvial/policy/v1", 7)
    assert policy_from_canonical(one.canonical()) == one


def test_a_byte_order_mark_before_toml_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_bytes(b"\xef\xbb\xbf[buffer]\nupdates = 7\n")
    text = read_policy_file(path)
    assert policy_from_toml(text).buffer.updates == 7
    assert layered_policy(explicit=text, task={}).buffer.updates == 7


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_reads_what_it_writes(name: str) -> None:
    one = policy_from_mapping({"staleness": {"kind": "hinge"}}, default_format=name)
    assert policy_from_canonical(one.canonical()) == one


# -- genesis documents and manifests


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


def test_policies_of_tests_are_of_the_newest_format() -> None:
    assert policy_from_mapping({}).format == NEWEST
