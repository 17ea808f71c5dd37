"""Vectors of policies: weights by staleness, documents of every format, and documents that are none."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import rfc8785

from aggregation.defences import DEFENCES
from aggregation.merges import MERGES
from aggregation.policy import FORMATS, policy_from_canonical, policy_from_mapping
from aggregation.weights.staleness import staleness_weights
from schemas.objects import sha256_hex
from tests.vectors.reading import reads
from tests.vectors.writing import document


def staleness() -> dict[str, Any]:
    """Weights by kind and parameters, as a policy's document carries them."""
    rows = [
        ("constant", 0.5, 4, 1.0, 3),
        ("polynomial", 0.5, 4, 1.0, 20),
        ("polynomial", 0.0, 4, 1.0, 2),
        ("polynomial", 2.0, 4, 1.0, 10),
        ("hinge", 0.5, 4, 1.0, 10),
        ("hinge", 0.5, 0, 0.25, 6),
    ]
    cases = []
    for kind, exponent, hinge_versions, hinge_slope, versions_max in rows:
        parameters = SimpleNamespace(
            exponent=exponent, hinge_versions=hinge_versions, hinge_slope=hinge_slope
        )
        cases.append(
            {
                "kind": kind,
                "exponent": exponent,
                "hinge_versions": hinge_versions,
                "hinge_slope": hinge_slope,
                "versions_max": versions_max,
                "weights": list(staleness_weights(kind, parameters, versions_max=versions_max)),
            }
        )
    return document(
        "staleness weights, units of 1/65536; a policy carries them, so no replay computes them", cases
    )


def policies() -> dict[str, Any]:
    """Policy documents, their hash, and documents that are none."""
    cases: list[dict[str, Any]] = []
    small = {"staleness": {"versions_max": 3}, "server": {"optimizer": "adam", "learning_rate": 0.01}}
    for name in FORMATS:
        made = policy_from_mapping(small, default_format=name)
        data = made.canonical()
        cases.append({"format": name, "document": data.decode(), "sha256": made.sha256, "good": True})
        text = json.loads(data)
        spoiled = {
            "an unknown key": rfc8785.dumps(text | {"windows": 1}),
            "a weight of 0": rfc8785.dumps(
                text | {"staleness": text["staleness"] | {"weights": [65536, 0, 1, 1]}}
            ),
            "a weight too few": rfc8785.dumps(
                text | {"staleness": text["staleness"] | {"weights": [65536, 1, 1]}}
            ),
            "an unknown format": rfc8785.dumps(text | {"format": "fluvial/policy/v99"}),
            "an unknown codec": rfc8785.dumps(text | {"updates": text["updates"] | {"codecs": ["int7"]}}),
            "not in canonical form": json.dumps(text).encode(),
        }
        for what, bad in spoiled.items():
            cases.append(
                {
                    "format": name,
                    "name": what,
                    "document": bad.decode(),
                    "sha256": sha256_hex(bad),
                    "good": reads(policy_from_canonical, bad),
                }
            )
    cases += _of_the_newest()
    return document("policies: documents, their SHA-256, and whether they are read", cases)


def _of_the_newest() -> list[dict[str, Any]]:
    """Documents of the newest format with every defence and merge, and with keys out of their bounds."""
    text = json.loads(policy_from_mapping({"staleness": {"versions_max": 1}}).canonical())
    changed: dict[str, dict[str, Any]] = {
        **{f"the defence {name}": {"defence": {"kind": name}} for name in DEFENCES},
        "no such defence": {"defence": {"kind": "krum"}},
        "to wait for guides": {"defence": {"guide_missing": "wait"}},
        "to do neither": {"defence": {"guide_missing": "stop"}},
        "shares off": {"shares": {"per_version": 0, "saved_max": 0}},
        "fewer saved than a version gives": {"shares": {"per_version": 3}},
        "more than eight": {"shares": {"per_version": 9, "saved_max": 9}},
        "nine refusals of eight": {"defence": {"quarantine_refusals": 9}},
        "a floor above the clip": {"defence": {"norm_clip_floor": 1.5}},
        "a cosine of 2": {"defence": {"guide_cosine_min": 2}},
        "a history that is too short": {"defence": {"history_updates": 7}},
        "seconds below 0": {"staleness": {"seconds_max": -1}},
        "late windows as a number": {"buffer": {"late_windows": 1}},
        "a section of v2": {"anomaly": {"enabled": True}},
        **{f"the merge {name}": {"merge": {"kind": name, "buckets": 8}} for name in MERGES},
        "no such merge": {"merge": {"kind": "bulyan", "buckets": 8}},
        "two buckets of a merge that wants three": {"merge": {"kind": "krum", "buckets": 2}},
        "33 buckets": {"merge": {"kind": "krum", "buckets": 33}},
        "more buckets than updates of a version": {
            "merge": {"kind": "krum", "buckets": 32},
            "buffer": {"updates": 5},
        },
        "two of seven byzantine": {"merge": {"kind": "mixing", "buckets": 7, "byzantine": 2}},
        "three of seven": {"merge": {"kind": "mixing", "buckets": 7, "byzantine": 3}},
        "no iteration": {"merge": {"kind": "geometric_median", "buckets": 3, "iterations": 0}},
        "buckets as text": {"merge": {"buckets": "1"}},
        **_learning(),
        **_varied(),
    }
    cases = []
    for what, sections in changed.items():
        keys = {name: text.get(name, {}) | each for name, each in sections.items()}
        data = rfc8785.dumps(text | keys)
        sha256 = sha256_hex(data)
        cases.append(
            {
                "format": text["format"],
                "name": what,
                "document": data.decode(),
                "sha256": sha256,
                "good": reads(policy_from_canonical, data),
            }
        )
    return cases


