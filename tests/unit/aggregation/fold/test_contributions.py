"""What is remembered of contributions, and its number, whatever comes and is forgotten in whatever order."""

from __future__ import annotations

import copy
import random

import pytest

from aggregation.fold import state as partition_state
from aggregation.fold.contributions import Contributions
from tests import factories


@pytest.mark.parametrize("seed", range(20))
def test_it_is_a_mapping_of_sets_with_a_count(seed: int) -> None:
    rng = random.Random(seed)
    there, oldest = Contributions(), 0
    twin: dict[int, set[str]] = {}
    for _ in range(300):
        if rng.random() < 0.9:
            version, device = oldest + rng.randrange(12), f"d-{rng.randrange(9)}"
            there.add(version, device)
            twin.setdefault(version, set()).add(device)
        else:
            oldest += rng.choice([0, 1, 1, 2, 5, 10_000_000])
            there.forget_before(oldest)
            twin = {version: devices for version, devices in twin.items() if version >= oldest}
        assert there == twin
        assert there.pairs == sum(map(len, twin.values()))
    assert Contributions(there) == there == copy.deepcopy(there) == twin
    assert (Contributions(there).pairs, len(there), sorted(there)) == (there.pairs, len(twin), sorted(twin))


def test_a_copy_of_the_mapping_owns_its_sets() -> None:
    first = Contributions({3: {"d-1"}})
    second = Contributions(first)
    second.add(3, "d-2")
    assert (dict(first), first.pairs) == ({3: {"d-1"}}, 1)


def test_versions_below_those_that_it_began_with_may_come() -> None:
    there = Contributions({5: ["d-1"]})
    there.add(4, "d-1")
    there.forget_before(5)
    assert (dict(there), there.pairs) == ({5: {"d-1"}}, 1)


@pytest.mark.parametrize("seed", range(10))
def test_the_bound_gives_up_as_many_bases_as_counting_each_time_would(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(partition_state, "COUNTED_MAX", 25)
    rng = random.Random(seed)
    state = factories.state_of(factories.policy(staleness={"versions_max": 8}, anomaly={"enabled": False}))
    for _ in range(400):
        if rng.random() < 0.1:
            state.version += 1
            state.models[state.version] = factories.model_sha(state.version)
            state.forget_old_bases()
        counted, floor = {v: set(devices) for v, devices in state.counted.items()}, state.floor
        base, device = rng.randint(state.oldest_base, state.version), f"d-{rng.randrange(40)}"
        counted.setdefault(base, set()).add(device)
        oldest = state.oldest_base
        while oldest < state.version and sum(len(d) for v, d in counted.items() if v >= oldest) > 25:
            oldest += 1
            floor = oldest
        state.counted.add(base, device)
        state.bound_counted()
        state.validate()
        assert state.floor == floor
        assert state.counted == {v: devices for v, devices in counted.items() if v >= state.oldest_base}
