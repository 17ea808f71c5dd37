"""Vectors of logs under ``fluvial/policy/v5``: rounds, lots, weights by examples, pardons; older policies beside."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from aggregation.policy import Policy, policy_from_mapping
from aggregation.selection import Candidate, is_selected
from tests.factories import (
    DOMAIN,
    NOW_MS,
    TASK,
    delta,
    device_signer,
    devices,
    merger_signer,
    model_sha,
    operator_signer,
    pardon_bytes,
    revoke_bytes,
    tick_bytes,
    worker_signer,
)
from tests.vectors.learning import V5
from tests.vectors.logs import serial_of
from tests.vectors.replaying import Log
from tests.vectors.shares import V4, barrier, rules, update


def chosen(**sections: Any) -> Policy:
    """A policy of v5 in which everything happens soon."""
    small: dict[str, Any] = {
        "format": V5,
        "window": {"updates_max": 6, "records_max": 100},
        "staleness": {"versions_max": 2},
        "updates": {"norm_clip": 0.5, "codecs": ["int8", "float32", "int4"]},
        "shares": {"per_version": 8, "saved_max": 8},
    }
    return policy_from_mapping(small | sections)


def selected(policy: Policy, device: str, base: int, turns: int = 0) -> bool:
    """Whether a device may answer a version of these logs, after so many deadlines."""
    return is_selected(policy.selection, Candidate(TASK, device, base, model_sha(base), turns))


def split(policy: Policy, base: int, names: list[str], turns: int = 0) -> tuple[list[str], list[str]]:
    """Who may answer a version, and who may not."""
    those = [name for name in names if selected(policy, name, base, turns)]
    return those, [name for name in names if name not in those]


def rounds() -> Log:
    """Only the newest version is answered; a Barrier ends the round, and the policy after it may know none."""
    one, other = chosen(buffer={"mode": "rounds"}), chosen()
    log, names, value = Log(one), devices(9), delta(5)
    for each in (one, other):
        log.keep(each.canonical())
    log.add(update(names[0], 0, value), "of the first round")
    log.add(update(names[0], 0, value), "a duplicate")
    log.add(update(names[1], 1, value), "of a round to come")
    log.add(barrier(1, one), "ends the round: its window ends with it")
    log.add(update(names[1], 0, value), "its round is over, though its base is young")
    log.add(update(names[1], 0, value, base_sha256=""), "and of another model: its round is over")
    log.add(update(names[0], 0, value), "over, though it is a duplicate as well")
    log.add(update(names[1], -1, value), "of a round that never was: over")
    log.add(update(names[1], 1, value), "nothing was used up: it counts")
    log.add(update(names[2], 1, value, "float32"), "counts")
    log.add(barrier(3, one), "the next but one")
    log.add(update(names[2], 2, value), "of a round that this partition never saw: over")
    log.add(barrier(4, other), "no rounds from here on")
    log.add(update(names[3], 3, value), "one version late: counts")
    log.add(barrier(5, one), "and rounds again")
    log.add(update(names[4], 4, value), "over")
    log.add(tick_bytes(len(log.records) - 1), "closes a window that has a count and no update")
    return log


def lots() -> Log:
    """By share: another few for each version, by its model; whoever is not among them keeps all that it has."""
    some = chosen(
        selection={"kind": "share", "share": 0.3},
        shares={"per_version": 1, "saved_max": 1},
        staleness={"versions_max": 9},
        buffer={"seconds_max": 2.0},
    )
    everybody = chosen(selection={"kind": "share", "share": 1.0}, staleness={"versions_max": 9})
    log, names, value = Log(some), devices(16), delta(5)
    for each in (some, everybody):
        log.keep(each.canonical())
    log.add(update(split(some, 0, names)[1][0], 0, value), "version 0 is everybody's")
    log.add(barrier(1, some), "a version, a lot")
    those, others = split(some, 1, names)
    log.add(update(those[0], 1, value), "selected")
    log.add(update(others[0], 1, value), "not selected")
    log.add(update(others[0], 1, value, base_sha256="0" * 64), "another model: that comes first")
    log.add(update(others[0], 1, value), "again: nothing is remembered")
    log.add(barrier(2, some), "another version, another lot")
    now, out = split(some, 2, names)
    moved = [name for name in now if name in others]
    kept = [name for name in out if name in those and name != those[0]]
    log.add(update(moved[0], 2, value), "selected now, and has its share still")
    log.add(update(kept[0], 2, value), "not selected for this version")
    log.add(update(kept[0], 1, value), "but for the one before: the lot goes by the base")
    log.add(update(those[0], 1, value), "selected, and a duplicate")
    twice = [name for name in split(some, 2, names, turns=1)[0] if name in out and name not in those]
    log.add(update(twice[0], 2, value), "not yet", NOW_MS + 1999)
    log.add(update(twice[0], 2, value), "a deadline has passed: twice the share", NOW_MS + 2000)
    log.add(update(twice[1], 1, value), "by the time of its own base, which is the same", NOW_MS - 5000)
    rest = [name for name in out if name not in split(some, 2, names, turns=1)[0]]
    log.add(update(rest[0], 2, value), "nobody else yet", NOW_MS + 3999)
    log.add(update(rest[0], 2, value), "everybody", NOW_MS + 4000)
    spare = [name for name in others if name not in {*moved, *kept, *twice, rest[0], others[0]}]
    log.add(update(spare[0], 1, value), "the one before was never the newest for so long", NOW_MS + 4000)
    log.add(barrier(3, everybody), "a share of 1")
    log.add(update(rest[1], 2, value), "the policy in force selects everybody, for older bases too")
    log.add(barrier(4, some), "some again", NOW_MS + 9000)
    log.add(update(split(some, 4, names)[1][0], 4, value), "not selected, before its barrier in time", NOW_MS)
    log.add(update(split(some, 4, names)[1][0], 4, value), "not selected", NOW_MS + 9000)
    log.add(barrier(5, some, floor=5), "what came before is forgotten, and since when this one stands")
    log.add(update(split(some, 5, names)[1][0], 5, value), "so everybody may answer it")
    log.add(barrier(6, some), "but once it is not the newest any more", NOW_MS + 60_000)
    log.add(update(split(some, 5, names)[1][1], 5, value), "only its first lot is left", NOW_MS + 90_000)
    log.add(update(split(some, 6, names)[1][1], 6, value), "of the newest more are asked", NOW_MS + 90_000)
    log.add(tick_bytes(len(log.records) - 1), "closes the window")
    return log


def slots() -> Log:
    """By turns, in a task whose signatures name it; one of three versions is everybody's, and later those before it."""
    one = chosen(selection={"kind": "slots", "slots": 3}, buffer={"mode": "rounds", "seconds_max": 0.7})
    log, names, value = Log(one, domain=DOMAIN), devices(6), delta(5)
    log.keep(one.canonical())
    for version in range(6):
        if version:
            log.add(barrier(version, one, by=merger_signer().of_task(DOMAIN)), "the next version")
        for name in names[:4]:
            by = device_signer(name).of_task(DOMAIN)
            turn = not version or selected(one, name, version)
            log.add(update(name, version, value, by=by), "its turn" if turn else "not its turn")
    for name, later_ms in ((names[4], 699), (names[4], 700), (names[5], 1399), (names[5], 1400)):
        by = device_signer(name).of_task(DOMAIN)
        log.add(update(name, 5, value, by=by), f"{later_ms} ms after the barrier", NOW_MS + later_ms)
    return log


