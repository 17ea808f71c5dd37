"""The rule for task names, narrow because they become parts of topic names and object keys. No torch."""

from __future__ import annotations

import re
from typing import Final

from aggregation.errors import UsageProblem

TASK_NAME_RULE: Final = re.compile(r"[a-z][a-z0-9_-]{0,47}")


def check_task_name(name: object, where: str = "") -> str:
    """``name`` if it is 1 to 48 of a–z, 0–9, _ and -, starting with a letter; else UsageProblem FLV-2201."""
    if isinstance(name, str) and TASK_NAME_RULE.fullmatch(name):
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
