"""What commands share that write an operator's record into a partition: its reason, the append, the verdict on it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import click

from fluvial.terminal.numbers import POSITIVE

if TYPE_CHECKING:
    from aggregation.fold.events import Verdict
    from aggregation.server.aggregates import Slot
    from backends.log import Position
    from fluvial.reading.task_view import TaskView
    from fluvial.terminal.output import Waiting
    from schemas.envelope import Signer

REASON_CHARACTERS_MAX: Final = 200
CONFIRMED_S_MAX: Final = 30.0
VERDICT_POLL_S: Final = 0.5


def _check_reason(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not 1 <= len(value.strip()) <= REASON_CHARACTERS_MAX:
        raise click.BadParameter(
            f"expected 1 to {REASON_CHARACTERS_MAX} characters, got {len(value.strip())}"
        )
    return value.strip()


reason_option = click.option(
    "--reason", required=True, callback=_check_reason, help="For people; it stands in the log for ever."
)
timeout_option = click.option(
    "--timeout",
    "timeout_s",
    type=POSITIVE,
    default=60.0,
    show_default=True,
    help="Seconds to wait for the verdict.",
)


def append_signed(
    view: TaskView, slot: Slot, kind: str, fields: dict[str, Any], *, signer: Signer, key: str
) -> Position:
    """Append a signed record to the very partition, under the message key ``key``; return once the broker has it.

    ``fields`` are the record's beside its task and region. Raises what the broker's refusal comes to (FLV-1xxx).
    """
    from backends.kafka.writing import LogWriter
    from schemas.topics import updates_topic

    region, partition = slot
    value = signer.sign(kind, {"task": view.task, "region": region} | fields)
    writer = LogWriter(view.settings, f"fluvial-{kind.lower()}-{view.task}")
    appended = writer.append(updates_topic(view.task, region), value, key=key.encode(), partition=partition)
    writer.flush(CONFIRMED_S_MAX)
    return appended.result(timeout=0)


def verdict_within(
    view: TaskView, slot: Slot, offset: int, timeout_s: float, waiting: Waiting
) -> Verdict | None:
    """The verdict on ``offset``, once a worker has published it; None where none has within ``timeout_s`` seconds."""
    from fluvial.reading.verdicts import read_verdicts

    while True:
        verdict = next(read_verdicts(view.reader, view.task, slot, offset, offset + 1), None)
        if verdict is not None or waiting.seconds > timeout_s:
            return verdict
        time.sleep(VERDICT_POLL_S)
