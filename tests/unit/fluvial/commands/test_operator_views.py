"""What operators see: colours and tables on a terminal, plain lines elsewhere, the verdict in words either way."""

from __future__ import annotations

import dataclasses
import io
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from backends.kafka.consumer_groups import Group, Member
from fluvial.commands.health_word import facts_of
from fluvial.commands.operator_views import _partition_row, show_audit
from fluvial.console.health import health_of
from fluvial.console.looks import Process
from fluvial.proof.audit.findings import Findings
from fluvial.proof.audit.folded import FoldedPartition
from fluvial.proof.audit.report import AuditReport
from fluvial.proof.audit.strays import Strays
from fluvial.proof.audit.verdicts import ComparedVerdicts
from fluvial.reading.quality import Quality
from fluvial.reading.status import PartitionStatus, Status
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


def test_an_audit_says_what_it_compared_and_what_nobody_vouches_for() -> None:
    output = Output()
    output.out, output.err = (Console(file=io.StringIO(), width=1000) for _ in range(2))
    made = report()
    made.partitions[0].verdicts = ComparedVerdicts(
        120, 110, 123, Strays({"no_verdict": 3}, ["fl.t.verdicts.eu[0]@7"])
    )
    made.announcement_strays.add("no_record", "fl.t.models[0]@3")
    made.partitions[1].verdicts = ComparedVerdicts(because="there is no topic fl.t.verdicts.us")
    show_audit(output, made)
    assert isinstance(output.out.file, io.StringIO) and isinstance(output.err.file, io.StringIO)
    assert "compared the verdicts of 120 offsets; workers vouch for 110" in output.out.file.getvalue()
    said = output.err.file.getvalue()
    assert "verdicts of us[0] were not all compared: there is no topic fl.t.verdicts.us" in said
    assert "stand in fl.t.verdicts.eu: 3 no verdict at all; they prove nothing" in said and "@7)" in said
    assert "stand in fl.t.models: 1 not what the topic holds" in said
    assert "whoever may write to fl.t.models can have written them" in said
    assert "identical: 3 versions" in output.out.file.getvalue()


@pytest.mark.parametrize(("lag_s", "style"), [(0.0, "green"), (11.0, "yellow"), (61.0, "bold red")])
def test_a_lag_is_coloured_by_its_seconds(lag_s: float, style: str) -> None:
    row = _partition_row(PartitionStatus(("eu", 0), 10, 9, 1, 0, lag_s, "rising"))
    lag: Text = row[4]  # type: ignore[assignment]
    assert (str(lag), lag.style) == (f"{lag_s:.1f} s", style)
    assert str(row[5]) == "▲ rising"


def test_a_partition_that_was_folded_beyond_its_log_stands_out() -> None:
    folded_to: Text = _partition_row(PartitionStatus(("eu", 0), 10, 12, 1, 0, 0.0))[2]  # type: ignore[assignment]
    assert folded_to.style == "bold red"


def status(*, lag_records: int = 0, lag_s: float = 0.0, members: tuple[Member, ...] = ()) -> Status:
    view: Any = SimpleNamespace(task="t", genesis=SimpleNamespace(partitions={"eu": 1}))
    partition = PartitionStatus(("eu", 0), 10, 10 - lag_records, 1, 0, lag_s, "rising")
    group = Group("fluvial-t-eu", "stable", members)
    return Status(view, 3, None, 4.0, Quality(None, {}), (), None, 0, (group,), (partition,))


WORKER = Member("fluvial-t-eu", "/127.0.0.1", (0,), "worker-eu-0")
MERGER = Process("merger", "merger-0", None, "ready", "", 1)


@pytest.mark.parametrize(
    ("found", "processes", "word", "reason"),
    [
        (status(members=(WORKER,)), [MERGER], "healthy", "version 3 is 4.0 s old"),
        (status(lag_records=1, lag_s=70.0), [MERGER], "broken", "1 record waits, and no worker has joined"),
        (status(lag_records=4, lag_s=70.0), [MERGER], "broken", "4 records wait, and no worker has joined"),
        (
            status(lag_records=4, lag_s=12.0, members=(WORKER,)),
            [MERGER],
            "strained",
            "its oldest record waits 12 s, rising",
        ),
    ],
)
def test_status_has_one_word_on_health_by_the_consoles_rules(
    found: Status, processes: list[Process], word: str, reason: str
) -> None:
    health = health_of(facts_of(found, processes, interval_seconds=None))
    assert (health["word"], health["reason"]) == (word, reason)


def test_a_task_that_a_run_has_left_is_finished_whatever_windows_are_left_over() -> None:
    left = status()
    left = dataclasses.replace(
        left, age_s=300.0, partitions=(dataclasses.replace(left.partitions[0], windows_waiting=3),)
    )
    health = health_of(facts_of(left, [], interval_seconds=1.0))
    assert health["word"] == "finished"
    assert health_of(facts_of(left, [MERGER], interval_seconds=1.0))["word"] == "broken", "somebody works"


def test_a_late_head_is_late_only_while_windows_wait_for_it() -> None:
    waiting = status(members=(WORKER,))
    waiting = dataclasses.replace(
        waiting,
        age_s=300.0,
        partitions=(dataclasses.replace(waiting.partitions[0], windows_waiting=1),),
    )
    assert health_of(facts_of(waiting, [MERGER], interval_seconds=1.0))["word"] == "broken"
    idle = dataclasses.replace(waiting, partitions=status().partitions)
    assert health_of(facts_of(idle, [MERGER], interval_seconds=1.0))["word"] == "healthy"


def test_a_worker_is_called_by_its_name_and_a_stranger_by_its_library() -> None:
    assert WORKER.called == "worker-eu-0"
    assert Member("rdkafka", "/h", ()).called == "rdkafka"
