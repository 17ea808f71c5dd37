"""Tensors of any dtype in safetensors, and what bfloat16 and float16 make of float32, held against torch."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.torch
import torch

from aggregation.errors import IntegrityProblem
from schemas.tensor_files import (
    float32_of,
    held_in,
    raw_tensor,
    read_metadata,
    read_tensors,
    write_tensors,
)

VALUES = np.concatenate(
    [
        np.random.default_rng(0).normal(size=4000) * 10.0 ** np.random.default_rng(1).integers(-44, 38, 4000),
        [0.0, -0.0, np.inf, -np.inf, 3.4e38, 65520.0, 65519.0, 1e-45, 1.00390625, 1.01171875],
    ]
).astype(np.float32)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_what_a_dtype_holds_is_what_torch_rounds_to(dtype: str) -> None:
    wanted = torch.from_numpy(VALUES).to(getattr(torch, dtype)).float().numpy()
    assert held_in(VALUES, dtype).tobytes() == wanted.tobytes()
    assert np.isnan(held_in(np.array([np.nan], np.float32), dtype)).all()


def test_files_of_torch_are_read_and_files_of_ours_are_torchs() -> None:
    tensors = {
        "scalar": torch.tensor(1.5),
        "half": torch.tensor([1.0, -2.5]).half(),
        "brain": torch.tensor([[1.0, -2.5]]).bfloat16(),
        "wide": torch.tensor([0.1], dtype=torch.float64),
        "count": torch.tensor([1, 2]),
        "flag": torch.tensor([True]),
        "none": torch.zeros(0, 3),
    }
    read = read_tensors(safetensors.torch.save(tensors))
    assert {name: str(raw) for name, raw in read.items()} == {
        name: f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
        for name, value in tensors.items()
    }
    for name in ("scalar", "half", "brain", "wide"):
        assert np.array_equal(float32_of(read[name]), tensors[name].float().numpy())
    data = write_tensors(read, {"said": "this"})
    assert read_metadata(data) == {"said": "this"}
    again = safetensors.torch.load(data)
    assert all(torch.equal(again[name], value) for name, value in tensors.items())
    assert write_tensors(dict(reversed(read.items())), {"said": "this"}) == data


def test_arrays_of_numpy_are_written_as_they_are() -> None:
    arrays = {
        "turned": np.arange(6.0).reshape(2, 3).T,
        "big-endian": np.array([1, 2], ">i4"),
        "zero-d": np.array(2.0),
    }
    data = write_tensors({name: raw_tensor(array) for name, array in arrays.items()})
    again = safetensors.torch.load(data)
    assert all(np.array_equal(again[name].numpy(), array) for name, array in arrays.items())


def test_equal_tensors_and_metadata_give_equal_bytes_in_any_order() -> None:
    tensors = {name: raw_tensor(np.full(3, 1.5, np.float32)) for name in "bca"}
    metadata = {f"key {number}": 'ä \n \\ "' * number for number in range(9)}
    files = {
        write_tensors(dict(sorted(tensors.items())), dict(reversed(metadata.items()))),
        *(write_tensors(tensors, metadata) for _ in range(9)),
    }
    (data,) = files
    assert read_metadata(data) == metadata
    assert sorted(safetensors.torch.load(data)) == ["a", "b", "c"]


@pytest.mark.parametrize("data", [b"", b"nothing", b"\x08\0\0\0\0\0\0\0{broken}"])
def test_what_is_no_file_of_tensors_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityProblem) as caught:
        read_tensors(data)
    assert caught.value.error_id == "FLV-4101"
