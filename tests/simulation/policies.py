"""Under which policy a simulated federation runs: its seed says so, and each has what can be lost with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aggregation.merges import MERGES
from tests import factories

if TYPE_CHECKING:
    from aggregation.policy import Policy

VARIATES_CAME: Final = "fluvial/policy/v6"
NEWEST: Final = "fluvial/policy/v5"
MERGES_CAME: Final = "fluvial/policy/v4"
EARLIER: Final = "fluvial/policy/v3"
_SIZES: Final[dict[str, Any]] = {
    "window": {"updates_max": 3, "records_max": 9, "seconds_max": 1.0},
    "buffer": {"updates": 5, "seconds_max": 2.0},
    "server": {"momentum": 0.5, "learning_rate": 0.5},
}
_TIME: Final = {"versions_max": 2, "seconds_max": 3.0}

FIRST: Final = factories.policy(
    **_SIZES, staleness={"versions_max": 2}, anomaly={"history_updates": 8, "history_updates_min": 4}
)
"""Norms and cosines of a partition's own, as policies before v3 have them."""
_USUAL: Final = {"norm_clip_medians": 1.0, "norm_clip_floor": 0.01}
_GUIDE: Final = _USUAL | {
    "kind": "guide",
    "guide_cosine_min": 0.1,
    "quarantine_refusals": 1,
    "quarantine_versions": 2,
}


def _later(defence: dict[str, Any], format_name: str = MERGES_CAME, **sections: Any) -> Policy:
    return factories.policy(
        format=format_name, **_SIZES | {"staleness": _TIME, "defence": defence} | sections
    )


_SHORT: Final[dict[str, Any]] = {"buffer": {"updates": 3, "seconds_max": 1.0}}
"""More versions: what is usual with a guide is known from the second on."""


MEDIAN: Final = _later(_USUAL, shares={"saved_max": 1})
"""With shares that are soon used up, half of all norms above the usual, and windows that weigh as late as they come."""
GUIDED: Final = _later(_GUIDE | {"quarantine_versions": 9}, NEWEST, **_SHORT)
"""With guardians, a cone, and quarantines that end by themselves hardly ever: an operator lifts them."""
WAITING: Final = _later(_GUIDE | {"guide_missing": "wait"}, EARLIER, **_SHORT)
"""Versions wait for a guide; of the format that guides came with. Quarantines begin and end within a run."""
MERGED: Final = tuple(
    _later(
        _USUAL, buffer={"updates": 6, "seconds_max": 2.0}, merge={"kind": kind, "buckets": 4, "iterations": 3}
    )
    for kind, merge in MERGES.items()
    if merge.robust
)
"""With sums in buckets, and each merge that tells them apart."""
_SERVER: Final[dict[str, Any]] = _SIZES["server"] | {"divide_by": "weights"}
LEARNING: Final = (
    _later(
        _USUAL,
        NEWEST,
        buffer={"mode": "rounds", "updates": 4, "quorum": 2, "seconds_max": 2.0},
        weights={"by": "examples", "examples_max": 20},
        schedule={"kind": "cosine", "versions": 6, "warmup_versions": 2},
        server=_SERVER | {"nesterov": True},
    ),
    _later(
        _USUAL,
        NEWEST,
        selection={"kind": "share", "share": 0.4},
        staleness={"versions_max": 4, "seconds_max": 3.0},
        buffer={"updates": 2, "seconds_max": 1.5},
        server={"optimizer": "amsgrad", "learning_rate": 0.6, "delay_versions_max": 1},
    ),
    _later(
        {"kind": "none"},
        NEWEST,
        selection={"kind": "slots", "slots": 3},
        weights={"by": "examples", "examples_max": 40},
        schedule={"kind": "step", "versions": 2, "factor": 0.5},
        server={"optimizer": "adagrad", "learning_rate": 0.2, "divide_by": "weights"},
        buffer={"updates": 2, "seconds_max": 1.5},
    ),
    _later(
        {"kind": "none"},
        VARIATES_CAME,
        shares={"cohort_window_max": 1, "saved_max": 2},
        window={"updates_max": 6, "records_max": 18, "seconds_max": 3.0},
        selection={"kind": "cohorts", "share": 0.2, "cohorts": {"old": 1.0, "away": 0.0}},
        staleness={"versions_max": 4, "seconds_max": 3.0},
        buffer={"updates": 2, "seconds_max": 1.5},
    ),
)
"""Rounds with a quorum, by examples; lots by share and a rate that follows delays; lots by slots and one that falls;
lots by cohort.
"""


VARIED: Final = (
    _later(
        _USUAL,
        VARIATES_CAME,
        control={"devices": 10, "norm_clip": 0.3},
        buffer={"updates": 3, "seconds_max": 1.0},
        staleness=_TIME | {"versions_max": 4},
    ),
    _later(
        {"kind": "none"},
        VARIATES_CAME,
        server={"mixing": True, "learning_rate": 0.6, "divide_by": "weights"},
        buffer={"updates": 2, "seconds_max": 1.0},
        staleness=_TIME | {"versions_max": 4},
    ),
)
"""Control variates, clipped as often as not; versions that mix in what their updates answered."""


def policy_of(seed: int) -> Policy:
    """The policy of a seed's run.

    Of each twelve six are of v3 or later: two guided, one with buckets, one of v5, one of v6.
    """
    if not seed % 12:
        return VARIED[seed // 12 % len(VARIED)]
    if seed % 12 == 6:
        return LEARNING[seed // 12 % len(LEARNING)]
    if seed % 3 != 2:
        return FIRST
    merged = MERGED[seed // 12 % len(MERGED)]
    return {5: GUIDED, 8: merged, 11: WAITING}.get(seed % 12, MEDIAN)
