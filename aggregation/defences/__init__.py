"""Defences: what is done about well-formed updates that would harm the model. A file a member; ``DEFENCES`` names them.

They stand below the policy, which chooses one, and are pure: what a member sees of an update, and what is usual in the
task, comes in; whether it counts, and how much, goes out.
"""

from aggregation.defences.norms import NormHistory
from aggregation.defences.shape import Defence, DefenceParameters, Judged, Seen
from aggregation.defences.table import DEFENCES, defence_named
from aggregation.defences.usual import (
    BY_SQUARES,
    BY_UPDATES,
    NOT_KNOWN,
    SCORES_REMEMBERED,
    SHARE_VERSIONS,
    Histograms,
    Usual,
    square_count,
)

__all__ = [
    "BY_SQUARES",
    "BY_UPDATES",
    "DEFENCES",
    "NOT_KNOWN",
    "SCORES_REMEMBERED",
    "SHARE_VERSIONS",
    "Defence",
    "DefenceParameters",
    "Histograms",
    "Judged",
    "NormHistory",
    "Seen",
    "Usual",
    "defence_named",
    "square_count",
]
