"""Vectors of ``fluvial/policy/v5``: who may contribute, weights by examples, lateness in rounds, rates."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import count, product
from typing import Any, Final

from aggregation.policy import Policy, policy_from_mapping
from aggregation.selection import SELECTIONS, Candidate, is_selected
from aggregation.selection.shape import drawn
from aggregation.server.lateness import MergedWindows, lateness_under
from aggregation.server.rates import server_at
from aggregation.weights.examples import by_examples
from tests import factories
from tests.factories import BUFFERED, LAYOUT, TASK, devices, model_sha
from tests.vectors import numbers
from tests.vectors.writing import document

V5: Final = "fluvial/policy/v5"
V6: Final = "fluvial/policy/v6"
ODD: Final = ("ü", "a" * 64, "d-0001.x_y", "0")
"""Ids that are text of other kinds."""
SHARES: Final = (1.0, 0.9999999999999999, 0.5, 0.1, 0.3, 1e-6)
SLOTS: Final = (1, 2, 7, 10_000)
BASES: Final = (0, 6, 1 << 40)
EXACT: Final = 1 << 53
"""Lots below this are binary64 numbers."""


def _lot(
    selection: dict[str, Any], task: str, base: int, device: str, turns: int = 0, cohort: str | None = None
) -> dict[str, Any]:
    rule = {"kind": "all", "share": 1.0, "slots": 1} | selection
    policy = policy_from_mapping({"format": V5 if cohort is None else V6, "selection": selection})
    model = model_sha(base % 2)
    return {
        "selection": rule,
        "task": task,
        "base_version": base,
        "base_sha256": model,
        "device_id": device,
        "turns": turns,
        **({} if cohort is None else {"cohort": cohort}),
        "selected": is_selected(policy.selection, Candidate(task, device, base, model, turns, cohort or "")),
    }


def _edge() -> tuple[str, float]:
    """A device whose lot before version 0 is just such a share of all lots."""
    for number in count():
        device = f"d-{number:05}"
        lot = drawn(b"fluvial/lot/v1", model_sha(0), device)
        if 1e-6 * 2.0**64 < lot < EXACT:
            return device, lot / 2.0**64
    raise AssertionError


def lot_cases() -> dict[str, Any]:
    """Devices before versions, under each selection; among them one whose lot is the share itself."""
    names = [*devices(4), *ODD]
    cases = [_lot({}, TASK, 3, names[0])]
    for share, device, base in product(SHARES, names, (0, 1)):
        cases.append(_lot({"kind": "share", "share": share}, TASK, base, device))
    edge, share = _edge()
    edges = (share, math.nextafter(share, 1.0))
    cases += [_lot({"kind": "share", "share": one}, TASK, 0, edge) for one in edges]
    assert [case["selected"] for case in cases[-2:]] == [False, True]
    for slots, device, base in product(SLOTS, names[:4], BASES):
        cases.append(_lot({"kind": "slots", "slots": slots}, TASK if base else "another", base, device))
    for turns in (1, 2, 19, 20, 64, 65, 1 << 40):
        for share in SHARES[3:]:
            cases.append(_lot({"kind": "share", "share": share}, TASK, 5, names[1], turns))
        cases += [_lot({"kind": "slots", "slots": slots}, TASK, 5, names[2], turns) for slots in SLOTS]
    cases += _lots_by_cohort([*names[:2], edge], share)
    assert {case["selection"]["kind"] for case in cases} == set(SELECTIONS)
    return document(
        "whether a device may answer a version: the policy's selection, task, version, model", cases
    )


def _lots_by_cohort(names: list[str], edge: float) -> list[dict[str, Any]]:
    """Devices of named cohorts, of one that nobody names, and of none; the last one's lot is the share ``edge``."""
    shares = {"phones": 0.0, "a": 1e-300, "sensors-2": edge, "m_1": 0.3, "b" * 32: 1.0}
    cases = []
    for share, device, cohort in product((0.0, 0.5), names, ("", "others", *shares)):
        selection = {"kind": "cohorts", "share": share, "cohorts": shares}
        cases += [_lot(selection, TASK, 0, device, turns, cohort) for turns in (0, 1 << 40)]
    assert {case["selected"] for case in cases if case["cohort"] == "phones"} == {False}
    assert {case["selected"] for case in cases if case["cohort"] == "b" * 32} == {True}
    cases += [_lot({"kind": "share", "share": 0.5}, TASK, 1, one, 0, "phones") for one in names]
    return cases


