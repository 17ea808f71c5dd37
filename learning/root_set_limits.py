"""What a root set has to have. Nothing is imported here: commands show them as defaults."""

from __future__ import annotations

from typing import Final

EXAMPLES: Final = 200
"""How many held-out examples are the root set of a task without ``guide_data()``. ``--examples`` is another number."""
EXAMPLES_MIN: Final = 100
"""Fewer examples are too few for any task."""
CLASS_EXAMPLES_MIN: Final = 5
"""A class of which there are fewer is rare, unless the held-out examples have no more of it."""
CLASS_SHARE_MIN: Final = 0.25
"""A class whose share of the root set is a smaller part of its share of the held-out examples is rare."""
CLASSES_MAX: Final = 1000
"""Whole-number targets of more values than these are no classes, and nothing is asked of them."""
