"""What the checker's fold says of a record and of a window."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from fluvial.proof.checker import arithmetic
from fluvial.proof.checker.buckets import Buckets
from fluvial.proof.checker.standing import Tally
from fluvial.proof.checker.wire import Sealed

Verdict = dict[str, Any]
"""The fields of Verdict that say what became of a record, but not those that say why: these are for people."""


def verdict_of(offset: int, outcome: str, **known: Any) -> Verdict:
    """A verdict with the documented values for what is not known."""
    return {
        "offset": offset,
        "outcome": outcome,
        "device_id": "",
        "update_id": "",
        "base_version": -1,
        "staleness": -1,
        "weight": 0,
        "clip": 0.0,
        "norm": 0.0,
        "norm_deviations": 0.0,
        "cosine": 0.0,
    } | known


@dataclass(slots=True)
class Window:
    """The open window."""

    first_offset: int
    counts: dict[str, int] = field(default_factory=dict)
    weight_total: int = 0
    staleness_total: int = 0
    staleness_max: int = 0
    update_bytes: int = 0
    sums: arithmetic.Ints | None = None
    contributors: Any = field(default_factory=hashlib.sha256)
    tally: Tally = field(default_factory=Tally)
    buckets: Buckets = field(default_factory=Buckets)


@dataclass(frozen=True, slots=True)
class Closed:
    """A window that closed: its RegionalAggregate, that record's identity, its sums, and the state after it."""

    record: dict[str, Any]
    sha256: str
    sums: arithmetic.Ints | None
    snapshot: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Folded:
    """What one record came to. ``sealed`` is its envelope where it has one; ``closed`` the window that it closed.

    ``barrier`` is the record of an authentic Barrier of this task and region, whether it changes anything or not.
    """

    verdict: Verdict
    sealed: Sealed | None
    barrier: dict[str, Any] | None
    closed: Closed | None