def example_cases() -> dict[str, Any]:
    """What examples leave of a weight."""
    weights, examples = (1, 37_837, 65_536), (-5, 0, 1, 2, 500, 999, 1000, 65_536, (1 << 63) - 1)
    cases: list[dict[str, Any]] = [
        {
            "weights": {"by": "examples", "examples_max": most},
            "weight": weight,
            "num_examples": one,
            "weighs": by_examples(weight, one, most),
        }
        for most, weight, one in product((1, 3, 1000, 65_536), weights, examples)
    ]
    return document("a weight in units of 1/65536, an update's examples, and what it weighs", cases)


def lateness_cases() -> dict[str, Any]:
    """What is left of a window that is merged so late, in rounds and in a buffer."""
    cases = []
    for buffer in (
        {"mode": "buffer", "late_windows": True},
        {"mode": "buffer", "late_windows": False},
        {"mode": "rounds", "late_windows": True},
        {"mode": "rounds", "late_windows": False},
    ):
        policy = policy_from_mapping({"format": V5, "buffer": buffer, "staleness": {"versions_max": 2}})
        staleness = {"versions_max": 2, "weights": list(policy.staleness.weights)}
        for late in (-1, 0, 1, 2, 3):
            window = factories.aggregate("eu", 0, 0)
            parent = window.version + late
            left = lateness_under(policy, parent).weight_of(window)
            place = {"parent": parent + 5, "version": window.version + 5}
            cases.append({"buffer": buffer, "staleness": staleness} | place | {"weight": left})
    return document(
        "a window that was folded under a version and is merged behind its parent: what is left", cases
    )


SCHEDULES: Final[tuple[dict[str, Any], ...]] = (
    {"kind": "constant"},
    {"kind": "constant", "warmup_versions": 3},
    {"kind": "step", "versions": 1, "factor": 0.7},
    {"kind": "step", "versions": 5, "factor": 0.1, "warmup_versions": 2},
    {"kind": "step", "versions": 3, "factor": 0.0},
    {"kind": "cosine", "versions": 7, "factor": 0.0},
    {"kind": "cosine", "versions": 100, "factor": 0.1, "warmup_versions": 10},
    {"kind": "cosine", "versions": 1_000_000_000, "factor": 1.0},
)
VERSIONS: Final = (1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 65, 66, 109, 110, 111, 1 << 40)
DELAYS: Final = (0, 3, 4, 5, 7, 1000)


def rated(sections: dict[str, Any]) -> Policy:
    """A policy of v5 with these sections."""
    return policy_from_mapping({"format": V5} | sections)


def rate_cases() -> dict[str, Any]:
    """The server's rate of versions, by schedule and delay."""
    cases: list[dict[str, Any]] = []
    for schedule in SCHEDULES:
        policy = rated({"schedule": schedule, "server": {"learning_rate": 0.3}})
        cases += [rate_of(policy, version, 0) for version in VERSIONS]
    for most, delay, version in product((0, 1, 4), DELAYS, (2,)):
        server = {"learning_rate": 0.2, "delay_versions_max": most}
        cases.append(rate_of(rated({"schedule": SCHEDULES[3], "server": server}), version, delay))
    return document("the rate of a version, whose updates are at most so many versions late", cases)


