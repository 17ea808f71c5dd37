"""A record taken apart: what it says of an update's tensors, section by section."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backends.log import LogRecord
from fluvial.reading.inspection import content_of
from tests import factories


@pytest.mark.parametrize("codec", ["int8", "float32"])
def test_buffers_are_read_as_values_and_are_in_no_norm(codec: str) -> None:
    """Regression: an int8 update's buffers would be read as four elements each, and dwarf its norm."""
    layout = factories.BUFFERED
    delta = factories.delta(1, layout)
    delta[-3:] = 1e6
    tensors = factories.encoded(delta, codec, layout=layout)
    value = factories.update_bytes("d-0001", tensors=tensors, codec=codec)
    record = LogRecord("fl.digits.updates.eu", 0, 0, factories.NOW_MS, None, value)
    shown: dict[str, Any] = content_of(record, value, factories.trust(), layout)["payload"]
    weights = delta[: factories.LAYOUT.parameters]
    assert shown["norm"] == pytest.approx(float(np.linalg.norm(weights)), rel=0.05)
    assert [one["name"] for one in shown["tensors"]] == list(layout.names)
    assert shown["tensors"][-1]["norm"] == pytest.approx(1e6 * np.sqrt(3))
