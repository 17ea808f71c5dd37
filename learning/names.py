"""The rule for task names, said to whoever breaks it. No torch."""

from __future__ import annotations

import re

from aggregation.errors import UsageProblem
from schemas.topics import TASK_NAME


def check_task_name(name: object, where: str = "") -> str:
    """``name`` if it is 1 to 48 of a–z, 0–9, _ and -, starting with a letter; else UsageProblem FLV-2201."""
    if isinstance(name, str) and TASK_NAME.fullmatch(name):
        return name
    suggestion = re.sub(r"[^a-z0-9_-]+", "-", str(name).lower()).strip("-_")
    suggestion = re.sub(r"^[^a-z]+", "", suggestion)[:48] or "mine"
    raise UsageProblem(
        "FLV-2201",
        f"{name!r} cannot be a task's name: expected 1 to 48 of a-z, 0-9, _ and -, starting with a letter",
        where=where,
        hint=_hint(where, suggestion),
    )


def _hint(where: str, suggestion: str) -> str:
    if where.startswith("--"):
        return f"`{where} {suggestion}` would do"
    return f"NAME = {suggestion!r} in the task file sets the name" if where else f"fluvial new {suggestion}"
