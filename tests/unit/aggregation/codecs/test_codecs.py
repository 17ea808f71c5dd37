"""Every codec obeys the family's laws; a direction keeps where a step goes."""

from __future__ import annotations

import math
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from aggregation import codecs
from aggregation.codecs import CODECS, Delta
from aggregation.errors import UsageProblem
from aggregation.layout import Layout
from tests import naive
from tests.conformance.codecs import CodecLaws
from tests.conformance.quantized_codecs import QuantizedCodecLaws
from tests.factories import LAYOUT, delta, encoded

if TYPE_CHECKING:
    from collections.abc import Sequence

ONE = Layout.of([("w", (4,))])


class TestInt8(QuantizedCodecLaws):
    name = "int8"
    bits = 8
    largest = 127

    def naive_unpack(self, data: bytes, elements: int) -> list[float]:
        return [float(level) for level in naive.unpack_int8(data)][:elements]

    def naive_pack(self, levels: Sequence[float]) -> bytes | None:
        return naive.pack_int8(levels)

    def test_minus_128_which_no_device_writes_counts_as_what_it_is(self) -> None:
        one = self.of_levels(ONE, [-128, 127, 0, -128], (0.5,))
        assert self.codec.squares(one.flat, ONE) == [2 * 128**2 + 127**2]


class TestInt4(QuantizedCodecLaws):
    name = "int4"
    bits = 4
    largest = 7

    def naive_unpack(self, data: bytes, elements: int) -> list[float]:
        return [*naive.unpack_int4(data, elements)]

    def naive_pack(self, levels: Sequence[float]) -> bytes | None:
        return naive.pack_int4(levels)

    def test_the_low_half_comes_first_and_the_padding_is_zero(self) -> None:
        assert self.naive_pack([1, -1, 7]) == bytes([0xF1, 0x07])
        assert self.codec.pack(np.array([1, -1, 7], dtype=np.int8)) == bytes([0xF1, 0x07])  # type: ignore[attr-defined]

    def test_a_refusal_names_the_tensor(self) -> None:
        layout = Layout.of([("w", (2,)), ("b", (3,))])
        good = [b"\x11", b"\x11\x01"]
        assert codecs.wrong_data("int4", good, (1.0, 1.0), layout) is None
        for bad in (b"\x18\x01", b"\x81\x01", b"\x11\x08", b"\x11\x11"):
            problem = codecs.wrong_data("int4", [good[0], bad], (1.0, 1.0), layout)
            assert (
                problem is not None and problem.text == "tensor b has the level -8, or padding that is not 0"
            )


class TestFloat32(CodecLaws):
    name = "float32"
    bits = 32
    levels_off_max = 0.0
    scales = (1.0,)
    bad_scales = (0.0, 0.5, 1.0000000000000002, 2.0, 1e308)

    def naive_unpack(self, data: bytes, elements: int) -> list[float]:
        return naive.unpack_float32(data)[:elements]

    def naive_pack(self, levels: Sequence[float]) -> bytes | None:
        return struct.pack(f"<{len(levels)}f", *levels)

    def is_canonical(self, data: bytes, elements: int) -> bool:
        return len(data) == 4 * elements  # every bit pattern is a number of its own, or none

    def naive_added(self, level: float, scale: float, factor: float, unit: float) -> int:
        assert scale == 1.0
        return round(level * (factor * unit))

    def test_values_travel_unchanged(self) -> None:
        data, scales = self.encoded(LAYOUT, 1)
        tensors = codecs.encode_delta(delta(1), LAYOUT, "float32", np.random.default_rng(1))
        assert b"".join(one.data for one in tensors) == delta(1).tobytes()
        assert scales == (1.0, 1.0, 1.0)
        assert all(data)

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_an_element_that_is_no_number_is_not_finite(self, bad: float) -> None:
        data = struct.pack("<4f", 1.0, bad, 0.0, 1.0)
        assert codecs.wrong_data("float32", [data], (1.0,), ONE) is None
        assert not codecs.is_finite(codecs.view_delta("float32", [data], (1.0,), ONE))


def test_every_codec_is_held_to_the_laws() -> None:
    held = {*CodecLaws.__subclasses__(), *QuantizedCodecLaws.__subclasses__()} - {QuantizedCodecLaws}
    assert {laws.name for laws in held} == set(CODECS)


def test_an_unknown_codec_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(UsageProblem, match=f"'int3', the known ones are {', '.join(CODECS)}") as caught:
        codecs.encode_delta(delta(1), LAYOUT, "int3", np.random.default_rng(1))
    assert caught.value.error_id == "FLV-2006"


def test_a_device_encodes_by_every_codec_without_a_compiler() -> None:
    program = """
import sys
import numpy as np
from aggregation.codecs import CODECS, encode_delta
from aggregation.layout import Layout

layout = Layout.of([("w", (5,))])
for name in CODECS:
    encode_delta(np.ones(5, dtype=np.float32), layout, name, np.random.default_rng(1))
print(sorted({"numba", "llvmlite"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# -- directions


def test_the_cosine_with_nothing_is_zero() -> None:
    nothing = codecs.direction_of(np.zeros(LAYOUT.parameters), LAYOUT)
    one = view_of(delta(1))
    assert codecs.cosine(one, codecs.measure(one, LAYOUT).norm, nothing, LAYOUT) == 0.0
    still = codecs.direction_of(delta(1).astype(np.float64), LAYOUT)
    assert codecs.cosine(one, 0.0, still, LAYOUT) == 0.0


def test_the_opposite_direction_has_cosine_minus_one_and_never_less() -> None:
    reference = codecs.direction_of(delta(1).astype(np.float64), LAYOUT)
    one = Delta("int8", (-reference.q).astype(np.int8), reference.scales)
    cosine = codecs.cosine(one, codecs.measure(one, LAYOUT).norm, reference, LAYOUT)
    assert -1.0 <= cosine <= -1.0 + 1e-12


def test_a_reference_keeps_the_direction() -> None:
    step = delta(9).astype(np.float64)
    reference = codecs.direction_of(step, LAYOUT)
    there = reference.q * np.repeat(reference.scales, np.diff(LAYOUT.starts))
    assert float(step @ there / np.linalg.norm(step) / np.linalg.norm(there)) > 0.999
    assert reference.norm == pytest.approx(float(np.linalg.norm(there)))


def test_a_reference_of_subnormal_numbers_stays_finite() -> None:
    reference = codecs.direction_of(np.full(4, 5e-324), ONE)
    assert np.all(np.isfinite(reference.scales))
    assert math.isfinite(reference.norm)


def view_of(values: np.ndarray[tuple[int], np.dtype[np.float32]]) -> Delta:
    tensors = encoded(values)
    return codecs.view_delta("int8", [t.data for t in tensors], tuple(t.scale for t in tensors), LAYOUT)
