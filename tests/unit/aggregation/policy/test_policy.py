"""What a policy may say, what it is refused for, and that no policy that passes can overflow."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregation import codecs
from aggregation.codecs import Delta
from aggregation.errors import UsageProblem
from aggregation.layout import Layout
from aggregation.policy import (
    NEWEST,
    SUM_LIMIT,
    Policy,
    policy_from_canonical,
    policy_from_mapping,
    policy_from_toml,
)
from aggregation.policy.checks import ranges
from aggregation.policy.v6 import DocumentV6
from tests.factories import policy

DOCS = Path(__file__).parents[4] / "docs" / "policy.md"
ONE = Layout.of([("w", ())])


def refused(document: dict[str, Any]) -> UsageProblem:
    with pytest.raises(UsageProblem) as caught:
        policy_from_mapping(document)
    return caught.value


def test_an_empty_document_is_the_default_policy() -> None:
    assert policy_from_toml("") == policy(format=NEWEST)


def test_toml_and_canonical_json_give_the_same_policy() -> None:
    there = policy_from_toml('[staleness]\nkind = "hinge"\n[buffer]\nupdates = 7\n')
    again = policy_from_canonical(there.canonical())
    assert again == there
    assert again.sha256 == there.sha256


def test_a_released_policy_document_keeps_its_hash() -> None:
    """A new key would change the hash of every policy that running tasks have: that needs a new format."""
    data = (Path(__file__).parents[3] / "golden" / "policy.v1.json").read_bytes()
    assert policy_from_canonical(data).canonical() == data


def test_an_integer_where_a_float_stands_gives_the_same_hash() -> None:
    assert policy(updates={"norm_clip": 5}).sha256 == policy(updates={"norm_clip": 5.0}).sha256


def test_overrides_reach_single_keys() -> None:
    text = "[buffer]\nupdates = 5\nseconds_max = 3.0\n"
    mixed = policy_from_toml(text, overrides={"buffer": {"updates": 6}, "server": {"momentum": 0.5}})
    assert (mixed.buffer.updates, mixed.buffer.seconds_max, mixed.server.momentum) == (6, 3.0, 0.5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("buffer", "not TOML"),
        ("[bufer]\nupdates = 5", "bufer"),
        ("[buffer]\nupdate = 5", "update"),
        ('[buffer]\nupdates = "5"', "buffer.updates"),
        ("[buffer]\nupdates = 5.5", "buffer.updates"),
        ("[buffer]\nupdates = true", "buffer.updates"),
        ('[staleness]\nkind = "linear"', "linear"),
        ('[updates]\ncodecs = ["int3"]', "int3"),
        ('[defence]\nkind = "hope"', "hope"),
        ('[defence]\nguide_missing = "pray"', "guide_missing"),
    ],
)
def test_a_wrong_form_is_refused_by_key(text: str, said: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        policy_from_toml(text)
    assert caught.value.error_id == "FLV-2001"
    assert said in caught.value.message


@pytest.mark.parametrize("entry", ranges(DocumentV6()), ids=lambda entry: str(entry[0]))
def test_every_bound_is_kept_and_named(entry: tuple[str, int | float, float, float]) -> None:
    name, default, low, high = entry
    section, key = name.split(".")
    kind = type(default)
    for value in (low - 1 if kind is int else np.nextafter(low, -np.inf), high * 2 + 1):
        error = refused({section: {key: kind(value)}})
        assert error.error_id in {"FLV-2002", "FLV-2003"}
        assert name in error.message or error.error_id == "FLV-2003"


@pytest.mark.parametrize("entry", ranges(DocumentV6()), ids=lambda entry: str(entry[0]))
def test_nan_and_infinity_are_refused(entry: tuple[str, float, float, float]) -> None:
    section, key = entry[0].split(".")
    if isinstance(entry[1], float):
        for value in (float("nan"), float("inf"), float("-inf")):
            assert entry[0] in refused({section: {key: value}}).message


@pytest.mark.parametrize(
    ("document", "key"),
    [
        ({"updates": {"norm_clip": 10.0, "norm_max": 9.0}}, "updates.norm_max"),
        ({"updates": {"codecs": []}}, "updates.codecs"),
        ({"updates": {"codecs": ["int8", "int8"]}}, "updates.codecs"),
        ({"window": {"updates_max": 64, "records_max": 63}}, "window.records_max"),
        ({"defence": {"history_updates": 10, "history_updates_min": 11}}, "defence.history_updates_min"),
        ({"shares": {"per_version": 2, "saved_max": 1}}, "shares.saved_max"),
        ({"merge": {"buckets": 2}}, "merge.buckets"),
        ({"merge": {"byzantine": 1}}, "merge.byzantine"),
        ({"staleness": {"versions_max": 1, "weights": [65536, 1]}}, "staleness.weights"),
        ({"staleness": {"exponent": 16.0, "versions_max": 2}}, "staleness.weights[2]"),
        ({"staleness": {"kind": "hinge", "hinge_slope": 1e12}}, "staleness.weights[5]"),
    ],
)
def test_a_policy_that_contradicts_itself_is_refused_by_key(document: dict[str, Any], key: str) -> None:
    error = refused(document)
    assert (error.error_id, error.exit_code) == ("FLV-2002", 4)
    assert key in error.message


def test_derived_weights_may_be_repeated_but_not_changed() -> None:
    weights = list(policy(staleness={"versions_max": 3}).staleness.weights)
    assert policy(staleness={"versions_max": 3, "weights": weights}) == policy(staleness={"versions_max": 3})


def test_a_canonical_documents_table_is_taken_as_it_stands() -> None:
    document = msgspec.json.decode(policy(staleness={"versions_max": 2}).canonical())
    document["staleness"]["weights"] = [65536, 40000, 3]
    there = policy_from_canonical(rfc8785.dumps(document))
    assert there.staleness.weights == (65536, 40000, 3)


@pytest.mark.parametrize("weights", [[], [65536], [65536, 0, 1], [65536, 1, 65537], [65536, 1, -1]])
def test_a_canonical_documents_table_is_checked(weights: list[int]) -> None:
    document = msgspec.json.decode(policy(staleness={"versions_max": 2}).canonical())
    document["staleness"]["weights"] = weights
    with pytest.raises(UsageProblem, match=r"staleness\.weights"):
        policy_from_canonical(rfc8785.dumps(document))


def test_a_policy_that_could_overflow_is_refused_with_all_its_factors() -> None:
    error = refused({"updates": {"norm_clip": 1e6, "norm_max": 1e6}, "fixed_point": {"exponent": 48}})
    assert error.error_id == "FLV-2003"
    for word in ("norm_clip", "exponent", "buffer.updates", "window.updates_max", "bound"):
        assert word in error.message


def worst_sum(rules: Policy, delta: Delta) -> int:
    """What ``updates_per_version_max`` copies of one update add up to, in Python ints."""
    measured = codecs.measure(delta, ONE)
    limits = rules.updates
    clip = limits.norm_clip / measured.norm if measured.norm > limits.norm_clip else 1.0
    sums = np.zeros(1, dtype=np.int64)
    exponent = rules.fixed_point.exponent
    codecs.accumulate_into(sums, delta, measured, ONE, weight=1.0, clip=clip, exponent=exponent)
    return abs(int(sums[0])) * rules.updates_per_version_max


@settings(deadline=None, max_examples=200)
@given(
    exponent=st.integers(8, 48),
    updates=st.integers(1, 1000),
    window=st.integers(1, 64),
    clip_of_limit=st.floats(0.5, 1.0),
    scale=st.floats(1e-6, 1.0),
    q=st.sampled_from([-128, -127, -1, 1, 127]),
)
def test_the_worst_updates_of_a_policy_that_just_passes_stay_within_int64(
    exponent: int, updates: int, window: int, clip_of_limit: float, scale: float, q: int
) -> None:
    largest_clip = SUM_LIMIT / (updates - 1 + window) / 2.0**exponent
    clip = min(largest_clip * clip_of_limit, 1e12)
    document = {
        "updates": {"norm_clip": clip, "norm_max": 1e12},
        "control": {"norm_clip": clip},
        "fixed_point": {"exponent": exponent},
        "buffer": {"updates": updates},
        "window": {"updates_max": window},
    }
    try:
        rules = policy_from_mapping(document)
    except UsageProblem:
        return
    assert worst_sum(rules, Delta("int8", np.array([q], dtype=np.int8), (clip / abs(q),))) <= SUM_LIMIT
    assert worst_sum(rules, Delta("int8", np.array([q], dtype=np.int8), (clip * (1 + scale),))) <= SUM_LIMIT
    for factor in (1.0, 1.0 + scale, 1000.0):
        x = np.array([clip * factor], dtype=np.float32)
        if np.isfinite(x[0]):
            assert worst_sum(rules, Delta("float32", x, (1.0,))) <= SUM_LIMIT


def test_rounding_of_a_single_huge_update_is_part_of_the_bound() -> None:
    """2**63 - 1024 fits, but a float64 product near it may be rounded up to 2**63."""
    document = {
        "updates": {"norm_clip": (2.0**63 - 1024) / 2**48, "norm_max": 1e12},
        "fixed_point": {"exponent": 48},
        "buffer": {"updates": 1},
        "window": {"updates_max": 1},
    }
    assert refused(document).error_id == "FLV-2003"


def documented() -> dict[str, dict[str, str]]:
    """The tables of docs/policy.md: key -> its cells by column."""
    found = {}
    section = ""
    for line in DOCS.read_text().splitlines():
        if heading := re.fullmatch(r"## `\[(\w+)\]`.*", line):
            section = heading.group(1)
        if row := re.fullmatch(r"\| `(\w+)` \|(.*)\|", line):
            unit, default, allowed, effect = (cell.strip() for cell in row.group(2).split(" | "))
            found[f"{section}.{row.group(1)}"] = {
                "unit": unit,
                "default": default,
                "range": allowed,
                "effect": effect,
            }
    return found


def keys() -> dict[str, Any]:
    """Every key of the code and its default."""
    sections = msgspec.to_builtins(DocumentV6())
    del sections["format"]
    return {f"{section}.{key}": value for section, table in sections.items() for key, value in table.items()}


def test_the_documentation_has_every_key_and_no_other() -> None:
    assert sorted(documented()) == sorted(keys())


@pytest.mark.parametrize("key", sorted(keys()))
def test_the_documented_default_and_range_are_the_codes(key: str) -> None:
    cells, default = documented()[key], keys()[key]
    assert cells["effect"]
    assert cells["unit"]
    if key == "staleness.weights":
        assert cells["default"] == "derived"
        return
    written = policy_from_toml(
        f"[{key.split('.', maxsplit=1)[0]}]\n{key.split('.')[1]} = {cells['default'].strip('`')}\n"
    )
    assert msgspec.to_builtins(written)[key.split(".", maxsplit=1)[0]][key.split(".")[1]] == default
    for name, _, low, high in ranges(DocumentV6()):
        if name == key:
            assert [float(part.replace("_", "")) for part in cells["range"].split(" to ")] == [low, high]
