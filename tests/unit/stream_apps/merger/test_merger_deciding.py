"""Which windows make the next version, and what its manifest says: pure, so a table of cases."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aggregation.errors import IntegrityProblem
from aggregation.server.merge import Checkpoint
from schemas.manifest_rules import VersionRules
from schemas.objects import sha256_hex
from stream_apps.merger.deciding import next_manifest, windows_due
from stream_apps.merger.deriving import Derived
from stream_apps.merger.version import Version
from tests import factories
from tests.factories import aggregate, sha

POLICY = factories.policy(buffer={"updates": 8, "seconds_max": 60.0})
ONE, TWO, THREE = aggregate("eu", 0, 0), aggregate("eu", 1, 0), aggregate("eu", 0, 1)
EMPTY = aggregate("us", 0, 0, accepted=0)


@pytest.mark.parametrize(
    ("waiting", "since_s", "now_s", "due"),
    [
        pytest.param((), None, 1e9, (), id="nothing waits"),
        pytest.param((ONE,), 100.0, 159.9, (), id="too few, and not for long"),
        pytest.param((ONE,), 100.0, 160.0, (ONE,), id="too few, at the deadline"),
        pytest.param((ONE,), None, 1e9, (), id="a clock that has not started is at no deadline"),
        pytest.param((EMPTY,), 100.0, 1e9, (), id="windows without updates are due at no time"),
        pytest.param((ONE, EMPTY, TWO), 100.0, 100.0, (ONE, EMPTY, TWO), id="as many as the buffer wants"),
        pytest.param((ONE, TWO, THREE), 100.0, 100.0, (ONE, TWO), id="no more than the buffer wants"),
    ],
)
def test_a_version_is_due_when_enough_updates_wait_or_some_have_waited_long_enough(
    waiting: tuple[Any, ...], since_s: float | None, now_s: float, due: tuple[Any, ...]
) -> None:
    assert windows_due(waiting, POLICY, since_s=since_s, now_s=now_s) == due


def head() -> Version:
    return Version(
        number=4,
        manifest_sha256=sha("manifest 4"),
        model_sha256=sha("model 4"),
        reference_sha256=sha("reference 4"),
        policy_sha256=POLICY.sha256,
        floor=2,
        reason="version",
        cursors={("eu", 0): 0, ("eu", 1): 0, ("us", 0): 0},
        checkpoint=Checkpoint(np.zeros(3, np.float32), {}),
    )


def derived(model: bytes, optimizer: bytes) -> Derived:
    hashes = [sha256_hex(data) for data in (model, optimizer, b"reference")]
    return Derived(head().checkpoint, model, optimizer, b"reference", *hashes)


DERIVED = derived(b"model", b"optimizer")


def test_a_manifest_names_its_parent_its_windows_and_what_comes_of_them() -> None:
    manifest = next_manifest("digits", head(), (ONE, EMPTY, TWO, THREE), DERIVED, VersionRules())
    assert (manifest.version, manifest.parent_sha256) == (5, sha("manifest 4"))
    assert (manifest.policy_sha256, manifest.floor) == (POLICY.sha256, 2)
    assert [one.sha256 for one in manifest.inputs] == [one.sha256 for one in (ONE, EMPTY, TWO, THREE)]
    assert manifest.cursors == {"eu": (2, 1), "us": (1,)}
    assert (manifest.accepted, manifest.weight_total, manifest.update_bytes) == (12, 12 << 16, 6000)
    assert DERIVED.is_what(manifest)


def test_windows_that_do_not_go_on_at_the_cursors_make_no_manifest() -> None:
    with pytest.raises(IntegrityProblem, match="FLV-3003"):
        next_manifest("digits", head(), (THREE,), DERIVED, VersionRules())


@pytest.mark.parametrize("other", [{"model": b"another"}, {"optimizer": b"another"}])
def test_what_was_derived_is_what_a_manifest_names_if_model_and_optimizer_are(
    other: dict[str, bytes],
) -> None:
    manifest = next_manifest("digits", head(), (ONE,), DERIVED, VersionRules())
    files = {"model": b"model", "optimizer": b"optimizer"} | other
    assert not derived(files["model"], files["optimizer"]).is_what(manifest)


@pytest.mark.parametrize(
    ("waiting", "since_s", "now_s", "due"),
    [
        pytest.param((ONE, TWO), 100.0, 129.9, (), id="enough wait, and the last version is young"),
        pytest.param(
            (ONE, TWO), 100.0, 130.0, (ONE, TWO), id="enough wait, and the last version is old enough"
        ),
        pytest.param((ONE,), 69.0, 129.0, (), id="the deadline has passed, and the last version is young"),
        pytest.param((ONE,), 70.0, 130.0, (ONE,), id="the deadline counts on meanwhile"),
        pytest.param((ONE,), 90.0, 130.0, (), id="too few, and not for long"),
    ],
)
def test_no_version_is_due_sooner_than_the_policy_keeps_them_apart(
    waiting: tuple[Any, ...], since_s: float, now_s: float, due: tuple[Any, ...]
) -> None:
    apart = factories.policy(
        format="fluvial/policy/v6", buffer={"updates": 8, "seconds_max": 60.0, "seconds_min": 30.0}
    )
    assert windows_due(waiting, apart, since_s=since_s, now_s=now_s, head_since_s=100.0) == due
    assert windows_due(waiting, POLICY, since_s=since_s, now_s=now_s, head_since_s=now_s) == windows_due(
        waiting, POLICY, since_s=since_s, now_s=now_s
    )
