"""The schema that is published for analysts, what checks records against it, and the golden records."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema

ROOT = Path(__file__).parents[4]
SCHEMA = json.loads((ROOT / "schemas" / "metrics.v1.schema.json").read_text())
VALID = jsonschema.Draft202012Validator(SCHEMA)
GOLDEN = ROOT / "tests" / "golden" / "metrics.v1.jsonl"
