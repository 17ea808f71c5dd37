"""Reading Flower's records, and what is wrong with them. It runs where ``flwr`` is; see ``host``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping


class Refused(Exception):
    """An answer that is none. kind: ``flwr``, ``app``, ``model``, ``raised``, ``reply`` or ``evaluate``."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def arrays_of(record: Any) -> list[np.ndarray]:
    """An ArrayRecord's arrays, in its order. Raises Refused for one that holds no numbers."""
    arrays = []
    for name, array in record.items():
        try:
            made = array.numpy()
        except (TypeError, ValueError) as error:
            raise Refused("reply", f"{name} is no numpy array: {error}") from error
        if made.dtype.kind not in "fiub":
            raise Refused("reply", f"{name} is an array of {made.dtype}, not of numbers")
        arrays.append(made)
    return arrays


def weighed(records: Iterable[Mapping[str, Any]], names: Collection[str]) -> dict[str, float]:
    """How many examples a reply says that its round was on, as ``num_examples``; nothing where it does not."""
    for record in records:
        for name in names:
            value = record.get(name)
            if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 1:
                return {"num_examples": float(value)}
    return {}


def numbers(record: Mapping[str, Any], ignored: Collection[str]) -> dict[str, float]:
    """Every number of a record by name; of a list, each with its place. Texts and truth values are left out."""
    found: dict[str, float] = {}
    for name, value in record.items():
        if name in ignored:
            continue
        many = list(value) if isinstance(value, (list, tuple, np.ndarray)) else None
        for place, one in enumerate([value] if many is None else many):
            if isinstance(one, (int, float, np.integer, np.floating)) and not isinstance(one, bool):
                found[name if many is None else f"{name}[{place}]"] = float(one)
    return found
