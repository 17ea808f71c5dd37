"""Charts as inline SVG. Colours are CSS variables of the page, so one drawing suits light and dark.

matplotlib knows no CSS variables: it draws in placeholder colours, and ``_themed`` swaps them.
"""

from __future__ import annotations

import html
import io
import re
from typing import TYPE_CHECKING, Any, Final

from fluvial.reading.quality import in_digits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Narrow, so that the letters, which grow and shrink with the page, can still be read on a phone.
_WIDTH_IN: Final = 5.4
_HEIGHT_IN: Final = 2.6
_ROW_IN: Final = 0.52
_LEGEND_COLUMNS: Final = 3
TALL_ROWS_MIN: Final = 7
"""From so many rows on, a chart of rows is as high as two others."""
_INK, _GRID = "#0a0b0c", "#0a0b0d"
_SERIES: Final = ("#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", "#0a0b05", "#0a0b06")
_VARIABLES: Final = {_INK: "var(--muted)", _GRID: "var(--line)"} | {
    color: f"var(--series-{number})" for number, color in enumerate(_SERIES, start=1)
}
_STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


def curve(name: str, label: str, points: Sequence[tuple[int, float]], *, series: int = 1) -> str:
    """A line of ``points`` (version, value); its last value is written beside it."""
    from matplotlib.ticker import MaxNLocator

    def draw(axes: Axes) -> None:
        versions, values = [point[0] for point in points], [point[1] for point in points]
        marker = "o" if len(points) == 1 else None
        axes.plot(versions, values, color=_SERIES[series - 1], linewidth=2, marker=marker)
        axes.annotate(
            in_digits(values[-1], 3),
            (versions[-1], values[-1]),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
        )
        axes.set_xlabel("version")
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    return _svg(
        name,
        f"{label} by version, last {in_digits(points[-1][1], 3)}" if points else f"no {label}",
        points,
        draw,
    )


def curves(
    name: str, x_label: str, y_label: str, lines: Mapping[str, Sequence[Sequence[tuple[float, float]]]]
) -> str:
    """Lines of (x, y) by label, several of a label in one colour; an empty string where there is no point."""

    def draw(axes: Axes) -> None:
        for color, (label, several) in zip(_SERIES, lines.items(), strict=False):
            for number, points in enumerate(several):
                x, y = [point[0] for point in points], [point[1] for point in points]
                marker = "o" if len(points) == 1 else None
                axes.plot(
                    x, y, color=color, linewidth=1.4, marker=marker, label=label if number == 0 else None
                )
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        _legend_above(axes, min(len(lines), _LEGEND_COLUMNS))

    content = [points for several in lines.values() for points in several if points]
    return _svg(name, f"{y_label} against {x_label} of {', '.join(lines)}", content, draw)


def stacked_rows(name: str, label: str, rows: Sequence[str], series: Mapping[str, Sequence[int]]) -> str:
    """Horizontal bars: one for each of ``rows``, in it a part for each of ``series``, in the rows' order."""

    def draw(axes: Axes) -> None:
        left = [0.0] * len(rows)
        positions = list(range(len(rows)))
        for number, (part, values) in enumerate(series.items()):
            color = _SERIES[number % len(_SERIES)]
            axes.barh(positions, values, left=left, color=color, label=part, height=0.62)
            left = [before + value for before, value in zip(left, values, strict=True)]
        for position, total in zip(positions, left, strict=True):
            axes.annotate(
                f"{total:.0f}", (total, position), xytext=(4, 0), textcoords="offset points", va="center"
            )
        axes.set_yticks(positions, rows)
        axes.invert_yaxis()
        axes.set_xlabel(label)
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.1)
        _legend_above(axes, len(series))

    return _svg(
        name, f"{label} by {len(rows)} outcomes", rows, draw, height_in=max(1.6, _ROW_IN * len(rows) + 1.0)
    )


def histogram(name: str, label: str, counts: Mapping[int, int]) -> str:
    """Bars of counts by a whole number."""
    from matplotlib.ticker import MaxNLocator

    def draw(axes: Axes) -> None:
        axes.bar(list(counts), list(counts.values()), color=_SERIES[0], width=0.8)
        axes.set_xlabel(label)
        axes.set_ylabel("updates")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(visible=False, axis="x")

    return _svg(name, f"updates by {label}", counts, draw)


def stacked_seconds(name: str, label: str, series: Mapping[str, Sequence[int]]) -> str:
    """Areas stacked over seconds: each of ``series`` has one value a second, from 0 on."""
    from matplotlib.ticker import MaxNLocator

    def draw(axes: Axes) -> None:
        seconds = list(range(max(len(values) for values in series.values())))
        axes.stackplot(
            seconds,
            *series.values(),
            labels=list(series),
            colors=_SERIES[: len(series)],
            step="post",
            linewidth=0,
        )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("seconds since the first verdict")
        axes.set_ylabel(label)
        _legend_above(axes, len(series))

    return _svg(name, f"{label} over time", next(iter(series.values()), ()), draw)


def _legend_above(axes: Axes, columns: int) -> None:
    """Beside the drawing, so that it hides none of it."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.2)


def _svg(name: str, description: str, content: object, draw: object, *, height_in: float = _HEIGHT_IN) -> str:
    """One chart; an empty string when there is nothing to draw."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    if not content:
        return ""
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):  # equal charts give equal bytes
        figure = Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
        draw(figure.add_subplot())  # type: ignore[operator]
        return _themed(_saved(figure), name, description)


def _saved(figure: Figure) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def _themed(svg: str, name: str, description: str) -> str:
    for placeholder, variable in _VARIABLES.items():
        svg = svg.replace(placeholder, variable)
    # Several drawings share one page: their ids must not.
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace('href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", svg, count=1)
    svg = re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", svg, count=1)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(description)}" ', 1)
