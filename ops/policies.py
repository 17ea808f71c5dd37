"""Which policy a task gets when several places say something, key by key.

What the command line names goes before the task file's POLICY, and that before the quick defaults of a run.
"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

from aggregation.errors import UsageProblem
from aggregation.policy import Policy, policy_from_toml

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def read_policy_file(path: Path | None) -> str:
    """The text of a policy file; empty for None.

    Raises:
        UsageProblem: FLV-2001, it is not TOML.
    """
    if path is None:
        return ""
    try:
        text = path.read_text(encoding="utf-8")
        tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageProblem(
            "FLV-2001",
            f"the policy is not TOML: {error}",
            where=str(path),
            hint="docs/policy.md shows how one is written, and every key",
        ) from error
    return text


def layered_policy(*, explicit: str = "", task: Mapping[str, Any], defaults: str = "") -> Policy:
    """The policy of `explicit` (TOML) over the POLICY of a `task` file over `defaults` (TOML).

    Raises:
        UsageProblem: FLV-2001 (form), FLV-2002 (meaning), FLV-2003 (overflow).
    """
    return policy_from_toml(defaults, overrides=_laid_over(task, tomllib.loads(explicit)))


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        both = isinstance(value, dict) and isinstance(under, dict)
        merged[key] = _laid_over(under, value) if both else value  # type: ignore[arg-type]
    return merged
