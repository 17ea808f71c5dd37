"""What goes between Fluvial and a Flower app's process: whole frames, or an error that says what came."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from fluvial.flower.wire import HEAD, MAGIC, FrameError, read_frame, write_frame

ARRAYS: list[np.ndarray] = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.array(7, np.int64),
    np.zeros((0, 4), np.float64),
    np.asfortranarray(np.arange(6, dtype=np.float16).reshape(3, 2)),
]


def frame(document: dict[str, Any] | None = None, arrays: Sequence[np.ndarray] = ()) -> bytes:
    stream = io.BytesIO()
    write_frame(stream, document or {}, arrays)
    return stream.getvalue()


def test_what_is_written_is_read_again_one_frame_after_the_other() -> None:
    stream = io.BytesIO(frame({"do": "train", "names": ["a/b", "ä"]}, ARRAYS) + frame({"do": "evaluate"}))
    document, arrays = read_frame(stream) or ({}, [])
    assert document == {"do": "train", "names": ["a/b", "ä"]}
    for one, other in zip(arrays, ARRAYS, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        np.testing.assert_array_equal(one, other)
    assert read_frame(stream) == ({"do": "evaluate"}, [])
    assert read_frame(stream) is None


def test_numbers_that_json_has_no_name_for_travel_as_well() -> None:
    document, _ = read_frame(io.BytesIO(frame({"loss": float("nan"), "lr": float("inf")}))) or ({}, [])
    assert np.isnan(document["loss"])
    assert document["lr"] == float("inf")


@pytest.mark.parametrize("cut", [3, HEAD.size, HEAD.size + 3, -1])
def test_a_frame_that_is_cut_off_is_no_frame(cut: int) -> None:
    with pytest.raises(FrameError):
        read_frame(io.BytesIO(frame({"do": "open"}, ARRAYS)[:cut]))


def test_what_a_program_prints_is_no_frame() -> None:
    with pytest.raises(FrameError, match="hello"):
        read_frame(io.BytesIO(b"hello, world\nand more\n"))


def test_a_document_larger_than_the_limit_is_not_read() -> None:
    with pytest.raises(FrameError, match="a document of"):
        read_frame(io.BytesIO(HEAD.pack(MAGIC, (1 << 24) + 1, 0)))


def test_a_document_that_is_no_object_is_refused() -> None:
    with pytest.raises(FrameError, match="no object"):
        read_frame(io.BytesIO(HEAD.pack(MAGIC, 2, 0) + b"[]"))


def test_arrays_of_objects_do_not_travel_either_way() -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        frame({}, [np.array([{}], dtype=object)])
    body = io.BytesIO()
    np.save(body, np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        read_frame(io.BytesIO(HEAD.pack(MAGIC, 2, body.tell()) + b"{}" + body.getvalue()))
