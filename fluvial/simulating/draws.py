"""Random numbers that nobody keeps: each is a function of what it is for, so a device needs no state.

SplitMix64's finalizer (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", figure 14) over
the words one after another.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
_GAMMA: Final = np.uint64(0x9E3779B97F4A7C15)
_FIRST: Final = np.uint64(0xBF58476D1CE4E5B9)
_SECOND: Final = np.uint64(0x94D049BB133111EB)
_BITS: Final = np.uint64(11)
_UNIT: Final = 2.0**-53


def uniform(seed: int, purpose: int, devices: Indices, number: int = 0) -> Floats:
    """float64[n] in (0, 1): the draw of each of ``devices`` (int64[n]) for a ``purpose``, the ``number``-th of it."""
    with np.errstate(over="ignore"):
        words = np.full(devices.shape, seed, dtype=np.uint64)
        for word in (np.uint64(purpose), devices.astype(np.uint64), np.uint64(number)):
            words = _mixed(words ^ _mixed(np.broadcast_to(word, devices.shape)))
    return ((words >> _BITS).astype(np.float64) + 0.5) * _UNIT


def normal(seed: int, purpose: int, devices: Indices, number: int = 0) -> Floats:
    """float64[n], standard normal: Box and Muller 1958 of two uniform draws of ``purpose`` and ``purpose + 1``."""
    radius = np.sqrt(-2.0 * np.log(uniform(seed, purpose, devices, number)))
    found: Floats = radius * np.cos(2.0 * np.pi * uniform(seed, purpose + 1, devices, number))
    return found


def _mixed(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    words = words + _GAMMA
    words = (words ^ (words >> np.uint64(30))) * _FIRST
    words = (words ^ (words >> np.uint64(27))) * _SECOND
    return words ^ (words >> np.uint64(31))
