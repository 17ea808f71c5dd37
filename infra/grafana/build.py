"""Writes the dashboards: ``python -m infra.grafana.build``. The JSON files are committed, and a test compares them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from infra.grafana import executive, on_call, region
from infra.grafana.panels import Board, dashboard_json

FOLDER: Final = Path(__file__).parent / "dashboards"
BOARDS: Final[dict[str, Board]] = {
    "executive": executive.BOARD,
    "on-call": on_call.BOARD,
    "region": region.BOARD,
}
MEASURES: Final = {
    "M1": "participation rate",
    "M2": "aggregation latency",
    "M3": "global validation loss",
    "M4": "update size in bytes",
    "M5": "failed updates",
    "M6": "staleness",
    "M7": "privacy budget",
    "M8": "anomalous updates",
    "M9": "CPU of the aggregators",
    "M10": "versions to target",
}
"""The field's ten measures; a panel says which of them it shows."""


def panels_of(measure: str) -> list[str]:
    """Where a measure is shown: ``dashboard: panel``."""
    return [
        f"{name}: {panel.title}"
        for name, board in BOARDS.items()
        for panel in board.panels
        if measure in panel.measures
    ]


def build() -> dict[str, str]:
    """File name to content."""
    boards = tuple(BOARDS.values())
    return {f"{name}.json": dashboard_json(board, boards) for name, board in BOARDS.items()}


def write() -> None:
    """Write every dashboard to ``dashboards/``."""
    for name, text in build().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
