"""Logs in which operators lift quarantines: the two folds say the same of every record and state."""

from __future__ import annotations

import random

import pytest

from tests.factories import TASK, devices, merger_signer, pardon_bytes, tick_bytes
from tests.unit.fluvial.proof.test_checker_fold import NEWEST, Log, outcomes_of, rules


def log_of_pardons(seed: int, format_name: str = NEWEST, length: int = 120) -> Log:
    """Devices half of whose updates are anomalous, and Pardons: right ones, copies, for elsewhere, forged."""
    rng, names = random.Random(seed), devices(4)
    log, version = Log(rules("median", format=format_name, shares={"per_version": 2, "saved_max": 4})), 0
    made: list[bytes] = []
    for n in range(length):
        match rng.randrange(10):
            case 0 | 1:
                version += 1
                log.barrier(version)
            case 2 | 3 | 4:
                made.append(pardon_bytes(rng.choice(names), version + rng.choice([1, 2, 2, 3])))
                log.add(made[-1])
            case 5:
                region, task = rng.choice([("eu", "other"), ("us", TASK), ("eu", TASK)])
                by = merger_signer() if task == TASK else None
                wrong = pardon_bytes(rng.choice(names), version + 2, by=by, region=region, task=task)
                log.add(rng.choice([*made[-9:], wrong]))
            case 6:
                log.add(tick_bytes(rng.randrange(n + 1)))
            case _:
                base = max(0, version - rng.randrange(2))
                log.update(rng.choice(names), base, rng.choice([1.0, 0.0, 0.0]), n)
    return log


@pytest.mark.parametrize("seed", range(4))
def test_both_folds_say_the_same_of_logs_with_pardons(seed: int) -> None:
    assert {"quarantined", "control", "accepted", "anomalous"} <= set(outcomes_of(log_of_pardons(seed)))


def test_to_a_policy_of_v4_they_are_unknown_to_both() -> None:
    assert "unknown_schema" in outcomes_of(log_of_pardons(0, "fluvial/policy/v4"))
