"""The page of the flow: where records wait, from what is known, reading nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluvial.console.now import age_seconds, region_lag, slot_lag_seconds
from fluvial.console.queries import Query
from fluvial.console.samples import Reached, Sample, rate, trend

if TYPE_CHECKING:
    from collections.abc import Callable

    from aggregation.server.aggregates import Slot
    from fluvial.console.paging import Page


def flow_page(page: Page, query: Query) -> dict[str, Any]:
    """Every region's stages and partitions, the merger, and who has joined."""
    del query
    known, recent = page.known, page.recent
    workers = _workers(page)
    with recent.lock:
        return {
            "at_ms": known.at_ms,
            "regions": [_region(page, region, workers) for region in page.genesis.partitions],
            "merger": {
                "head": known.head,
                "age_seconds": age_seconds(known, recent),
                "windows_waiting": sum(reached.windows_waiting for reached in known.now.values()),
            },
            "groups": [
                {
                    "group": group.name,
                    "state": group.state,
                    "members": [
                        {"client_id": one.called, "partitions": list(one.partitions)} for one in group.members
                    ],
                }
                for group in (known.kafka.value.groups if known.kafka.value else ())
            ],
        }


def _workers(page: Page) -> dict[Slot, str]:
    groups = page.known.kafka.value.groups if page.known.kafka.value else ()
    prefix = f"fluvial-{page.task}-"
    return {
        (group.name.removeprefix(prefix), partition): member.called
        for group in groups
        for member in group.members
        for partition in member.partitions
    }


def _sum(region: str, count: Callable[[Reached], int]) -> Callable[[Sample], int]:
    return lambda sample: sum(count(one) for slot, one in sample.slots.items() if slot[0] == region)


def _region(page: Page, region: str, workers: dict[Slot, str]) -> dict[str, Any]:
    known, recent = page.known, page.recent
    samples = known.samples
    slots = sorted(slot for slot in recent.slots if slot[0] == region)
    _, lag_seconds, _ = region_lag(known, region)
    opened = [recent.slots[slot].open_since_ms() for slot in slots]
    published = [
        recent.slots[slot].window_since_ms(known.now[slot].merged)
        for slot in slots
        if slot in known.now and known.now[slot].windows_waiting
    ]

    def per_second(count: Callable[[Reached], int]) -> float | None:
        return rate(samples, _sum(region, count))

    def stage(
        name: str, flows: tuple[float | None, float | None], waits: Callable[[Sample], int], **rest: Any
    ) -> dict[str, Any]:
        return {
            "stage": name,
            "in_per_second": flows[0],
            "out_per_second": flows[1],
            "waiting": waits(samples[-1]) if samples else None,
            "trend": trend(samples, waits),
            **rest,
        }

    appended, folded = per_second(lambda one: one.log_end), per_second(lambda one: max(0, one.folded_to))
    encoded, windows = per_second(lambda one: one.sealed_to), per_second(lambda one: one.windows)
    merged = per_second(lambda one: one.merged)
    stages = [
        stage(
            "ingress",
            (appended, folded),
            _sum(region, lambda one: one.lag_records),
            unit="records",
            lag_seconds=lag_seconds,
        ),
        stage(
            "folded",
            (folded, encoded),
            _sum(region, lambda one: max(0, one.folded_to - one.sealed_to)),
            unit="records",
            lag_seconds=_age(known.at_ms, opened),
        ),
        stage(
            "windowed",
            (windows, merged),
            _sum(region, lambda one: one.windows_waiting),
            unit="windows",
            lag_seconds=_age(known.at_ms, published),
        ),
        stage(
            "merged",
            (merged, rate(samples, lambda sample: sample.head)),
            lambda _: 0,
            unit="versions",
            lag_seconds=0.0,
        ),
    ]
    return {
        "region": region,
        "stages": stages,
        "partitions": [_partition(page, slot, workers.get(slot)) for slot in slots],
    }


def _age(now_ms: int, times: list[int | None]) -> float:
    """How old the oldest is; 0.0 of nothing."""
    known = [at_ms for at_ms in times if at_ms is not None]
    return max(0.0, round((now_ms - min(known)) / 1000, 1)) if known else 0.0


def _partition(page: Page, slot: Slot, worker: str | None) -> dict[str, Any]:
    known, facts = page.known, page.recent.slots[slot]
    reached = known.now.get(slot)
    opened = facts.open_since_ms()
    return {
        "partition": slot[1],
        "log_end": reached.log_end if reached else None,
        "folded_to": reached.folded_to if reached and reached.folded_to >= 0 else None,
        "lag_records": reached.lag_records if reached and reached.folded_to >= 0 else None,
        "lag_seconds": slot_lag_seconds(known, slot),
        "trend": trend(
            known.samples, lambda sample: sample.slots[slot].lag_records if slot in sample.slots else 0
        ),
        "windows": reached.windows if reached else None,
        "windows_waiting": reached.windows_waiting if reached else None,
        "oldest_open_seconds": _age(known.at_ms, [opened]) if opened is not None else None,
        "worker": worker,
    }
