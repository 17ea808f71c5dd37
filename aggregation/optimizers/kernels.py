"""The optimizers' steps, compiled by numba: model and state of some elements in one pass. Twins: the checker's.

Each loop has the operations of its optimizer's docstring in that order, every one correctly rounded and none fused into
another, so numpy, which does one operation at a time on whole arrays, gets the same bits. All arrays of a call have n
elements. ``total``, ``one_over_unit`` and ``divisor`` are ``shape.Sums``; ``before`` and ``after`` are the model
float32[n].
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from aggregation.codecs.compiled import compiled

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
TotalArray = npt.NDArray[np.int64] | npt.NDArray[np.float64]

CACHED: Final = __name__ == "aggregation.optimizers.kernels"
"""See ``codecs.kernels.CACHED``."""


@compiled(cached=CACHED)
def plain_step(
    total: TotalArray,
    one_over_unit: float,
    divisor: float,
    before: Float32Array,
    after: Float32Array,
    learning_rate: float,
) -> None:
    """``sgd`` without momentum."""
    for i in range(after.shape[0]):
        delta = np.float64(total[i]) * one_over_unit / divisor
        after[i] = np.float32(np.float64(before[i]) + learning_rate * delta)


@compiled(cached=CACHED)
def momentum_step(
    total: TotalArray,
    one_over_unit: float,
    divisor: float,
    before: Float32Array,
    after: Float32Array,
    learning_rate: float,
    momentum: float,
    velocity: Float64Array,
    next_velocity: Float64Array,
) -> None:
    """``sgd`` with momentum. velocity, next_velocity: float64[n]."""
    for i in range(after.shape[0]):
        delta = np.float64(total[i]) * one_over_unit / divisor
        direction = momentum * velocity[i] + delta
        next_velocity[i] = direction
        after[i] = np.float32(np.float64(before[i]) + learning_rate * direction)


@compiled(cached=CACHED)
def nesterov_step(
    total: TotalArray,
    one_over_unit: float,
    divisor: float,
    before: Float32Array,
    after: Float32Array,
    learning_rate: float,
    momentum: float,
    velocity: Float64Array,
    next_velocity: Float64Array,
) -> None:
    """``sgd`` with Nesterov's momentum. velocity, next_velocity: float64[n]."""
    for i in range(after.shape[0]):
        delta = np.float64(total[i]) * one_over_unit / divisor
        following = momentum * velocity[i] + delta
        next_velocity[i] = following
        direction = delta + momentum * following
        after[i] = np.float32(np.float64(before[i]) + learning_rate * direction)


@compiled(cached=CACHED)
def adagrad_step(
    total: TotalArray,
    one_over_unit: float,
    divisor: float,
    before: Float32Array,
    after: Float32Array,
    learning_rate: float,
    beta_1: float,
    adaptivity: float,
    m: Float64Array,
    v: Float64Array,
    next_m: Float64Array,
    next_v: Float64Array,
) -> None:
    """``adagrad``. m, v, next_m, next_v: float64[n]."""
    new_1 = 1.0 - beta_1
    for i in range(after.shape[0]):
        delta = np.float64(total[i]) * one_over_unit / divisor
        mean = beta_1 * m[i] + new_1 * delta
        square = v[i] + delta * delta
        next_m[i] = mean
        next_v[i] = square
        direction = mean / (np.sqrt(square) + adaptivity)
        after[i] = np.float32(np.float64(before[i]) + learning_rate * direction)


@compiled(cached=CACHED)
def amsgrad_step(
    total: TotalArray,
    one_over_unit: float,
    divisor: float,
    before: Float32Array,
    after: Float32Array,
    learning_rate: float,
    beta_1: float,
    beta_2: float,
    adaptivity: float,
    m: Float64Array,
    v: Float64Array,
    v_max: Float64Array,
    next_m: Float64Array,
    next_v: Float64Array,
    next_v_max: Float64Array,
) -> None:
    """``amsgrad``. m, v, v_max, next_m, next_v, next_v_max: float64[n]."""
    new_1, new_2 = 1.0 - beta_1, 1.0 - beta_2
    for i in range(after.shape[0]):
        delta = np.float64(total[i]) * one_over_unit / divisor
        mean = beta_1 * m[i] + new_1 * delta
        square = beta_2 * v[i] + new_2 * (delta * delta)
        largest = max(v_max[i], square)
        next_m[i] = mean
        next_v[i] = square
        next_v_max[i] = largest
        direction = mean / (np.sqrt(largest) + adaptivity)
        after[i] = np.float32(np.float64(before[i]) + learning_rate * direction)


@compiled(cached=CACHED)
def adam_step(
    total: TotalArray,
    one_over_unit: float,
    divisor: float,
    before: Float32Array,
    after: Float32Array,
    learning_rate: float,
    beta_1: float,
    beta_2: float,
    adaptivity: float,
    m: Float64Array,
    v: Float64Array,
    next_m: Float64Array,
    next_v: Float64Array,
) -> None:
    """``adam``. m, v, next_m, next_v: float64[n]."""
    new_1, new_2 = 1.0 - beta_1, 1.0 - beta_2
    for i in range(after.shape[0]):
        delta = np.float64(total[i]) * one_over_unit / divisor
        mean = beta_1 * m[i] + new_1 * delta
        square = beta_2 * v[i] + new_2 * (delta * delta)
        next_m[i] = mean
        next_v[i] = square
        direction = mean / (np.sqrt(square) + adaptivity)
        after[i] = np.float32(np.float64(before[i]) + learning_rate * direction)


@compiled(cached=CACHED)
def yogi_step(
    total: TotalArray,
    one_over_unit: float,
    divisor: float,
    before: Float32Array,
    after: Float32Array,
    learning_rate: float,
    beta_1: float,
    beta_2: float,
    adaptivity: float,
    m: Float64Array,
    v: Float64Array,
    next_m: Float64Array,
    next_v: Float64Array,
) -> None:
    """``yogi``. m, v, next_m, next_v: float64[n]."""
    new_1, new_2 = 1.0 - beta_1, 1.0 - beta_2
    for i in range(after.shape[0]):
        delta = np.float64(total[i]) * one_over_unit / divisor
        squared = delta * delta
        mean = beta_1 * m[i] + new_1 * delta
        square = v[i] - (new_2 * squared) * np.sign(v[i] - squared)
        next_m[i] = mean
        next_v[i] = square
        direction = mean / (np.sqrt(square) + adaptivity)
        after[i] = np.float32(np.float64(before[i]) + learning_rate * direction)
