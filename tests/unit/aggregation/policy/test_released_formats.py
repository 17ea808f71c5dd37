"""Released formats keep their keys, types, defaults, ranges and names: what is new is a new format."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from aggregation.policy import policy_from_canonical, policy_from_mapping
from aggregation.policy.checks import ranges
from aggregation.policy.v1 import DocumentV1
from aggregation.policy.v2 import DocumentV2
from aggregation.policy.v3 import DocumentV3
from aggregation.policy.v4 import DocumentV4
from aggregation.policy.v5 import DocumentV5
from aggregation.policy.v6 import DocumentV6
from schemas.documents.genesis_v1 import GenesisV1
from schemas.documents.genesis_v2 import GenesisV2
from schemas.documents.genesis_v3 import GenesisV3
from schemas.documents.genesis_v4 import GenesisV4
from schemas.documents.genesis_v5 import GenesisV5
from schemas.documents.genesis_v6 import GenesisV6
from schemas.documents.manifest_v1 import ManifestV1
from schemas.documents.manifest_v2 import ManifestV2
from schemas.documents.manifest_v3 import ManifestV3
from tests.unit.aggregation.policy.released import GOLDEN, RELEASED

DOCUMENTS: dict[str, type[msgspec.Struct]] = {
    "fluvial/policy/v1": DocumentV1,
    "fluvial/policy/v2": DocumentV2,
    "fluvial/policy/v3": DocumentV3,
    "fluvial/policy/v4": DocumentV4,
    "fluvial/policy/v5": DocumentV5,
    "fluvial/policy/v6": DocumentV6,
    "fluvial/genesis/v1": GenesisV1,
    "fluvial/genesis/v2": GenesisV2,
    "fluvial/genesis/v3": GenesisV3,
    "fluvial/genesis/v4": GenesisV4,
    "fluvial/genesis/v5": GenesisV5,
    "fluvial/genesis/v6": GenesisV6,
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
            given = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
            default = "required" if given is msgspec.NODEFAULT else repr(given)
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
        for name, data in RELEASED.items()
        for section in json.loads(data)
        if section != "format"
    ],
)
def test_a_key_planted_into_a_section_of_a_released_policy_is_noticed(name: str, section: str) -> None:
    found = keys_of(planted_in(DOCUMENTS[name], section))
    assert set(found) - set(released()[name]) == {f"{section}.planted"}


@pytest.mark.parametrize("entry", ranges(DocumentV6()), ids=lambda entry: str(entry[0]))
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
