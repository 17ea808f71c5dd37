"""What operators see: colours and tables on a terminal, plain lines elsewhere, the verdict in words either way."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from fluvial.commands.operator_views import _partition_row, show_audit
from fluvial.proof.audit.findings import Findings
from fluvial.proof.audit.partitions import FoldedPartition
from fluvial.proof.audit.report import AuditReport
from fluvial.reading.status import PartitionStatus
from fluvial.terminal.output import Output

if TYPE_CHECKING:
    from rich.text import Text


def report() -> AuditReport:
    partitions = (
        FoldedPartition(("eu", 0), 0, 120, 0, records=120, updates=100),
        FoldedPartition(("us", 0), 0, 7, 0, records=7),
    )
    return AuditReport("t", "aa", 1, 3, 3, "dd", partitions, 6, Findings(), 0.5, 2)


def shown(*, terminal: bool) -> str:
    output = Output(quiet=True)
    output.out = Console(
        file=io.StringIO(), force_terminal=terminal, width=100, color_system="standard" if terminal else None
    )
    show_audit(output, report())
    assert isinstance(output.out.file, io.StringIO)
    return output.out.file.getvalue()


def test_an_audit_on_a_terminal_has_a_row_for_every_partition() -> None:
    text = shown(terminal=True)
    assert "eu[0]" in text and "0..120" in text and "us[0]" in text and "✓ none" in text
    assert "identical: 3 versions, bit for bit" in text and "\x1b[" in text


def test_an_audit_elsewhere_is_plain_lines() -> None:
    assert shown(terminal=False).splitlines() == [
        "folded 127 records of 2 partitions (100 updates count) in 0.5 s with 2 processes, 254 a second",
        "audit digest dd",
        "identical: 3 versions, bit for bit",
    ]


@pytest.mark.parametrize(("lag_s", "style"), [(0.0, "green"), (11.0, "yellow"), (61.0, "bold red")])
def test_a_lag_is_coloured_by_its_seconds(lag_s: float, style: str) -> None:
    row = _partition_row(PartitionStatus(("eu", 0), 10, 9, 1, 0, lag_s, "rising"))
    lag: Text = row[4]  # type: ignore[assignment]
    assert (str(lag), lag.style) == (f"{lag_s:.1f} s", style)
    assert str(row[5]) == "▲ rising"


def test_a_partition_that_was_folded_beyond_its_log_stands_out() -> None:
    folded_to: Text = _partition_row(PartitionStatus(("eu", 0), 10, 12, 1, 0, 0.0))[2]  # type: ignore[assignment]
    assert folded_to.style == "bold red"
