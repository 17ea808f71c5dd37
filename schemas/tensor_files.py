"""Files of tensors of any dtype, in safetensors, without a library that has those dtypes (numpy has no bfloat16).

Equal tensors and metadata give equal bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, TensorSpec, deserialize, serialize

from aggregation.errors import IntegrityProblem

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAMES: Final = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
}
"""As a file says them, and as numpy and torch do."""
FLOATS: Final = ("float32", "float64", "float16", "bfloat16")
"""What ``float32_of`` reads."""
_HEADER_BYTES: Final = 8


@dataclass(frozen=True, slots=True, eq=False)
class RawTensor:
    """One tensor. dtype: torch's name of it. data: its elements, little-endian in C order, as bytes uint8[n]."""

    dtype: str
    shape: tuple[int, ...]
    data: npt.NDArray[np.uint8]

    def same_as(self, other: RawTensor) -> bool:
        """Whether it is the same to the bit."""
        return (self.dtype, self.shape) == (other.dtype, other.shape) and np.array_equal(
            self.data, other.data
        )

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


def raw_tensor(array: npt.NDArray[np.generic]) -> RawTensor:
    """A tensor of a numpy array, whose memory it may share."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return RawTensor(array.dtype.name, array.shape, little.reshape(-1).view(np.uint8))


def write_tensors(tensors: Mapping[str, RawTensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file of these tensors."""
    specs = {
        name: TensorSpec(
            dtype=tensor.dtype,
            shape=list(tensor.shape),
            data_ptr=tensor.data.ctypes.data,
            data_len=tensor.data.size,
        )
        for name, tensor in tensors.items()
    }
    if not metadata:
        return bytes(serialize(specs))
    return _in_order(bytes(serialize(specs, metadata=dict(metadata))))


def _in_order(data: bytes) -> bytes:
    """The same file with its metadata sorted: the library writes them in any order."""
    size = int.from_bytes(data[:_HEADER_BYTES], "little")
    header = json.loads(data[_HEADER_BYTES : _HEADER_BYTES + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _HEADER_BYTES)
    return len(text).to_bytes(_HEADER_BYTES, "little") + text + data[_HEADER_BYTES + size :]


def read_tensors(data: bytes) -> dict[str, RawTensor]:
    """The inverse of ``write_tensors``. IntegrityProblem FLV-4101 when it is no safetensors file."""
    try:
        found = deserialize(data)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise IntegrityProblem("FLV-4101", f"not a safetensors file: {error}") from error
    return {
        name: RawTensor(
            _NAMES.get(view["dtype"], view["dtype"]),
            tuple(view["shape"]),
            np.frombuffer(view["data"], dtype=np.uint8),
        )
        for name, view in found
    }


def read_metadata(data: bytes) -> dict[str, str]:
    """The text that a safetensors file says about itself; empty when it says nothing."""
    size = int.from_bytes(data[:_HEADER_BYTES], "little")
    header = json.loads(data[_HEADER_BYTES : _HEADER_BYTES + size])
    return dict(header.get("__metadata__", {}))


def float32_of(tensor: RawTensor) -> npt.NDArray[np.float32]:
    """A tensor of one of ``FLOATS`` as float32: the nearest values where it has more digits."""
    if tensor.dtype == "bfloat16":
        wide = tensor.data.view("<u2").astype(np.uint32) << np.uint32(16)
        return wide.view(np.float32).reshape(tensor.shape)
    with np.errstate(over="ignore"):
        return (
            tensor.data.view(np.dtype(tensor.dtype).newbyteorder("<"))
            .astype(np.float32)
            .reshape(tensor.shape)
        )


def held_in(values: npt.NDArray[np.float32], dtype: str) -> npt.NDArray[np.float32]:
    """What a tensor of ``dtype``, one of ``FLOATS``, holds of ``values``: the nearest, ties to even."""
    if dtype == "float16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16).astype(np.float32)
    if dtype != "bfloat16":
        return values
    bits = values.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return np.where(np.isfinite(values), rounded, bits).astype(np.uint32).view(np.float32)
