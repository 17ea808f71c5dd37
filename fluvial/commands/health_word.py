"""The one word on a task's health that ``fluvial status`` begins with: the console's rules, on what status has read."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

from fluvial.console.health import Facts, RegionFacts, health_of
from fluvial.console.looks import open_process_look
from fluvial.reading.status import created_at_ms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluvial.console.looks import Process
    from fluvial.reading.status import PartitionStatus, Status
    from fluvial.terminal.output import Output

VERSIONS_TIMED: Final = 10
"""How many versions back the usual interval between versions is measured."""
_STYLES: Final = {"ok": "bold green", "warn": "bold yellow", "bad": "bold red"}


def health_now(found: Status) -> dict[str, Any]:
    """The document of ``fluvial.console.health.health_of``: ``word``, ``level``, ``part``, ``reason``, ``parts``."""
    view = found.view
    regions = tuple(view.genesis.partitions)
    with open_process_look(view.settings.home, view.task, lambda: regions) as look:
        return health_of(facts_of(found, look(), interval_seconds=_interval_s(found)))


def facts_of(found: Status, processes: Sequence[Process], *, interval_seconds: float | None) -> Facts:
    """What health judges. The store and Kafka have answered, or there would be no status."""
    groups = {group.name: len(group.members) for group in found.groups}
    facts = Facts(
        head=found.head,
        age_seconds=found.age_s,
        interval_seconds=interval_seconds,
        updates_arrive=_work_waits(found),
        merger_states=[one.state for one in processes if one.role == "merger"],
        evaluator_states=[one.state for one in processes if one.role == "evaluator"],
        evaluated=found.evaluated,
        regions=[
            _region(
                region,
                [one for one in found.partitions if one.slot[0] == region],
                [one.state for one in processes if one.role == "worker" and one.region == region],
                groups.get(f"fluvial-{found.view.task}-{region}"),
            )
            for region in found.view.genesis.partitions
        ],
    )
    # Windows that a run has left over wait for nobody: a task at which nobody works is not late.
    return dataclasses.replace(facts, updates_arrive=False) if facts.at_rest else facts


def show_health(output: Output, health: dict[str, Any]) -> None:
    """``healthy: version 7 is 2 s old``, and every part that is not well."""
    output.print(f"{health['word']}: {health['reason']}", _STYLES.get(health["level"], "bold"))
    for part in health["parts"]:
        if part["level"] in {"warn", "bad"} and part["reason"] != health["reason"]:
            output.print(f"  {part['name']}: {part['reason']}", _STYLES[part["level"]])


def _region(
    region: str, partitions: Sequence[PartitionStatus], states: Sequence[str], members: int | None
) -> RegionFacts:
    worst = max(partitions, key=lambda one: one.lag_s)
    return RegionFacts(
        region=region,
        worker_states=states,
        members=members,
        lag_records=sum(one.lag_records for one in partitions),
        lag_seconds=worst.lag_s,
        trend=worst.trend,
    )


def _work_waits(found: Status) -> bool:
    """Whether as many windows wait for the merger as it took for the head: then another version is due."""
    taken = len(found.manifest.inputs) if found.manifest is not None else 1
    return sum(one.windows_waiting for one in found.partitions) >= max(1, taken)


def _interval_s(found: Status) -> float | None:
    """Seconds a version usually takes; None where mergers have not noted when they made them."""
    first = max(1, found.head - VERSIONS_TIMED)
    if found.head <= first:
        return None
    began, ended = created_at_ms(found.view, first), created_at_ms(found.view, found.head)
    return None if began is None or ended is None else (ended - began) / 1000 / (found.head - first)
