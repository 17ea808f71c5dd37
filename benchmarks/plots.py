"""Curves as a small SVG, readable on white and on black, without a library."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

WIDTH: Final = 640
HEIGHT: Final = 360
LEFT, RIGHT, TOP, BOTTOM = 56, 150, 16, 48
COLOURS: Final = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#17becf", "#7f7f7f")
TICKS: Final = 5


@dataclass(frozen=True)
class Curve:
    """Points (x, y) in order. Curves of one name have one colour."""

    name: str
    points: list[tuple[float, float]]


def drawn(curves: list[Curve], *, x: str, y: str) -> str:
    """The SVG's text. Axes begin at 0."""
    right = max(point[0] for curve in curves for point in curve.points)
    top = math.ceil(10.0 * max(point[1] for curve in curves for point in curve.points)) / 10.0
    names = list(dict.fromkeys(curve.name for curve in curves))
    inner = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at(point: tuple[float, float]) -> str:
        return f"{LEFT + inner[0] * point[0] / right:.1f},{TOP + inner[1] * (1 - point[1] / top):.1f}"

    style = 'font-family="sans-serif" font-size="12"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {style}>',
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for tick in range(TICKS + 1):
        share = tick / TICKS
        across, up = LEFT + inner[0] * share, TOP + inner[1] * (1 - share)
        parts.append(
            f'<line x1="{LEFT}" x2="{LEFT + inner[0]}" y1="{up:.1f}" y2="{up:.1f}" stroke="#ddd"/>'
            f'<text x="{LEFT - 6}" y="{up + 4:.1f}" text-anchor="end">{top * share:.2f}</text>'
            f'<text x="{across:.1f}" y="{TOP + inner[1] + 18}" text-anchor="middle">{right * share:,.0f}</text>'
        )
    for curve in curves:
        colour = COLOURS[names.index(curve.name) % len(COLOURS)]
        line = " ".join(map(at, curve.points))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.4"/>')
    for row, name in enumerate(names):
        y_at = TOP + 14 + 18 * row
        parts.append(
            f'<line x1="{WIDTH - RIGHT + 10}" x2="{WIDTH - RIGHT + 30}" y1="{y_at - 4}" y2="{y_at - 4}" '
            f'stroke="{COLOURS[row % len(COLOURS)]}" stroke-width="3"/>'
            f'<text x="{WIDTH - RIGHT + 36}" y="{y_at}">{escape(name)}</text>'
        )
    parts.append(
        f'<text x="{LEFT + inner[0] / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x)}</text>'
        f'<text x="14" y="{TOP + inner[1] / 2:.0f}" text-anchor="middle" '
        f'transform="rotate(-90 14 {TOP + inner[1] / 2:.0f})">{escape(y)}</text></svg>\n'
    )
    return "".join(parts)
