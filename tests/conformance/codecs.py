"""The laws of the codec family. Every codec inherits them: a subclass of ``CodecLaws`` says what is its own."""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt
import pytest

from aggregation import codecs
from aggregation.codecs import CODECS, Codec, Delta
from aggregation.layout import Layout
from aggregation.policy.checks import MAGNITUDE_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence

SHAPES: list[list[tuple[int, ...]]] = [
    [(1,)],
    [()],
    [(2,)],
    [(3,), (1,), (4,)],
    [(1,), (1,), (1,)],
    [(5, 3), (7,), (), (2, 2)],
    [(127, 1), (31, 3)],
    [(64, 5), (257,)],
]
SEEDS = range(3)
NO_SCALES = (-1.0, -5e-324, math.nan, math.inf, -math.inf)
CLIP, EXPONENT = 3.0, 32
TRIALS = 4000


def layout_of(shapes: Sequence[tuple[int, ...]]) -> Layout:
    return Layout.of([(f"t{number}", shape) for number, shape in enumerate(shapes)])


def values_of(layout: Layout, seed: int, size: float = 1.0) -> npt.NDArray[np.float32]:
    """Values over many magnitudes, with exact zeros among them."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=layout.parameters) * 10.0 ** rng.integers(-6, 1, layout.parameters)
    values[rng.random(layout.parameters) < 0.1] = 0.0
    return (size * values).astype(np.float32)


class CodecLaws:
    """What holds for every codec. ``naive_unpack`` and ``naive_pack`` are its bytes once more, written plainly."""

    name: ClassVar[str]
    bits: ClassVar[int]
    """Bits an element; a tensor is filled up to whole bytes."""
    levels_off_max: ClassVar[float]
    """How many levels an encoded element may be away from its value."""
    scales: ClassVar[tuple[float, ...]]
    """Scales that may stand in an update."""
    bad_scales: ClassVar[tuple[float, ...]] = ()
    """Finite scales, not negative, that may not."""

    @abstractmethod
    def naive_unpack(self, data: bytes, elements: int) -> list[float]: ...

    @abstractmethod
    def naive_pack(self, levels: Sequence[float]) -> bytes | None:
        """The only encoding of these levels; None where they have none."""

    @abstractmethod
    def naive_added(self, level: float, scale: float, factor: float, unit: float) -> int:
        """What one element adds to its sum."""

    def is_canonical(self, data: bytes, elements: int) -> bool:
        """Whether these bytes are the one encoding of what they say."""
        return self.naive_pack(self.naive_unpack(data, elements)) == data

    @property
    def codec(self) -> Codec:
        return CODECS[self.name]

    # -- helpers

    def encoded(self, layout: Layout, seed: int, size: float = 1.0) -> tuple[list[bytes], tuple[float, ...]]:
        rng = np.random.default_rng(seed + 1000)
        tensors = codecs.encode_delta(values_of(layout, seed, size), layout, self.name, rng)
        return [one.data for one in tensors], tuple(one.scale for one in tensors)

    def view(self, layout: Layout, seed: int, size: float = 1.0) -> Delta:
        data, scales = self.encoded(layout, seed, size)
        assert codecs.wrong_data(self.name, data, scales, layout) is None
        return codecs.view_delta(self.name, data, scales, layout)

    def levels(self, layout: Layout, data: Sequence[bytes]) -> list[list[float]]:
        return [self.naive_unpack(one, spec.size) for one, spec in zip(data, layout.tensors, strict=True)]

    def of_levels(self, layout: Layout, levels: Sequence[float], scales: tuple[float, ...]) -> Delta:
        """A delta of these levels, which need not be such as a device would write."""
        edges = layout.starts.tolist()
        data = [self.naive_pack(levels[a:b]) for a, b in itertools.pairwise(edges)]
        assert all(one is not None for one in data)
        return codecs.view_delta(self.name, [one or b"" for one in data], scales, layout)

    def decoded(
        self, layout: Layout, data: Sequence[bytes], scales: Sequence[float]
    ) -> npt.NDArray[np.float64]:
        parts = [
            np.array(levels) * scale for levels, scale in zip(self.levels(layout, data), scales, strict=True)
        ]
        return np.concatenate(parts)

    # -- the table

    def test_it_stands_in_the_table_under_its_own_name(self) -> None:
        assert self.codec.name == self.name

    # -- what a device writes

    @pytest.mark.parametrize("elements", [1, 2, 3, 7, 8, 9, 1000, 1001])
    def test_its_bytes_are_its_bits_filled_up(self, elements: int) -> None:
        assert self.codec.data_bytes(elements) == -(-elements * self.bits // 8)
        _, data = self.codec.encode(np.ones(elements, dtype=np.float32), np.random.default_rng(1))
        assert len(data) == self.codec.data_bytes(elements)

    @pytest.mark.parametrize("shapes", SHAPES)
    @pytest.mark.parametrize("seed", SEEDS)
    def test_a_round_trip_is_off_by_no_more_than_its_levels(
        self, shapes: list[tuple[int, ...]], seed: int
    ) -> None:
        layout = layout_of(shapes)
        data, scales = self.encoded(layout, seed)
        off = np.abs(self.decoded(layout, data, scales) - values_of(layout, seed))
        assert np.all(off <= self.levels_off_max * np.repeat(scales, np.diff(layout.starts)) * (1 + 1e-9))

    def test_what_it_writes_is_right_in_the_mean(self) -> None:
        layout = layout_of([(5,)])
        values = np.array([0.3, -0.3, 1.0, 0.004, -0.71], dtype=np.float32)
        rng = np.random.default_rng(7)
        total, scale = np.zeros(5), 0.0
        for _ in range(TRIALS):
            (one,) = codecs.encode_delta(values, layout, self.name, rng)
            total += self.decoded(layout, [one.data], [one.scale])
            scale = one.scale
        assert np.all(np.abs(total / TRIALS - values) <= 5 * self.levels_off_max * scale / math.sqrt(TRIALS))

    def test_equal_seeds_give_equal_bytes(self) -> None:
        layout = layout_of([(64, 5)])
        assert self.encoded(layout, 3) == self.encoded(layout, 3)

    def test_the_largest_value_of_a_tensor_keeps_its_size(self) -> None:
        layout = layout_of([(3,)])
        rng = np.random.default_rng(1)
        for sign in (1, -1):
            values = np.array([0.0, sign * 0.75, 0.1], dtype=np.float32)
            (one,) = codecs.encode_delta(values, layout, self.name, rng)
            assert self.decoded(layout, [one.data], [one.scale])[1] == pytest.approx(sign * 0.75)

    @pytest.mark.parametrize("shapes", SHAPES)
    def test_zeros_stay_zeros_and_have_no_norm(self, shapes: list[tuple[int, ...]]) -> None:
        layout = layout_of(shapes)
        zeros = np.zeros(layout.parameters, dtype=np.float32)
        tensors = codecs.encode_delta(zeros, layout, self.name, np.random.default_rng(1))
        scales = tuple(one.scale for one in tensors)
        assert codecs.wrong_data(self.name, [one.data for one in tensors], scales, layout) is None
        one = codecs.view_delta(self.name, [one.data for one in tensors], scales, layout)
        assert codecs.is_finite(one)
        assert codecs.measure(one, layout) == codecs.Measured(0.0, (False,) * len(shapes))

    @pytest.mark.parametrize("size", [1e-44, 1e-38, 1e-20, 1e20, 1e37])
    def test_the_smallest_and_the_largest_values_travel(self, size: float) -> None:
        layout = layout_of([(5,), (2,)])
        values = np.array([1, -1, 0.5, 0, 0.25, 1, -0.75], dtype=np.float32) * np.float32(size)
        tensors = codecs.encode_delta(values, layout, self.name, np.random.default_rng(1))
        decoded = self.decoded(layout, [one.data for one in tensors], [one.scale for one in tensors])
        scales = np.repeat([one.scale for one in tensors], np.diff(layout.starts))
        assert np.all(np.abs(decoded - values) <= self.levels_off_max * scales * (1 + 1e-9))

    def test_its_arguments_are_left_as_they_are(self) -> None:
        values = np.array([0.5, -0.25, 0.125], dtype=np.float32)
        before = values.tobytes()
        self.codec.encode(values, np.random.default_rng(1))
        assert values.tobytes() == before

    # -- which bytes it takes

    @pytest.mark.parametrize("shapes", SHAPES)
    def test_a_tensor_of_another_length_is_refused_by_name(self, shapes: list[tuple[int, ...]]) -> None:
        layout = layout_of(shapes)
        data, scales = self.encoded(layout, 1)
        for t in range(len(data)):
            for wrong in (data[t] + b"\0", data[t][:-1], b""):
                bad = [*data[:t], wrong, *data[t + 1 :]]
                problem = codecs.wrong_data(self.name, bad, scales, layout)
                assert (
                    problem is not None
                    and problem.text == f"tensor t{t} has {len(wrong)} bytes, expected {len(data[t])}"
                )

    @pytest.mark.parametrize("elements", [1, 2, 3])
    def test_bytes_are_taken_if_and_only_if_they_are_the_one_encoding_of_their_levels(
        self, elements: int
    ) -> None:
        """All of them where they are one or two, else samples."""
        length = self.codec.data_bytes(elements)
        rng = np.random.default_rng(2)
        candidates = (
            [bytes(pair) for pair in itertools.product(range(256), repeat=length)]
            if length <= 2
            else [rng.bytes(length) for _ in range(2000)]
        )
        good = bytes(self.codec.data_bytes(1))
        scales = (self.scales[0], self.scales[0])
        first, second = layout_of([(elements,), (1,)]), layout_of([(1,), (elements,)])
        taken = 0
        for data in candidates:
            expected = self.is_canonical(data, elements)
            for tensors, layout in (([data, good], first), ([good, data], second)):
                assert (codecs.wrong_data(self.name, tensors, scales, layout) is None) == expected, data.hex()
            taken += expected
        assert taken > 0

    def test_a_scale_has_to_be_finite_and_not_negative(self) -> None:
        layout = layout_of([(3,)])
        data = [self.codec.encode(np.zeros(3, dtype=np.float32), np.random.default_rng(1))[1]]
        for scale in NO_SCALES:
            assert codecs.wrong_data(self.name, data, [scale], layout) is None  # no matter of form
            assert not codecs.is_finite(codecs.view_delta(self.name, data, (scale,), layout))
        for scale in self.scales:
            assert codecs.wrong_data(self.name, data, [scale], layout) is None
            assert codecs.is_finite(codecs.view_delta(self.name, data, (scale,), layout))
        for scale in self.bad_scales:
            problem = codecs.wrong_data(self.name, data, [scale], layout)
            assert problem is not None and "scale" in problem.text

    def test_decoding_for_the_eye_gives_the_levels(self) -> None:
        for elements in (1, 2, 5, 8):
            layout = layout_of([(elements,)])
            (data,), _ = self.encoded(layout, elements)
            assert self.codec.decode(data).tolist()[:elements] == self.naive_unpack(data, elements)
            assert not any(self.codec.decode(data)[elements:])

    # -- what the fold makes of them

    @pytest.mark.parametrize("shapes", SHAPES)
    @pytest.mark.parametrize("seed", SEEDS)
    def test_its_sums_equal_their_naive_twins_bit_for_bit(
        self, shapes: list[tuple[int, ...]], seed: int
    ) -> None:
        layout = layout_of(shapes)
        data, scales = self.encoded(layout, seed)
        levels = self.levels(layout, data)
        rng = np.random.default_rng(seed)
        along = rng.integers(-127, 128, layout.parameters).astype(np.int8)
        elements = self.codec.view(data, layout)
        self.check_measures(layout, elements, levels, along)

        factor, unit = 0.37, float(1 << 40)
        sums = rng.integers(-(1 << 60), 1 << 60, layout.parameters)
        expected = [
            before + (self.naive_added(level, scale, factor, unit) if level else 0)
            for before, (level, scale) in zip(
                sums.tolist(),
                [(one, scale) for part, scale in zip(levels, scales, strict=True) for one in part],
                strict=True,
            )
        ]
        nonzero = [any(part) for part in levels]
        self.codec.accumulate_into(
            sums, elements, layout, scales=scales, nonzero=nonzero, factor=factor, unit=unit
        )
        assert sums.tolist() == expected

    def check_measures(
        self,
        layout: Layout,
        elements: codecs.shape.Elements,
        levels: list[list[float]],
        along: npt.NDArray[np.int8],
    ) -> None:
        squares, dots = [], []
        other = iter(along.tolist())
        for part in levels:
            square: float = 0
            dot: float = 0
            for level in part:  # one after the other, as the kernels do
                square += level * level
                dot += level * next(other)
            squares.append(square)
            dots.append(dot)
        assert self.codec.squares(elements, layout) == squares
        assert self.codec.dots(elements, along, layout) == dots
        assert self.codec.squares_and_dots(elements, along, layout) == (squares, dots)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_norm_and_cosine_are_those_of_the_decoded_delta(self, seed: int) -> None:
        layout = layout_of([(5, 3), (7,), ()])
        data, scales = self.encoded(layout, seed)
        here = self.decoded(layout, data, scales)
        one = codecs.view_delta(self.name, data, scales, layout)
        norm = codecs.measure(one, layout).norm
        assert norm == pytest.approx(float(np.linalg.norm(here)))
        step = values_of(layout, seed + 50).astype(np.float64)
        reference = codecs.direction_of(step, layout)
        there = reference.q * np.repeat(reference.scales, np.diff(layout.starts))
        expected = float(here @ there / np.linalg.norm(here) / np.linalg.norm(there))
        assert codecs.cosine(one, norm, reference, layout) == pytest.approx(expected)
        measured = codecs.measure(one, layout, reference)
        assert measured.cosine == codecs.cosine(one, norm, reference, layout)
        assert replace(measured, cosine=0.0) == codecs.measure(one, layout)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_a_sum_does_not_depend_on_the_order_of_its_updates(self, seed: int) -> None:
        layout = layout_of([(5, 3), (7,), ()])
        deltas = [self.view(layout, seed * 10 + n, size=10.0**n) for n in range(4)]
        totals = set()
        for order in itertools.permutations(deltas):
            sums = np.zeros(layout.parameters, dtype=np.int64)
            for one in order:
                measured = codecs.measure(one, layout)
                clip = min(1.0, CLIP / measured.norm)
                codecs.accumulate_into(sums, one, measured, layout, weight=0.7, clip=clip, exponent=EXPONENT)
            totals.add(sums.tobytes())
        assert len(totals) == 1

    def test_halving_the_clip_halves_what_is_added(self) -> None:
        layout = layout_of([(64, 5)])
        one = self.view(layout, 5)
        measured = codecs.measure(one, layout)
        whole, half = (np.zeros(layout.parameters, dtype=np.int64) for _ in range(2))
        codecs.accumulate_into(whole, one, measured, layout, weight=1.0, clip=1.0, exponent=EXPONENT)
        codecs.accumulate_into(half, one, measured, layout, weight=1.0, clip=0.5, exponent=EXPONENT)
        assert np.all(np.abs(whole - 2 * half) <= self.codec.magnitude_max + 1)
        assert np.any(whole)

    @pytest.mark.parametrize("exponent", [8, 24, 32, 48])
    @pytest.mark.parametrize("size", [1e-3, 0.99, 1.0, 1.01, 1e4, 1e30])
    def test_no_clipped_update_adds_more_than_the_policys_overflow_check_assumes(
        self, exponent: int, size: float
    ) -> None:
        """As in ``policy``: the clip, a few parts in 2**50 of it, one unit, and half a unit for every level."""
        layout = layout_of([(1,), (2,), (3,)])
        clip_units = math.ceil(CLIP * (1 << exponent))
        bound = clip_units + (clip_units >> 50) + 1 + self.codec.magnitude_max
        for seed in range(20):
            values = np.zeros(layout.parameters, dtype=np.float32)
            values[seed % layout.parameters] = CLIP * size * (1 if seed % 2 else -1)
            values[3:] += np.float32(seed % 3) * np.float32(CLIP / 7)
            tensors = codecs.encode_delta(values, layout, self.name, np.random.default_rng(seed))
            data, scales = [one.data for one in tensors], tuple(one.scale for one in tensors)
            one = codecs.view_delta(self.name, data, scales, layout)
            measured = codecs.measure(one, layout)
            clip = CLIP / measured.norm if measured.norm > CLIP else 1.0
            sums = np.zeros(layout.parameters, dtype=np.int64)
            codecs.accumulate_into(sums, one, measured, layout, weight=1.0, clip=clip, exponent=exponent)
            assert int(np.abs(sums).max()) <= bound

    def test_its_levels_are_within_what_the_policys_overflow_check_assumes(self) -> None:
        assert 1 <= self.codec.magnitude_max <= MAGNITUDE_MAX

    def test_no_level_is_larger_than_its_magnitude_says(self) -> None:
        rng = np.random.default_rng(3)
        layout = layout_of([(64,)])
        if self.levels_off_max == 0:
            return  # nothing is rounded a level at a time: the magnitude bounds the one rounding of an element
        for _ in range(50):
            data = rng.bytes(self.codec.data_bytes(64))
            if codecs.wrong_data(self.name, [data], [self.scales[0]], layout) is None:
                assert max(map(abs, self.naive_unpack(data, 64))) <= self.codec.magnitude_max

    def test_it_takes_read_only_bytes_and_writes_into_nothing_but_the_sums(self) -> None:
        layout = layout_of([(5,), (3,)])
        data, scales = self.encoded(layout, 1)
        elements = self.codec.view(data, layout)
        before = elements.tobytes()
        along = np.ones(8, dtype=np.int8)
        along.flags.writeable = False
        self.codec.squares(elements, layout)
        self.codec.dots(elements, along, layout)
        self.codec.accumulate_into(
            np.zeros(8, dtype=np.int64),
            elements,
            layout,
            scales=scales,
            nonzero=(True, True),
            factor=1.0,
            unit=1.0,
        )
        assert elements.tobytes() == before
