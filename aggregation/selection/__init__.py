"""Who may contribute to a version: a lot that anybody can draw again. A file a member; ``SELECTIONS`` names them."""

from aggregation.selection.shape import Candidate, Selection, SelectionParameters, turns_after
from aggregation.selection.table import SELECTIONS, is_selected, selection_named

__all__ = [
    "SELECTIONS",
    "Candidate",
    "Selection",
    "SelectionParameters",
    "is_selected",
    "selection_named",
    "turns_after",
]