def examples() -> Log:
    """By examples, after staleness and the defence's factor; a claim of more than counts is one of so many."""
    one = chosen(
        weights={"by": "examples", "examples_max": 100}, defence={"kind": "guide"}, shares={"per_version": 2}
    )
    old = rules()
    log, names, value = Log(one), devices(12), delta(5)
    for each in (one, old):
        log.keep(each.canonical())
    for name, said in zip(names, (1, 10, 33, 99, 100, 1 << 40), strict=False):
        log.add(update(name, 0, value, num_examples=said), f"{said} examples; the sixth fills the window")
    log.add(barrier(1, one, usual_share=1), "what is usual: one update a device")
    log.add(update(names[6], 0, value, num_examples=50), "a version late, and half of the examples")
    log.add(
        update(names[0], 1, value, num_examples=0), "above its share, and no example at all: counts as one"
    )
    log.add(update(names[7], 1, value, num_examples=-7), "a number below 0: as one")
    log.add(barrier(2, old), "v3: examples are nothing")
    log.add(update(names[8], 2, value, num_examples=1), "its whole weight")
    log.add(tick_bytes(len(log.records) - 1), "closes the window")
    return log


def strict(format_name: str = V5, **sections: Any) -> Policy:
    """One update that changes nothing brings a device into quarantine, for nine versions."""
    defence = {"quarantine_refusals": 1, "quarantine_versions": 9}
    return rules(format_name=format_name, defence=defence, **sections)


