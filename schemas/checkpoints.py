"""Arrays to bytes and back.

Equal arrays give equal bytes: safetensors with no metadata, tensors sorted as its own writer does. A file is written
here in one copy, where the library's takes three of what may be the largest thing in a process.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors import numpy as safetensors_numpy

from aggregation.codecs import Direction, direction_from
from aggregation.errors import IntegrityProblem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aggregation.layout import Layout

_SCALES: Final = "fluvial.scales"
_STEP: Final = "fluvial.step"
_DTYPES: Final = {"<f8": "F64", "<f4": "F32", "|i1": "I8"}
"""Of what is written here. The wider ones stand first in a file, those of one width by name."""
_ALIGNMENT: Final = 8


def encode_model(model: npt.NDArray[np.float32], layout: Layout) -> bytes:
    """Model float32[P] as one safetensors file with the layout's tensor names and shapes."""
    flat = np.ascontiguousarray(model)  # of the whole: of a scalar it would make a vector
    return _file_of(
        {
            spec.name: flat[layout.starts[t] : layout.starts[t + 1]].reshape(spec.shape)
            for t, spec in enumerate(layout.tensors)
        }
    )


def decode_model(data: bytes, layout: Layout) -> npt.NDArray[np.float32]:
    """The inverse of ``encode_model``: float32[P].

    IntegrityProblem (FLV-4101) when it is not of this layout.
    """
    tensors = _load(data)
    if sorted(tensors) != sorted(layout.names):
        raise IntegrityProblem(
            "FLV-4101", f"the model file has other tensors than the task's layout: {sorted(tensors)[:4]}"
        )
    flat = np.empty(layout.parameters, dtype=np.float32)
    for t, spec in enumerate(layout.tensors):
        tensor = tensors[spec.name]
        if tensor.shape != spec.shape or tensor.dtype != np.float32:
            raise IntegrityProblem(
                "FLV-4101",
                f"tensor {spec.name} is {tensor.dtype}{tensor.shape}, expected float32{spec.shape}",
            )
        flat[layout.starts[t] : layout.starts[t + 1]] = tensor.reshape(-1)
    return flat


def encode_optimizer(state: Mapping[str, npt.NDArray[np.float64]]) -> bytes:
    """The server optimizer's arrays by name, each float64 with an element a weight."""
    return _file_of(state)


def decode_optimizer(data: bytes, layout: Layout) -> dict[str, npt.NDArray[np.float64]]:
    """The inverse of ``encode_optimizer``."""
    tensors = _load(data)
    for name, tensor in tensors.items():
        if tensor.shape != (layout.trainable.parameters,) or tensor.dtype != np.float64:
            raise IntegrityProblem("FLV-4101", f"optimizer array {name} is {tensor.dtype}{tensor.shape}")
    return tensors


def encode_sums(sums: npt.NDArray[np.int64]) -> bytes:
    """A window's sums: little-endian int64[``layout.sum_elements_of(buckets)``]."""
    return sums.astype("<i8", copy=False).tobytes()


def sums_bytes(layout: Layout, buckets: int = 1) -> int:
    """How long a window's sums in so many buckets are."""
    return 8 * layout.sum_elements_of(buckets)


def decode_sums(data: bytes, layout: Layout, buckets: int = 1) -> npt.NDArray[np.int64]:
    """The inverse of ``encode_sums``, read-only."""
    expected = sums_bytes(layout, buckets)
    if len(data) != expected:
        raise IntegrityProblem("FLV-4101", f"sums of {len(data)} bytes, expected {expected}")
    return np.frombuffer(data, dtype="<i8")


def encode_direction(reference: Direction) -> bytes:
    """A fixed-point step of the weights: int8 an element, and one float64 scale a tensor."""
    scales = np.array(reference.scales, dtype=np.float64)
    return _file_of({_STEP: reference.q, _SCALES: scales})


def decode_direction(data: bytes, layout: Layout) -> Direction:
    """The inverse of ``encode_direction``."""
    tensors, layout = _load(data), layout.trainable
    q, scales = tensors.get(_STEP), tensors.get(_SCALES)
    good = q is not None and q.shape == (layout.parameters,) and q.dtype == np.int8
    if not good or scales is None or scales.shape != (len(layout.tensors),) or scales.dtype != np.float64:
        raise IntegrityProblem("FLV-4101", "the reference object is not of the task's layout")
    assert q is not None
    return direction_from(q, tuple(scales.tolist()), layout)


def _file_of(tensors: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """The library's bytes: the size of the header, the header padded to eight bytes, the tensors one after another."""
    order = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name.encode()))
    header, at = {}, 0
    for name in order:
        tensor = tensors[name]
        span = [at, at + tensor.nbytes]
        header[name] = {"dtype": _DTYPES[tensor.dtype.str], "shape": list(tensor.shape), "data_offsets": span}
        at = span[1]
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    bulk = (np.ascontiguousarray(tensors[name]).reshape(-1).view(np.uint8).data for name in order)
    return b"".join((len(text).to_bytes(_ALIGNMENT, "little"), text, *bulk))


def _load(data: bytes) -> dict[str, npt.NDArray[Any]]:
    try:
        return safetensors_numpy.load(data)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        # A dtype that numpy has not is a KeyError of the library's; none of ours is one.
        raise IntegrityProblem("FLV-4101", f"not a safetensors file of ours: {error}") from error