def _varied() -> dict[str, dict[str, Any]]:
    """Keys of v6, each by itself and against others, and what is out of their bounds."""

    def cohorts(share: float = 1.0, **shares: float) -> dict[str, Any]:
        return {"selection": {"kind": "cohorts", "share": share, "cohorts": shares}}

    many = {f"c{number}": 0.5 for number in range(65)}
    rows: dict[str, dict[str, Any]] = {
        "everything of v6": {
            **cohorts(0.0, phones=0.25, **{"s-1_x": 1.0, "0": 0.0}),
            "server": {"mixing": True},
            "control": {"devices": 1, "norm_clip": 0.5},
            "edges": {"updates_max": 1_000_000},
            "shares": {"per_version": 0, "cohort_window_max": 7},
            "buffer": {"seconds_min": 10},
        },
        "a version sooner than its deadline allows": {"buffer": {"seconds_min": 10.5}},
        "cohorts without any": cohorts(0.5),
        "cohorts of which nobody is selected": cohorts(0.0, phones=0.0),
        "64 cohorts": cohorts(**dict(list(many.items())[:64])),
        "65 cohorts": cohorts(**many),
        **{f"a cohort called {name!r}": cohorts(**{name: 0.5}) for name in ("", "A", "-a", "a-", "a.b", "é")},
        "a cohort's name of 32 characters": cohorts(**{"a" * 32: 0.5}),
        "a cohort's name of 33 characters": cohorts(**{"a" * 33: 0.5}),
        "a cohort's share below 0": cohorts(a=-1e-9),
        "a cohort's share above 1": cohorts(a=1.5),
        "a cohort's share as text": {"selection": {"kind": "cohorts", "cohorts": {"a": "1"}}},
        "cohorts as an array": {"selection": {"kind": "cohorts", "cohorts": []}},
        "cohorts where there is a share": {"selection": {"kind": "share", "cohorts": {"a": 0.5}}},
        "cohorts that cannot widen": {**cohorts(a=0.5), "staleness": {"seconds_max": 0}},
        "slots where there are cohorts": {"selection": {"kind": "cohorts", "slots": 2}},
        "mixing of a robust merge": {"server": {"mixing": True}, "merge": {"kind": "krum", "buckets": 3}},
        "mixing as a number": {"server": {"mixing": 1}},
        "edges of a robust merge": {"edges": {"updates_max": 1}, "merge": {"kind": "krum", "buckets": 3}},
    }
    bounds = {
        "control.devices": (0, 1_000_000_001),
        "control.norm_clip": (1e-13, 1e13),
        "edges.updates_max": (-1, 1_000_001),
        "shares.cohort_window_max": (-1, 1_000_001),
        "buffer.seconds_min": (-0.5,),
    }
    for place, values in bounds.items():
        section, _, key = place.partition(".")
        rows |= {f"{place} {value}": {section: {key: value}} for value in values}
    return rows


def _learning() -> dict[str, dict[str, Any]]:
    """Keys of v5, each by itself and against others, and what is out of their bounds."""
    by_examples = {"by": "examples", "examples_max": 1}
    rows: dict[str, dict[str, Any]] = {
        "everything of v5": {
            "weights": by_examples,
            "selection": {"kind": "share", "share": 1e-6},
            "schedule": {"kind": "cosine", "versions": 1, "factor": 0.5, "warmup_versions": 1_000_000_000},
            "buffer": {"mode": "rounds", "quorum": 20},
            "server": {
                "momentum": 0.5,
                "nesterov": True,
                "divide_by": "weights",
                "delay_versions_max": 10_000,
            },
        },
        "by examples, divided by updates": {"weights": by_examples},
        "by something else": {"weights": {"by": "loss"}},
        "a share of everybody": {"selection": {"share": 0.5}},
        "a share where there are slots": {"selection": {"kind": "slots", "slots": 2, "share": 0.5}},
        "slots where there is a share": {"selection": {"kind": "share", "share": 0.5, "slots": 2}},
        "10,000 slots": {"selection": {"kind": "slots", "slots": 10_000}},
        "a lot that cannot widen": {
            "selection": {"kind": "slots", "slots": 2},
            "staleness": {"seconds_max": 0},
        },
        "no such selection": {"selection": {"kind": "loss"}},
        "a quorum above the buffer": {"buffer": {"quorum": 21}},
        "no such mode": {"buffer": {"mode": "sync"}},
        "nesterov without momentum": {"server": {"nesterov": True}},
        "nesterov of adam": {"server": {"optimizer": "adam", "momentum": 0.5, "nesterov": True}},
        "nesterov as a number": {"server": {"momentum": 0.5, "nesterov": 1}},
        "adagrad": {"server": {"optimizer": "adagrad"}},
        "amsgrad": {"server": {"optimizer": "amsgrad"}},
        "no such schedule": {"schedule": {"kind": "linear"}},
    }
    bounds = {
        "weights.examples_max": (0, 65_537),
        "selection.share": (1e-7, 1.5),
        "selection.slots": (0, 10_001),
        "buffer.quorum": (0,),
        "schedule.versions": (0, 1_000_000_001),
        "schedule.factor": (-0.1, 1.1),
        "schedule.warmup_versions": (-1, 1_000_000_001),
        "server.delay_versions_max": (-1, 10_001),
    }
    for place, values in bounds.items():
        section, _, key = place.partition(".")
        kind = {"kind": {"share": "share", "slots": "slots"}.get(key)} if section == "selection" else {}
        rows |= {f"{place} {value}": {section: {key: value} | kind} for value in values}
    return rows
