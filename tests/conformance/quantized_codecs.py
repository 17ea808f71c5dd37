"""The laws of codecs that write levels, beside those of every codec."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import pytest

from aggregation import codecs
from tests.conformance.codecs import SEEDS, CodecLaws, layout_of


class QuantizedCodecLaws(CodecLaws):
    """What holds for codecs of small integers beside that: one coefficient a tensor, any scale."""

    levels_off_max: ClassVar[float] = 1.0
    scales: ClassVar[tuple[float, ...]] = (1.0, 0.0, 5e-324, 1e-20, 3.5, 1e308)
    largest: ClassVar[int]
    """The largest level that a device writes."""

    def naive_added(self, level: float, scale: float, factor: float, unit: float) -> int:
        """One integer coefficient a tensor; Python's ``round`` of a float is exact and half to even."""
        return int(level) * round(factor * scale * unit)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_a_device_writes_no_level_beyond_the_largest(self, seed: int) -> None:
        layout = layout_of([(64, 5), (3,)])
        data, _ = self.encoded(layout, seed)
        levels = [level for part in self.levels(layout, data) for level in part]
        assert max(map(abs, levels)) == self.largest

    def test_a_huge_scale_over_zeros_is_still_zero(self) -> None:
        layout = layout_of([(3,)])
        one = self.of_levels(layout, [0, 0, 0], (1e308,))
        measured = codecs.measure(one, layout)
        assert measured == codecs.Measured(0.0, (False,))
        sums = np.zeros(3, dtype=np.int64)
        codecs.accumulate_into(sums, one, measured, layout, weight=1.0, clip=1.0, exponent=48)
        assert sums.tolist() == [0, 0, 0]

    def test_a_scale_whose_square_overflows_has_an_infinite_norm(self) -> None:
        layout = layout_of([(3,)])
        assert codecs.measure(self.of_levels(layout, [1, 1, 1], (1e200,)), layout).norm == math.inf

    @pytest.mark.parametrize("scale", [5e-324, 1e-200, 1e-160, 1e-20])
    def test_a_scale_whose_square_underflows_adds_nothing_that_the_norm_missed(self, scale: float) -> None:
        layout = layout_of([(3,)])
        one = self.of_levels(layout, [-self.largest, self.largest, 1], (scale,))
        sums = np.zeros(3, dtype=np.int64)
        codecs.accumulate_into(
            sums, one, codecs.measure(one, layout), layout, weight=1.0, clip=1.0, exponent=48
        )
        assert sums.tolist() == [0, 0, 0]

    @pytest.mark.parametrize("size", [1, 2, (1 << 16) - 1, 1 << 16, (1 << 16) + 1, (1 << 17) + 3])
    def test_long_runs_of_extremes_are_summed_exactly(self, size: int) -> None:
        layout = layout_of([(size,), (1,)])
        one = self.of_levels(layout, [-self.largest] * size + [self.largest], (1.0, 1.0))
        along = np.full(size + 1, 127, dtype=np.int8)
        assert self.codec.squares(one.flat, layout) == [size * self.largest**2, self.largest**2]
        assert self.codec.dots(one.flat, along, layout) == [-size * self.largest * 127, self.largest * 127]