def pardons() -> Log:
    """An operator lifts quarantines: of a device that is in one, of others, and under a policy that knows none."""
    one, old = strict(shares={"per_version": 1, "saved_max": 3}), strict(V4)
    log, names, value = Log(one, partitions=2), devices(6, partitions=2), delta(5)
    zeros = np.zeros_like(value)
    for each in (one, old):
        log.keep(each.canonical())
    log.add(pardon_bytes(names[0], 9), "of a device that nobody knows")
    log.add(update(names[0], 0, value), "counts: one of its three contributions")
    log.add(pardon_bytes(names[0], 9), "of a device that is in no quarantine")
    log.add(barrier(1, one), "the next version")
    log.add(update(names[0], 1, zeros), "changes nothing: quarantine, and its second contribution")
    log.add(update(names[1], 1, zeros), "another one's")
    log.add(update(names[0], 0, value), "a duplicate")
    log.add(pardon_bytes(names[0], 10, region="us"), "of another region")
    log.add(pardon_bytes(names[0], 10, task="other", region="us"), "of another task")
    log.add(pardon_bytes(names[0], 10, by=worker_signer()), "by a worker: forged")
    log.add(pardon_bytes("", 10), "of no device")
    log.add(pardon_bytes(names[0].upper(), 10), "of a name that no device has")
    for until in (9, 11, 0, -10):
        log.add(pardon_bytes(names[0], until), "of a quarantine with another end")
    log.add(barrier(2, one), "two versions later")
    log.add(update(names[0], 2, value), "in quarantine still")
    pardon = pardon_bytes(names[0], 10, reason="é" * 201)
    log.add(pardon, "ends it; of its reason the verdict has 200 characters")
    log.add(update(names[0], 2, value), "counts; what it contributed before stays")
    log.add(pardon, "again: nothing is left to lift")
    log.add(update(names[1], 2, value), "the other one is in quarantine still")
    log.add(tick_bytes(17), "closes the window: its state says who is in quarantine")
    log.add(barrier(3, one), "the next version")
    log.add(update(names[0], 3, zeros), "quarantine anew, from here on")
    log.add(pardon, "a copy of one that lifted an earlier quarantine lifts no later one")
    log.add(barrier(4, old), "v4: a Pardon is bytes that nobody knows")
    log.add(pardon_bytes(names[0], 12), "unknown")
    log.add(update(names[0], 4, value), "in quarantine")
    log.add(barrier(5, one), "v5 again")
    log.add(pardon_bytes(names[0], 12), "ends it")
    log.add(pardon_bytes(names[1], 10), "and the other one's")
    log.add(update(names[0], 5, value), "counts")
    log.add(update(names[1], 5, value), "counts")
    log.add(tick_bytes(len(log.records) - 4), "closes the window")
    return log


def pardons_of_a_task() -> Log:
    """Where signatures name the task: one signed for another, and one of an operator that was revoked."""
    one = strict()
    log, names, value = Log(one, domain=DOMAIN), devices(3), delta(5)
    log.keep(one.canonical())
    operator, other = (operator_signer(name).of_task(DOMAIN) for name in ("op-1", "op-2"))

    def sent(name: str, base: int, note: str, *, changes: bool = True) -> None:
        by = device_signer(name).of_task(DOMAIN)
        log.add(update(name, base, value if changes else np.zeros_like(value), by=by), note)

    for name in names:
        sent(name, 0, "changes nothing: quarantine", changes=False)
    log.add(barrier(1, one, by=merger_signer().of_task(DOMAIN)), "the next version")
    log.add(pardon_bytes(names[0], 9), "signed for no task")
    log.add(pardon_bytes(names[0], 9, by=other), "ends it")
    log.add(revoke_bytes("", f"{serial_of(other.certificate):x}", by=operator), "bars that operator")
    log.add(pardon_bytes(names[1], 9, by=other), "of a revoked operator")
    log.add(pardon_bytes(names[2], 9, by=operator), "of another one: ends it")
    sent(names[0], 1, "counts: it was pardoned before the Revoke")
    sent(names[1], 1, "in quarantine")
    sent(names[2], 1, "counts")
    log.add(tick_bytes(4, by=worker_signer().of_task(DOMAIN)), "closes the window")
    return log


LOGS: Final = {
    "rounds": rounds,
    "lots by share": lots,
    "lots by slots": slots,
    "weights by examples": examples,
    "pardons": pardons,
    "pardons of a task": pardons_of_a_task,
}
"""Each by its name."""
