"""The history of a run: every operation of the fleet and every fault, one JSON line each, in the order of time.

``type`` is ``invoke``, then ``ok``, ``fail`` or ``unknown``; an operation of which nothing was heard any more, as its
process died, is ``unknown`` too. ``f`` says what was done: ``publish``, or the kind of a fault. Times are seconds since
1970 UTC.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from producers.fleet.journal import read_attempts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fluvial.proof.chaos.schedule import Fault
    from producers.fleet.journal import Attempt


class FaultRecord(NamedTuple):
    """One fault that was injected. ``outcome`` says what was done, in words; ``ok`` False when it could not be done.

    ``killed_at`` has the times of its kills. All times are seconds since 1970 UTC.
    """

    fault: Fault
    began_at: float
    ended_at: float
    ok: bool
    outcome: str
    killed_at: tuple[float, ...] = ()


class Publishes(NamedTuple):
    """The fleet's appends by outcome. ``invoked`` is all of them."""

    invoked: int
    ok: int
    fail: int
    unknown: int


def count_publishes(journal: Path) -> Publishes:
    """How many appends the fleet has tried, and what came of them."""
    attempts = read_attempts(journal)
    count = {outcome: sum(one.outcome == outcome for one in attempts) for outcome in ("invoke", "ok", "fail")}
    known = count["ok"] + count["fail"]
    return Publishes(count["invoke"], count["ok"], count["fail"], count["invoke"] - known)


def write_history(path: Path, journal: Path, faults: list[FaultRecord], began_at: float) -> None:
    """Write the whole history; the file takes its name when it is complete."""
    events = [*_publishes(journal), *_faults(faults)]
    events.append({"time": began_at, "type": "info", "f": "begin", "process": "chaos"})
    events.sort(key=lambda event: float(event["time"]))
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        for event in events:
            file.write(json.dumps(event, allow_nan=False) + "\n")
    temporary.replace(path)


def _publishes(journal: Path) -> Iterator[dict[str, Any]]:
    open_: dict[str, Attempt] = {}
    for attempt in read_attempts(journal):
        if attempt.outcome == "invoke":
            open_[attempt.id] = attempt
            yield _event(attempt, attempt, "invoke", attempt.time)
        else:
            invoked = open_.pop(attempt.id, attempt)
            yield _event(invoked, attempt, attempt.outcome, attempt.time)
    now = time.time()
    for attempt in open_.values():
        yield _event(attempt, attempt, "unknown", now)


def _event(invoked: Attempt, answered: Attempt, outcome: str, at: float) -> dict[str, Any]:
    event: dict[str, Any] = {
        "time": at,
        "type": outcome,
        "f": "publish",
        "process": "fleet",
        "id": invoked.id,
        "device": invoked.device,
        "region": invoked.region,
        "behaviour": invoked.behaviour,
        "update_id": invoked.update_id,
    }
    if answered.offset >= 0:
        event |= {"partition": answered.partition, "offset": answered.offset}
    if answered.reason:
        event["reason"] = answered.reason
    return event


def _faults(faults: list[FaultRecord]) -> Iterator[dict[str, Any]]:
    for record in faults:
        fault = record.fault
        what = {
            "f": fault.kind,
            "process": "chaos",
            "id": f"fault-{fault.number}",
            "target": fault.target,
            "detail": fault.detail,
        }
        yield {"time": record.began_at, "type": "invoke", **what}
        yield {
            "time": record.ended_at,
            "type": "ok" if record.ok else "fail",
            **what,
            "outcome": record.outcome,
            "seconds": round(record.ended_at - record.began_at, 3),
        }
