"""The numbers of the fold and the merge, written to be believed at a glance: Python ints and floats, plain numpy.

Every floating-point operation is float64 and stands alone, in the order of docs/policy.md and ADR 2:
correctly rounded, so that any machine gets the same bits.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import numpy as safetensors

from fluvial.proof.checker.optimizers import OPTIMIZERS

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Model = npt.NDArray[np.float32]

WEIGHT_ONE: Final = 65536
INT8_LEVELS: Final = 127
MAD_TO_SIGMA: Final = 1.4826
SPREAD_MIN_OF_MEDIAN: Final = 0.1


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of the layout; it is ``flat[begin:end]`` of a flat array. Weights, then buffers, then control."""

    name: str
    shape: tuple[int, ...]
    begin: int
    end: int
    is_buffer: bool = False
    nonnegative: bool = False
    is_control: bool = False


@dataclass(frozen=True, slots=True)
class Direction:
    """The last global step: tensor t is ``scales[t] * q``, int8 a tensor; ``norm`` is its L2 norm."""

    q: list[npt.NDArray[np.int8]]
    scales: list[float]
    norm: float


def sha256(data: bytes) -> str:
    """SHA-256 in lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def murmur2(data: bytes) -> int:
    """Kafka's 32-bit murmur2, as org.apache.kafka.common.utils.Utils has it; unsigned."""
    m, word = 0x5BD1E995, 0xFFFFFFFF
    h = 0x9747B28C ^ len(data)
    while len(data) >= 4:  # noqa: PLR2004 (a word)
        k = int.from_bytes(data[:4], "little") * m & word
        k = (k ^ (k >> 24)) * m & word
        h = ((h * m) & word) ^ k
        data = data[4:]
    if data:
        h = ((h ^ int.from_bytes(data, "little")) * m) & word
    h = ((h ^ (h >> 13)) * m) & word
    return h ^ (h >> 15)


def partition_of(device_id: str, partitions: int) -> int:
    """Kafka's default partition of a key."""
    return (murmur2(device_id.encode()) & 0x7FFFFFFF) % partitions


def sum_bound(policy: dict[str, Any], accepted: int, weight_total: int) -> int:
    """The largest sum of a weight to which updates of such a weight (in 1/65536) come.

    Clipped, each moves a weight by its norm at most. Its rounding is 129 units at most, the norm's a part in 2**50.
    """
    clip = math.ceil(policy["updates"]["norm_clip"] * 2 ** policy["fixed_point"]["exponent"])
    reach = math.ceil(Fraction(clip * weight_total, WEIGHT_ONE))
    return reach + reach // 2**50 + 1 + 129 * accepted


def _sum_in_order(values: Floats) -> float:
    """0.0 + values[0] + values[1] + ..., each addition rounded: what ``cumsum`` is defined to do."""
    return float(np.cumsum(values)[-1]) if values.size else 0.0


def squares_and_dot(
    part: npt.NDArray[Any], along: npt.NDArray[np.int8] | None
) -> tuple[float | int, float | int]:
    """(Σ x², Σ x·along) of one tensor: exact integers for int8, float64 in element order for float32."""
    if part.dtype == np.int8:
        whole = part.astype(np.int64)
        dot = 0 if along is None else int(np.sum(whole * along.astype(np.int64)))
        return int(np.sum(whole * whole)), dot
    x = part.astype(np.float64)
    return _sum_in_order(x * x), 0.0 if along is None else _sum_in_order(x * along.astype(np.float64))


def norm_of(squares: list[float | int], scales: list[float]) -> float:
    """√(Σ_t scale_t² · squares_t), the tensors in layout order; a scale over zeros counts for nothing."""
    total = 0.0
    for scale, square in zip(scales, squares, strict=True):
        if square:
            total += scale * scale * float(square)
    return math.sqrt(total)


def cosine_of(dots: list[float | int], scales: list[float], norm: float, along: Direction | None) -> float:
    """Cosine similarity with the last global step, within [-1, 1]; 0.0 where either is zero."""
    if along is None or norm == 0.0 or along.norm == 0.0:
        return 0.0
    total = 0.0
    for scale, other, dot in zip(scales, along.scales, dots, strict=True):
        if dot:
            total += scale * other * float(dot)
    return max(-1.0, min(1.0, total / norm / along.norm))


