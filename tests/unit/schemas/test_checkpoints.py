"""Arrays to bytes and back; what is not an array of ours is refused."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import numpy as safetensors_numpy

from aggregation.codecs import direction_of
from aggregation.errors import IntegrityProblem
from aggregation.layout import Layout
from schemas import checkpoints
from tests.factories import LAYOUT, delta

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL = delta(1)
OTHER = Layout.of([("x", (3,))])


def test_a_model_survives_bit_for_bit_and_equal_models_give_equal_bytes() -> None:
    data = checkpoints.encode_model(MODEL, LAYOUT)
    assert checkpoints.decode_model(data, LAYOUT).tobytes() == MODEL.tobytes()
    assert checkpoints.encode_model(MODEL.copy(), LAYOUT) == data


def test_a_model_file_can_be_read_by_anyone_by_name_and_shape() -> None:
    tensors = safetensors_numpy.load(checkpoints.encode_model(MODEL, LAYOUT))
    assert {name: tensor.shape for name, tensor in tensors.items()} == dict(
        zip(LAYOUT.names, LAYOUT.shapes, strict=True)
    )


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9).filter(
    lambda name: name != "__metadata__"
)
SHAPES = st.lists(st.integers(1, 4), max_size=3).map(tuple)


@settings(deadline=None)
@given(st.dictionaries(NAMES, SHAPES, min_size=1, max_size=6))
def test_files_are_the_librarys_to_the_byte_whatever_the_names(shapes: dict[str, tuple[int, ...]]) -> None:
    layout = Layout.of(shapes.items())
    model = np.arange(layout.parameters, dtype=np.float32)
    tensors = {
        name: model[layout.starts[t] : layout.starts[t + 1]].reshape(shapes[name])
        for t, name in enumerate(layout.names)
    }
    assert checkpoints.encode_model(model, layout) == safetensors_numpy.save(tensors)
    state = {name: np.arange(3.0) for name in shapes}
    assert checkpoints.encode_optimizer(state) == safetensors_numpy.save(state)


def test_other_files_are_the_librarys_to_the_byte() -> None:
    reference = direction_of(MODEL.astype(np.float64), LAYOUT)
    theirs = safetensors_numpy.save(
        {"fluvial.step": reference.q, "fluvial.scales": np.array(reference.scales, dtype=np.float64)}
    )
    assert checkpoints.encode_direction(reference) == theirs
    assert checkpoints.encode_optimizer({}) == safetensors_numpy.save({})
    strided = {"m": np.arange(10.0)[::2]}
    assert checkpoints.encode_optimizer(strided) == safetensors_numpy.save({"m": np.arange(10.0)[::2].copy()})


def test_optimizer_state_survives() -> None:
    state = {"m": np.linspace(0, 1, LAYOUT.parameters), "v": np.ones(LAYOUT.parameters)}
    again = checkpoints.decode_optimizer(checkpoints.encode_optimizer(state), LAYOUT)
    assert {name: array.tobytes() for name, array in again.items()} == {
        name: array.tobytes() for name, array in state.items()
    }
    assert checkpoints.decode_optimizer(checkpoints.encode_optimizer({}), LAYOUT) == {}


def test_sums_are_plain_little_endian_integers() -> None:
    sums = np.array([1, -1, (1 << 63) - 1, -(1 << 63)], dtype=np.int64)
    four = Layout.of([("w", (4,))])
    data = checkpoints.encode_sums(sums)
    assert data[:16] == b"\x01" + bytes(7) + b"\xff" * 8
    assert checkpoints.decode_sums(data, four).tolist() == sums.tolist()


def test_a_reference_survives() -> None:
    reference = direction_of(MODEL.astype(np.float64), LAYOUT)
    again = checkpoints.decode_direction(checkpoints.encode_direction(reference), LAYOUT)
    assert (again.q.tobytes(), again.scales, again.norm) == (
        reference.q.tobytes(),
        reference.scales,
        reference.norm,
    )


GOOD: dict[str, tuple[bytes, Callable[[bytes, Layout], object]]] = {
    "model": (checkpoints.encode_model(MODEL, LAYOUT), checkpoints.decode_model),
    "optimizer": (
        checkpoints.encode_optimizer({"velocity": np.ones(LAYOUT.parameters)}),
        checkpoints.decode_optimizer,
    ),
    "sums": (bytes(8 * LAYOUT.parameters), checkpoints.decode_sums),
    "reference": (
        checkpoints.encode_direction(direction_of(MODEL.astype(np.float64), LAYOUT)),
        checkpoints.decode_direction,
    ),
}


@pytest.mark.parametrize("kind", GOOD)
def test_an_object_of_another_layout_or_kind_is_refused(kind: str) -> None:
    data, decode = GOOD[kind]
    others = [other for name, (other, _) in GOOD.items() if name != kind]
    for bad in (b"", b"\0" * 9, data[:-1], data + b"\0", *others):
        with pytest.raises(IntegrityProblem) as caught:
            decode(bad, LAYOUT)
        assert caught.value.error_id == "FLV-4101"
    with pytest.raises(IntegrityProblem):
        decode(data, OTHER)


def test_a_model_of_another_type_is_refused() -> None:
    doubles = {s.name: np.zeros(s.shape) for s in LAYOUT.tensors}
    with pytest.raises(IntegrityProblem, match="float64"):
        checkpoints.decode_model(safetensors_numpy.save(doubles), LAYOUT)


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "BOOL", "C64", "F4", "X"])
def test_an_odd_type_in_the_header_is_refused_and_nothing_else_happens(dtype: str) -> None:
    data = GOOD["model"][0].replace(b'"F32"', f'"{dtype}"'.encode().ljust(5), 1)
    with pytest.raises(IntegrityProblem):
        checkpoints.decode_model(data, LAYOUT)


@pytest.mark.parametrize("kind", ["model", "optimizer", "reference"])
def test_changed_bytes_are_read_or_refused_but_never_raise_anything_else(kind: str) -> None:
    data, decode = GOOD[kind]
    rng = random.Random(3)
    for _ in range(1500):
        spoiled = bytearray(data)
        for _ in range(rng.randint(1, 3)):
            header_or_all = len(spoiled) if rng.random() < 0.2 else min(len(spoiled), 200)
            spoiled[rng.randrange(header_or_all)] = rng.randrange(256)
        try:
            decode(bytes(spoiled), LAYOUT)
        except IntegrityProblem:
            continue


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "F8_E5M2", "F99", "F4"])
def test_a_file_of_a_dtype_that_is_none_of_ours_is_damage_and_no_defect(dtype: str) -> None:
    header = json.dumps({"a": {"dtype": dtype, "shape": [2], "data_offsets": [0, 4]}}).encode()
    data = len(header).to_bytes(8, "little") + header + bytes(4)
    for decode in (checkpoints.decode_model, checkpoints.decode_optimizer, checkpoints.decode_direction):
        with pytest.raises(IntegrityProblem) as caught:
            decode(data, LAYOUT)
        assert caught.value.error_id == "FLV-4101"
