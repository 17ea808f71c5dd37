"""The data sets that ship, by the names that a task file may give: ``DATA = "digits"``. No torch here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from learning.datasets import Dataset, digits, fashion
from learning.tables import breast_cancer, diabetes
from learning.texts import help_pages

SHIPPED: Final[dict[str, Callable[[], Dataset]]] = {
    "breast_cancer": breast_cancer,
    "diabetes": diabetes,
    "digits": digits,
    "fashion": fashion,
    "help_pages": help_pages,
}
GUIDED: Final = frozenset({"digits", "fashion"})
"""Shipped tasks that hold out enough for a guardian's root set: a demo has a guide there."""
WITH_PARTS: Final = frozenset({"diabetes", "help_pages"})
"""Those whose data has natural parts: to know it, nobody has to load the others, which takes seconds."""
