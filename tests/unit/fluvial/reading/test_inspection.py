"""A record taken apart: what it says of an update's tensors, section by section."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aggregation.fold.rules import FIRST_RULES
from backends.log import LogRecord
from fluvial.reading.inspection import content_of
from schemas.certificates import Trust
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


def test_control_variates_are_read_by_the_updates_codec_and_are_in_no_norm() -> None:
    layout = factories.BUFFERED.with_control()
    delta = factories.delta(1, layout)
    delta[layout.model_parameters :] *= 1e6
    tensors = factories.encoded(delta, "int8", layout=layout)
    value = factories.update_bytes("d-0001", tensors=tensors, codec="int8")
    record = LogRecord("fl.digits.updates.eu", 0, 0, factories.NOW_MS, None, value)
    shown: dict[str, Any] = content_of(record, value, factories.trust(), layout)["payload"]
    weights = delta[: layout.trainable.parameters]
    assert shown["norm"] == pytest.approx(float(np.linalg.norm(weights)), rel=0.05)
    first = layout.control.shapes[0]
    size = int(np.prod(first))
    variate = delta[layout.model_parameters :][:size]
    told = next(one for one in shown["tensors"] if one["name"] == layout.control.names[0])
    assert told["norm"] == pytest.approx(float(np.linalg.norm(variate)), rel=0.05)


def test_what_is_not_in_its_one_encoding_is_shown_as_such() -> None:
    """It is decoded all the same, to be looked at; its verdict says ``undecodable``."""
    value = factories.update_bytes("d-0001")
    longer = value[:10] + bytes((value[10] | 0x80, 0)) + value[11:]  # the length of the kind, in two bytes

    def shown(data: bytes, trust: Trust) -> dict[str, Any]:
        record = LogRecord("fl.digits.updates.eu", 0, 0, factories.NOW_MS, None, data)
        return content_of(record, data, trust, factories.LAYOUT)

    assert shown(value, factories.trust())["not_canonical"] is None
    odd = shown(longer, factories.trust())
    assert odd["kind"] == "ClientUpdate" and "byte 10" in odd["not_canonical"]
    assert "not_canonical" not in shown(longer, factories.trust(rules=FIRST_RULES))
