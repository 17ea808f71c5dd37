"""Examples that a function of a task file returns. No torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from aggregation.errors import UsageProblem
from learning.datasets import Examples
from learning.sources import is_source
from learning.userfile import call_users

_PAIR: Final = 2


def users_examples(file: Path, signature: str, error_id: str, function: Callable[[], object]) -> Examples:
    """function(), as ``Examples``: it returns them, a pair (x, y) of arrays, or what ``Examples.of`` takes.

    signature: as hints name the function, such as ``local_data(path)``. Raises UsageProblem ``error_id`` where it fails
    or returns anything else, and FLV-2205 where the arrays are no examples.
    """
    name = f"{signature.partition('(')[0]}()"
    got = call_users(file, name, error_id, function)
    if isinstance(got, Examples):
        return got
    if is_source(got):
        return call_users(file, name, "FLV-2205", lambda: Examples.of(got))
    if not isinstance(got, tuple | list) or len(got) != _PAIR:
        raise UsageProblem(
            error_id,
            f"{name} must return a pair (x, y) of arrays, got {type(got).__name__}",
            where=str(file),
            hint=f"end {signature} with: return x, y",
        )
    return Examples(got[0], got[1])
