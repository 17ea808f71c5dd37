"""Under which policy a simulated federation runs: its seed says so, and each has what can be lost with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aggregation.merges import MERGES
from tests import factories

if TYPE_CHECKING:
    from aggregation.policy import Policy

NEWEST: Final = "fluvial/policy/v4"
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


def _newest(defence: dict[str, Any], format_name: str = NEWEST, **sections: Any) -> Policy:
    return factories.policy(
        format=format_name, **_SIZES | {"staleness": _TIME, "defence": defence} | sections
    )


_SHORT: Final[dict[str, Any]] = {"buffer": {"updates": 3, "seconds_max": 1.0}}
"""More versions: what is usual with a guide is known from the second on."""


MEDIAN: Final = _newest(_USUAL, shares={"saved_max": 1})
"""With shares that are soon used up, half of all norms above the usual, and windows that weigh as late as they come."""
GUIDED: Final = _newest(_GUIDE, **_SHORT)
"""With guardians, a cone, and quarantines that begin and end within a run."""
WAITING: Final = _newest(_GUIDE | {"guide_missing": "wait"}, EARLIER, **_SHORT)
"""Versions wait for a guide; of the format before the newest."""
MERGED: Final = tuple(
    _newest(
        _USUAL, buffer={"updates": 6, "seconds_max": 2.0}, merge={"kind": kind, "buckets": 4, "iterations": 3}
    )
    for kind, merge in MERGES.items()
    if merge.robust
)
"""With sums in buckets, and each merge that tells them apart."""


def policy_of(seed: int) -> Policy:
    """The policy of a seed's run: of each twelve four run under v3 or later, two guided and one with buckets."""
    if seed % 3 != 2:
        return FIRST
    merged = MERGED[seed // 12 % len(MERGED)]
    return {5: GUIDED, 8: merged, 11: WAITING}.get(seed % 12, MEDIAN)
