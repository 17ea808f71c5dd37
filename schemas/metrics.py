"""Records of the metrics topic: the kinds, and what makes a JSON object one of them. See ``metrics.v1.schema.json``.

Within version 1 fields may be added; none is taken away, renamed or given another type or unit.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA_VERSION: Final = 1
KINDS: Final = ("version", "window", "evaluation", "region_minute")

PROBLEM: Final = "evaluation_problem"
"""The field of an evaluation's record that says why the version has none; absent where all is well."""
PROBLEM_ID: Final = "evaluation_error_id"
PROBLEMS: Final = ("not_finite", "failed", "crashed", "late", "unreadable")

Value = str | int | float | bool | None
"""What a field may hold: the records are flat."""


def encode_metric(record: Mapping[str, Any]) -> bytes:
    """A record as it stands in the topic: compact, keys sorted; a number that JSON does not have becomes null."""
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in record.items()
    }
    return json.dumps(finite, sort_keys=True, allow_nan=False, separators=(",", ":")).encode()


def problem_of(document: object) -> str:
    """Why a decoded value is no record that this program knows; "" when it is one."""
    if not isinstance(document, dict):
        return "not a JSON object"
    version = document.get("schema_version", SCHEMA_VERSION)  # the first evaluations had none
    if not isinstance(version, int) or isinstance(version, bool):
        return "its schema_version is no number"
    if version > SCHEMA_VERSION:
        return f"schema {version}, this program knows {SCHEMA_VERSION}"
    if document.get("kind") not in KINDS:
        return "of an unknown kind"
    return ""
