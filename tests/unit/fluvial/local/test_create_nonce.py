"""The nonce of a new task: another each time, and of two who make a task at once one's counts for both."""

from __future__ import annotations

from pathlib import Path

import pytest

from aggregation.policy import Policy, policy_from_toml
from backends.memory.store import MemoryStore
from backends.store.task_store import TaskStore
from fluvial.local.create import FirstVersion, first_version, make_keys
from learning.task import load_task
from schemas.manifests import BEFORE_V5, NEWEST_GENESIS

REGIONS = {"eu": 1}
POLICY = policy_from_toml("")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    make_keys(folder, REGIONS)
    return folder


def made(
    keys: Path, *, policy: Policy = POLICY, nonce: str | None = None, form: str = NEWEST_GENESIS
) -> FirstVersion:
    return first_version(
        "digits",
        load_task("digits"),
        regions=REGIONS,
        policy=policy,
        folder=keys,
        seed=0,
        nonce=nonce,
        document_format=form,
    )


def test_every_task_has_another_one_unless_it_is_given(keys: Path) -> None:
    one, two = made(keys).genesis, made(keys).genesis
    assert one.nonce and two.nonce and one.nonce != two.nonce
    assert made(keys, nonce=one.nonce).genesis == one


@pytest.mark.parametrize("older", sorted(BEFORE_V5 - {"fluvial/genesis/v1"}))
def test_an_older_task_has_none(keys: Path, older: str) -> None:
    assert made(keys, form=older).genesis.nonce is None


def test_of_two_who_make_a_task_at_once_the_second_takes_the_first_s(keys: Path) -> None:
    store = TaskStore(MemoryStore(), "digits")
    first, second = made(keys), made(keys)
    assert first.write(store)
    assert second.write(store)
    assert store.genesis() == first.genesis != second.genesis


def test_one_that_differs_in_more_is_another_task(keys: Path) -> None:
    store = TaskStore(MemoryStore(), "digits")
    assert made(keys).write(store)
    assert not made(keys, policy=policy_from_toml("[window]\nupdates_max = 7\n")).write(store)
