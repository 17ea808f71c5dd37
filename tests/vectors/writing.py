"""How vectors are written: JSON that a person can read and a diff can show, without numbers that a parser could round.

Floats are JSON numbers, the shortest that read back to the same bits; what no JSON number can be, and every integer
that may leave 2^53, is a string. Bytes are lower-case hex.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

FORMAT: Final = "fluvial/vectors/v1"
WIDTH_MAX: Final = 110


def document(what: str, cases: Sequence[Mapping[str, Any]], **shared: Any) -> dict[str, Any]:
    """A file of vectors: what they are, what the cases share, and the cases."""
    return {"format": FORMAT, "what": what, **shared, "cases": list(cases)}


def text_of(value: Any) -> str:
    """The file's text."""
    return _shown(value, 0) + "\n"


def number(value: float) -> float | str:
    """A float64 as vectors have it."""
    return value if math.isfinite(value) else str(value)


def numbers(values: Iterable[float]) -> list[float | str]:
    """Float64s as vectors have them."""
    return [number(float(value)) for value in values]


def wholes(values: npt.NDArray[np.int64]) -> str:
    """Int64s in decimal, a space between them."""
    return " ".join(map(str, values.tolist()))


def plain(value: Any) -> Any:
    """A record's fields as vectors have them: bytes as hex, floats as ``number``."""
    match value:
        case bytes():
            return value.hex()
        case float():
            return number(value)
        case Mapping():
            return {key: plain(one) for key, one in value.items()}
        case list() | tuple():
            return [plain(one) for one in value]
        case _:
            return value


def typed(values: Iterable[int | float | str]) -> list[dict[str, Any]]:
    """A reason's values, each behind its type's name, as Avro's JSON has a union's."""
    names = {int: "long", float: "double", str: "string"}
    return [{names[type(one)]: plain(one)} for one in values]


def _shown(value: Any, depth: int) -> str:
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if not isinstance(value, dict | list) or not value or len(line) + depth <= WIDTH_MAX:
        return line
    pad = " " * (depth + 1)
    if isinstance(value, dict):
        rows = [
            f"{json.dumps(key, ensure_ascii=False)}: {_shown(one, depth + 1)}" for key, one in value.items()
        ]
        return "{\n" + ",\n".join(pad + row for row in rows) + "\n" + " " * depth + "}"
    rows = [_shown(one, depth + 1) for one in value]
    return "[\n" + ",\n".join(pad + row for row in rows) + "\n" + " " * depth + "]"
