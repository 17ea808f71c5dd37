"""Formats of policies: old ones keep bytes, hash and meaning, and what is of no format is refused."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from aggregation.errors import UsageProblem
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
    v4,
)
from fluvial.local.policies import layered_policy, read_policy_file
from tests.factories import policy
from tests.unit.aggregation.policy.released import RELEASED, V1, V2, V3, V4, V5

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


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


@pytest.mark.parametrize("data", RELEASED.values(), ids=RELEASED)
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


def test_to_v3_all_updates_are_added_and_devices_count_alike_in_the_usual_norm() -> None:
    old, new = policy_from_canonical(V3), policy_from_canonical(V4)
    assert (old.merge.kind, old.merge.buckets, old.says_buckets, new.says_buckets) == ("mean", 1, False, True)
    assert (old.defence.usual_norm_by, new.defence.usual_norm_by) == ("updates", "squares")
    said, before = json.loads(V4), json.loads(V3)
    assert said.pop("merge") == {"kind": "mean", "buckets": 1, "byzantine": 0, "iterations": 8}
    del said["defence"]["usual_norm_by"]
    later = {"norm_clip_medians": 1.25, "guide_cosine_min": -0.4, "step_cosine_min": 0.98}
    assert said | {"format": v3.FORMAT} == before | {"defence": before["defence"] | later}


def test_who_writes_a_usual_norm_into_an_older_policy_is_told_which_format_has_it() -> None:
    with pytest.raises(UsageProblem) as caught:
        policy_from_toml("[defence]\nusual_norm_by = 'updates'\n", default_format=v3.FORMAT)
    assert NEWEST in str(caught.value.hint)


def test_who_writes_a_merge_into_an_older_policy_is_told_which_format_has_it() -> None:
    with pytest.raises(UsageProblem) as caught:
        policy_from_toml("[merge]\nbuckets = 1\n", default_format=v3.FORMAT)
    assert NEWEST in str(caught.value.hint)


def test_to_v4_nothing_of_v5_is_on() -> None:
    old, new = policy_from_canonical(V4), policy_from_canonical(V5)
    for section in ("weights", "selection", "schedule", "buffer", "server"):
        assert getattr(old, section) == getattr(new, section)
    assert not old.in_rounds
    said = json.loads(V5)
    assert said.pop("weights") == {"by": "updates", "examples_max": 1000}
    assert said.pop("selection") == {"kind": "all", "share": 1.0, "slots": 1}
    schedule = {"kind": "constant", "versions": 100, "factor": 0.1, "warmup_versions": 0}
    assert said.pop("schedule") == schedule
    assert (said["buffer"].pop("mode"), said["buffer"].pop("quorum")) == ("buffer", 1)
    assert (said["server"].pop("nesterov"), said["server"].pop("delay_versions_max")) == (False, 0)
    assert said | {"format": v4.FORMAT} == json.loads(V4)


@pytest.mark.parametrize(
    "text",
    [
        "[weights]\nby = 'examples'\n",
        "[buffer]\nmode = 'rounds'\n",
        "[schedule]\n",
        "[selection]\nshare = 0.5\n",
    ],
)
def test_who_writes_a_key_of_v5_into_an_older_policy_is_told_which_format_has_it(text: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        policy_from_toml(text, default_format=v4.FORMAT)
    assert caught.value.error_id == "FLV-2001"


def test_by_examples_sums_are_divided_by_their_weights_unless_it_is_said() -> None:
    assert policy(format=NEWEST, weights={"by": "examples"}).server.divide_by == "weights"
    with pytest.raises(UsageProblem, match=r"server\.divide_by = 'updates'") as caught:
        policy(format=NEWEST, weights={"by": "examples"}, server={"divide_by": "updates"})
    assert caught.value.error_id == "FLV-2002"


CONTRADICTIONS = {
    "a share without its lot": ({"selection": {"share": 0.5}}, "selection.share"),
    "a share beside slots": ({"selection": {"kind": "slots", "slots": 4, "share": 0.5}}, "selection.share"),
    "slots without their lot": (
        {"selection": {"kind": "share", "share": 0.5, "slots": 2}},
        "selection.slots",
    ),
    "a share that is nobody": ({"selection": {"kind": "share", "share": 0.0}}, "selection.share"),
    "a quorum above the buffer": ({"buffer": {"updates": 5, "quorum": 6}}, "buffer.quorum"),
    "to look ahead without momentum": ({"server": {"nesterov": True}}, "server.nesterov"),
    "to look ahead with adam": (
        {"server": {"optimizer": "adam", "momentum": 0.9, "nesterov": True}},
        "server.nesterov",
    ),
}


@pytest.mark.parametrize(("sections", "key"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_keys_that_contradict_each_other_are_refused_by_name(sections: dict[str, Any], key: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        policy(format=NEWEST, **sections)
    assert caught.value.error_id == "FLV-2002"
    assert key in caught.value.message


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
    "a v3 document with v4's section": (rfc8785.dumps(json.loads(V3) | {"merge": {}}), "FLV-2001"),
    "a v4 document without its section": (rfc8785.dumps(json.loads(V3) | {"format": v4.FORMAT}), "FLV-2001"),
    "a v4 document with v5's section": (rfc8785.dumps(json.loads(V4) | {"schedule": {}}), "FLV-2001"),
    "a v5 document without its sections": (
        rfc8785.dumps(json.loads(V4) | {"format": "fluvial/policy/v5"}),
        "FLV-2001",
    ),
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


def test_policies_of_tests_are_of_the_newest_format() -> None:
    assert policy_from_mapping({}).format == NEWEST
