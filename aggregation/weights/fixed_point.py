"""Weights are fixed-point numbers with 16 fractional bits."""

from __future__ import annotations

from typing import Final

WEIGHT_FRACTION_BITS: Final = 16
WEIGHT_ONE: Final = 1 << WEIGHT_FRACTION_BITS
"""The weight 1.0."""
HALF: Final = WEIGHT_ONE // 2


def scaled(number: int, weight: int) -> int:
    """``number`` times ``weight`` / 65536: the nearest integer, halves up."""
    return (number * weight + HALF) // WEIGHT_ONE


def weight_after(weight_total: int, weight: int) -> int:
    """What a window's updates weigh after lateness, in units of 1/65536."""
    return max(1, scaled(weight_total, weight)) if weight_total and weight else 0