def robust_deviations(norm: float, history: list[float]) -> float:
    """(norm - median) / (1.4826 · MAD), divisor at least a tenth of the median; upper median of an even count."""
    ordered = sorted(history)
    median = ordered[len(ordered) // 2]
    distances = sorted(abs(one - median) for one in ordered)
    spread = max(MAD_TO_SIGMA * distances[len(distances) // 2], SPREAD_MIN_OF_MEDIAN * median)
    return (norm - median) / spread if spread > 0.0 else 0.0


def added(part: npt.NDArray[Any], scale: float, square: float, factor: float, exponent: int) -> Ints:
    """What one tensor of an accepted update adds to the sums, in units of 2^-exponent; ``factor`` is weight · clip."""
    unit = float(2**exponent)
    if part.dtype == np.int8:
        coefficient = round(factor * scale * unit) if square else 0
        return part.astype(np.int64) * np.int64(coefficient)
    return np.rint(part.astype(np.float64) * (factor * unit)).astype(np.int64)


def server_step(
    server: dict[str, Any], model: Model, state: dict[str, Floats], delta: Floats, rate: float
) -> tuple[Model, dict[str, Floats]]:
    """One step of the server optimizer: model float32[P], its state and the mean delta float64[P].

    model += rate · direction; the direction is the optimizer's, the rate the version's (``rates``).
    """
    direction, after = OPTIMIZERS[server["optimizer"]](server, state, delta)
    new = model.astype(np.float64) + rate * direction
    return new.astype(np.float32), after


def divisor_of(updates: int, weight_total: int, policy: dict[str, Any]) -> float:
    """The number of updates, or what they weigh."""
    return {"updates": float(updates), "weights": weight_total / WEIGHT_ONE}[policy["server"]["divide_by"]]


def mean_delta(total: Ints, divisor: float, policy: dict[str, Any]) -> Floats:
    """The weighted sum in model units over the divisor."""
    return total.astype(np.float64) / float(2 ** policy["fixed_point"]["exponent"]) / divisor


def model_bytes(model: Model, layout: list[Tensor]) -> bytes:
    """model.safetensors: the layout's tensors, float32."""
    return safetensors.save({t.name: model[t.begin : t.end].reshape(t.shape) for t in layout})


def model_from(data: bytes, layout: list[Tensor]) -> Model:
    """The inverse of ``model_bytes``."""
    tensors = safetensors.load(data)
    return np.concatenate([tensors[t.name].reshape(-1) for t in layout]).astype(np.float32, copy=False)


def optimizer_bytes(state: dict[str, Floats]) -> bytes:
    """optimizer.safetensors: each array of the state, float64[P]."""
    return safetensors.save(state)


def optimizer_from(data: bytes) -> dict[str, Floats]:
    """The inverse of ``optimizer_bytes``."""
    return dict(safetensors.load(data))


def direction_bytes(before: Model, after: Model, layout: list[Tensor]) -> bytes:
    """A step as a stored direction: a tensor's scale is max|x| / 127, its elements rint(x / scale) in int8."""
    step = after.astype(np.float64) - before.astype(np.float64)
    scales, q = [], []
    for tensor in layout:
        part = step[tensor.begin : tensor.end]
        scale = float(np.max(np.abs(part))) / INT8_LEVELS
        rounded = np.rint(part / scale) if scale > 0.0 else np.zeros(part.size)
        q.append(np.clip(rounded, -INT8_LEVELS, INT8_LEVELS).astype(np.int8))
        scales.append(scale)
    return stored_form(q, scales)


def stored_form(q: list[npt.NDArray[np.int8]], scales: list[float]) -> bytes:
    """A direction as it is stored: the elements of each tensor, and its scale."""
    return safetensors.save(
        {"fluvial.step": np.concatenate(q), "fluvial.scales": np.array(scales, dtype=np.float64)}
    )


def direction_from(data: bytes, layout: list[Tensor]) -> Direction:
    """The direction in stored bytes; ValueError where it is not of this layout."""
    tensors = safetensors.load(data)
    flat, given = tensors["fluvial.step"], tensors["fluvial.scales"]
    if flat.shape != (layout[-1].end,) or flat.dtype != np.int8:
        raise ValueError(f"a direction of {flat.dtype}{flat.shape}")
    if given.shape != (len(layout),) or given.dtype != np.float64:
        raise ValueError(f"scales of {given.dtype}{given.shape}")
    scales = [float(scale) for scale in given]
    q = [flat[t.begin : t.end] for t in layout]
    return Direction(q, scales, norm_of([squares_and_dot(part, None)[0] for part in q], scales))