def rate_of(policy: Policy, version: int, delay: int) -> dict[str, Any]:
    """A case: the rate of a version under a policy, and all that it follows from."""
    server = policy.server
    return {
        "server": {"learning_rate": server.learning_rate, "delay_versions_max": server.delay_versions_max},
        "schedule": {name: getattr(policy.schedule, name) for name in policy.schedule.__struct_fields__},
        "version": version,
        "delay_versions": delay,
        "rate": server_at(policy, version, delay).learning_rate,
    }


# -- merges

LATE: Final = ((7, 0), (5, 2), (6, 3), (2, 0))
"""Windows of versions behind the parent 7: the version of each, and the largest staleness in it."""
ROUNDED: Final = ((7, 0), (6, 0), (7, 0), (5, 0))
STEPS: Final[tuple[tuple[dict[str, Any], str, int], ...]] = (
    ({"server": {"momentum": 0.9, "nesterov": True, "learning_rate": 0.5}}, "none", 8),
    ({"server": {"momentum": 0.9, "nesterov": True}}, "kept", 8),
    ({"server": {"optimizer": "adagrad", "learning_rate": 0.05}}, "none", 8),
    ({"server": {"optimizer": "adagrad", "beta_1": 0.0, "adaptivity": 1e-8}}, "kept", 8),
    ({"server": {"optimizer": "amsgrad", "learning_rate": 0.05}}, "none", 8),
    ({"server": {"optimizer": "amsgrad", "beta_2": 0.5}}, "kept", 8),
    ({"server": {"optimizer": "amsgrad"}}, "another's", 8),
    ({"server": {"optimizer": "amsgrad", "delay_versions_max": 4}}, "none", 8),
    ({"server": {"delay_versions_max": 3}, "buffer": {"late_windows": False}}, "none", 8),
    ({"server": {"delay_versions_max": 1}, "staleness": {"versions_max": 1}}, "none", 8),
    ({"schedule": {"kind": "cosine", "versions": 20, "warmup_versions": 2}}, "none", 8),
    ({"schedule": {"kind": "step", "versions": 3}, "server": {"optimizer": "yogi"}}, "kept", 8),
    ({"schedule": {"kind": "cosine", "versions": 5, "factor": 0.0}}, "none", 8),
    ({"schedule": {"warmup_versions": 16}, "server": {"optimizer": "adam"}}, "none", 8),
    ({"buffer": {"mode": "rounds"}, "weights": {"by": "examples"}}, "none", 8),
    ({"buffer": {"mode": "rounds", "late_windows": False}, "server": {"delay_versions_max": 1}}, "none", 8),
)
"""A policy's sections, the optimizer's state before, and the version that is made."""


def _step_case(seed: int, sections: dict[str, Any], state: str, version: int) -> dict[str, Any]:
    policy = rated(sections)
    rows = ROUNDED if policy.in_rounds else LATE
    windows = [
        replace(factories.aggregate("eu", 0, n), version=folded, staleness_max=staleness)
        for n, (folded, staleness) in enumerate(rows)
    ]
    taken = MergedWindows.of(windows, lateness_under(policy, version - 1))
    server = server_at(policy, version, taken.delay)
    layout = BUFFERED if policy.server.delay_versions_max == 1 else LAYOUT
    case = numbers.merge_case(policy, layout, state=state, seed=seed, left=taken.weights, server=server)
    for window, (folded, staleness) in zip(case["windows"], rows, strict=True):
        window |= {"version": folded, "staleness_max": staleness}
    buffer = {"mode": policy.buffer.mode, "late_windows": policy.buffer.late_windows}
    limits = {"versions_max": policy.staleness.versions_max, "weights": list(policy.staleness.weights)}
    rate = rate_of(policy, version, taken.delay)
    said = {name: rate[name] for name in ("schedule", "version", "rate")}
    return {"buffer": buffer, "staleness": limits} | said | case


def merge_cases() -> dict[str, Any]:
    """Every merge, those of v5 with the version that is made and what its windows say."""
    made = numbers.merge_cases()
    cases = [_step_case(40 + seed, *row) for seed, row in enumerate(STEPS)]
    return made | {"cases": [*made["cases"], *cases]}
