"""What a device made infinite is null for whoever reads JSON, and ends nobody."""

from __future__ import annotations

import json
import math
from itertools import count

import pytest

from aggregation.fold.events import Verdict
from aggregation.reasons import Reason, because
from fluvial.export.rows import verdict_rows
from fluvial.reading.verdicts import verdict_document
from tests.factories import verdict_bytes

MEASURED = [one for one in Reason if float in one.fields.values() and one.code >= 0]


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("reason", MEASURED, ids=lambda one: one.name.lower())
def test_a_reason_with_a_number_that_json_lacks(reason: Reason, number: float) -> None:
    values = [number if kind is float else kind() for kind in reason.fields.values()]
    verdict = Verdict(3, "norm_exceeded", because=because(reason, *values), norm=number)
    document = json.loads(json.dumps(verdict_document(("eu", 0), verdict), allow_nan=False))
    floats = [name for name, kind in reason.fields.items() if kind is float]
    assert floats and all(document["values"][name] is None for name in floats)
    table, unreadable = verdict_rows([(0, next(count()), verdict_bytes(verdict))], 0)
    assert unreadable == 0 and json.loads(table["values"][0].as_py()) == document["values"]
