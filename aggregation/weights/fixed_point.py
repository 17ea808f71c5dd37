"""Weights are fixed-point numbers with 16 fractional bits."""

from __future__ import annotations

from typing import Final

WEIGHT_FRACTION_BITS: Final = 16
WEIGHT_ONE: Final = 1 << WEIGHT_FRACTION_BITS
"""The weight 1.0."""
