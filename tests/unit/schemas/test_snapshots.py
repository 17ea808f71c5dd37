"""Snapshots written by difference are fastavro's bytes of the same state, whatever was written of it before."""

from __future__ import annotations

import copy
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregation.defences import NormHistory
from aggregation.fold.contributions import Contributions
from schemas import avro, snapshots
from schemas.snapshots import encode_state
from tests import factories

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aggregation.fold.state import PartitionState


def by_fastavro(state: PartitionState) -> bytes:
    """The whole record at once."""
    counted = sorted((version, sorted(devices)) for version, devices in state.counted.items())
    scalars = "task region partition next_offset sequence version floor policy_sha256 reference_sha256"
    return avro.encode(
        "PartitionState",
        {name: getattr(state, name) for name in scalars.split()}
        | {
            "models": [{"version": version, "sha256": sha} for version, sha in sorted(state.models.items())],
            "counted": [{"version": version, "devices": devices} for version, devices in counted],
            "revoked": sorted(state.revoked),
            "norms": state.history.values(),
        },
    )


DEVICES = st.sets(st.text(st.characters(exclude_categories=["Cs"]), max_size=70), max_size=5)
VERSIONS = st.one_of(st.integers(0, 70), st.integers(0, (1 << 63) - 1))


@settings(deadline=None)
@given(
    counted=st.dictionaries(VERSIONS, DEVICES, max_size=5),
    models=st.dictionaries(VERSIONS, st.sampled_from(["", "aa" * 32, "é" * 40]), max_size=5),
    revoked=DEVICES,
    norms=st.lists(st.floats(0, allow_nan=False), max_size=5),
)
def test_a_state_is_written_as_fastavro_writes_it(
    counted: dict[int, set[str]], models: dict[int, str], revoked: set[str], norms: list[float]
) -> None:
    state = factories.state_of()
    state.counted, state.models = Contributions(counted), models
    state.revoked, state.history = revoked, NormHistory(norms)
    assert encode_state(state) == by_fastavro(state)


@pytest.mark.parametrize("seed", range(10))
def test_what_was_written_before_changes_no_byte(seed: int) -> None:
    rng, state = random.Random(seed), factories.state_of()
    for _ in range(60):
        for _ in range(rng.randrange(4)):
            state.counted.add(rng.randint(state.floor, state.floor + 5), f"d-{rng.randrange(12)}")
        if rng.random() < 0.2:
            state.floor += 1
            state.counted.forget_before(state.floor)
        if rng.random() < 0.1:
            state.counted = copy.deepcopy(state.counted)
        if rng.random() < 0.7:
            assert encode_state(state) == by_fastavro(state)
    assert state.counted.written.keys() <= set(state.counted)


def test_only_what_has_changed_is_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    state = factories.state_of()
    state.counted = Contributions({version: {f"d-{n}" for n in range(50)} for version in range(40)})
    encode_state(state)
    written: list[str] = []
    strings = snapshots._strings

    def noted(texts: Sequence[str]) -> bytes:
        written.extend(texts)
        return strings(texts)

    monkeypatch.setattr(snapshots, "_strings", noted)
    state.counted.add(39, "another")
    encode_state(state)
    assert sum(text.startswith("d-") for text in written) == 50
