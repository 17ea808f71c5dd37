"""The document of ``now``: everything that the first page shows, from what is known, reading nothing."""

from __future__ import annotations

import statistics
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from fluvial.console.health import Facts, RegionFacts, health_of, source_level
from fluvial.console.limits import (
    ARRIVING_SECONDS,
    LOOK_S,
    NOW_POINTS,
    RATE_SECONDS,
    SERIES_SECONDS,
    SERIES_STEP_SECONDS,
    STALENESS_KEPT,
)
from fluvial.console.quality import (
    change_of,
    curve_points,
    in_words,
    metric_document,
    names_shown,
    quality_seen,
)
from fluvial.console.samples import Reached, trend
from fluvial.console.threads import NOT_ASKED
from fluvial.reading.audit_history import disproved, last_proven
from fluvial.reading.evaluations import evaluated_of
from fluvial.reading.spending import cost_per_point
from schemas.refusals import Judged, judged_of
from schemas.task_metric import LOSS

if TYPE_CHECKING:
    from aggregation.server.aggregates import Slot
    from fluvial.console.looks import StoreSeen
    from fluvial.console.recent import Recent
    from fluvial.console.threads import Seen
    from fluvial.console.watch import Known
    from fluvial.reading.quality import Quality

_INTERVALS: Final = 20


def now_document(known: Known, recent: Recent | None, command: str = "fluvial") -> dict[str, Any]:
    """The document. ``recent`` is None before the store has answered once; ``command`` calls ``fluvial`` here."""
    proof = last_proven(list(known.audits))
    answered = [seen.at_ms for seen in (known.store, known.kafka) if seen.value is not None]
    document: dict[str, Any] = {
        "task": known.task,
        "at_ms": known.at_ms,
        "stale_seconds": max(0.0, round((known.at_ms - min(answered)) / 1000, 1)) if answered else None,
        "processes": [one.document() for one in known.processes.value or ()],
        "sources": sources_of(known),
        "proven": None if proof is None else {"version": proof.version, "at_ms": proof.ended_ms},
    }
    return document | _followed(known, recent) | {"health": health_of(facts_of(known, recent), command)}


def sources_of(known: Known) -> dict[str, Any]:
    """Kafka and the store: whether they answer, since when, and why not."""
    return {
        name: {
            "level": source_level(seen.problem(known.at_ms), asked=seen.reason != NOT_ASKED),
            "at_ms": seen.at_ms,
            "reason": seen.problem(known.at_ms),
        }
        for name, seen in (("kafka", known.kafka), ("store", known.store))
    }


def _followed(known: Known, recent: Recent | None) -> dict[str, Any]:
    if recent is None:
        return {
            "head": None,
            "rates": {"seconds": RATE_SECONDS, "updates_per_second": None, "accept_ratio": None},
            "cost": {"per_version": None, "versions": 0, "currency": None, "total": None, "per_point": None},
            "metric": None,
            "metrics": [],
            "curve": [],
            "curve_of": 0,
            "series": None,
            "staleness": {"records": 0, "counts": []},
            "regions": [],
            "strays": 0,
        }
    with recent.lock:
        accepted, refused = rates(recent, known.at_ms)
        quality = quality_seen(known.genesis, recent)
        names = names_shown(quality)
        points, of, _ = curve_points(quality, names, NOW_POINTS)
        return {
            "head": head_document(known, recent, quality),
            "rates": {
                "seconds": RATE_SECONDS,
                "updates_per_second": round((accepted + refused) / RATE_SECONDS, 3),
                "accept_ratio": ratio(accepted, refused),
            },
            "cost": cost_document(known.store, recent, quality),
            "metric": metric_document(quality),
            "metrics": names,
            "curve": points,
            "curve_of": of,
            "series": _series(recent, known.at_ms),
            "staleness": {
                "records": len(recent.staleness),
                "of": STALENESS_KEPT,
                "counts": staleness_counts(Counter(recent.staleness)),
            },
            "regions": [_region(known, recent, region) for region in sorted(recent.bins)],
            "strays": recent.strays,
        }


def staleness_counts(counts: Counter[int]) -> list[dict[str, int]]:
    """A histogram, ascending."""
    return [{"staleness": staleness, "count": counts[staleness]} for staleness in sorted(counts)]


def rates(recent: Recent, now_ms: int) -> tuple[int, int]:
    """(accepted, refused) in the last ``RATE_SECONDS``."""
    sums = [bins.sums(now_ms, RATE_SECONDS) for bins in recent.bins.values()]
    return sum(one[0] for one in sums), sum(one[1] for one in sums)


def ratio(accepted: int, refused: int) -> float | None:
    """The accepted share; None of nothing."""
    share = Judged(accepted, refused).accepted_share
    return None if share is None else round(share, 4)


def head_document(known: Known, recent: Recent, quality: Quality) -> dict[str, Any] | None:
    """The newest version; ``metric`` is its value of the task's metric."""
    seen = known.store.value
    if seen is None:
        return None
    manifest = seen.manifest
    age = age_seconds(known, recent)
    return {
        "version": seen.head,
        "age_seconds": None if age is None else round(age, 1),
        "evaluated": seen.head in quality.values,
        "metric": quality.value(seen.head),
        "change": change_of(quality, seen.head),
        "loss": quality.values.get(seen.head, {}).get(LOSS),
        "model_sha256": manifest.model_sha256 if manifest else seen.genesis.model_sha256,
        "accepted": manifest.accepted if manifest else 0,
    }


def age_seconds(known: Known, recent: Recent) -> float | None:
    """How old the head is; None where its merger has not said when it was made."""
    seen = known.store.value
    if seen is None:
        return None
    at_ms = recent.committed_ms.get(seen.head) or seen.created_at_ms
    return None if at_ms is None else max(0.0, (known.at_ms - at_ms) / 1000)


def interval_seconds(recent: Recent) -> float | None:
    """How long a version usually takes: the median of the newest; None before there are three versions."""
    times = sorted(at_ms for _, at_ms in recent.committed_ms.items()[-_INTERVALS - 1 :])
    gaps = [(after - first) / 1000 for first, after in pairwise(times)]
    return statistics.median(gaps) if len(gaps) > 1 else None


def version_cost(recent: Recent, inputs: list[tuple[str, int, int]]) -> float | None:
    """What the windows of a version cost; None where one of them was not followed."""
    costs = [recent.window_cost(*one) for one in inputs]
    known = [cost for cost in costs if cost is not None]
    return round(sum(known), 9) if inputs and len(known) == len(costs) else None


def cost_document(store: Seen[StoreSeen], recent: Recent, quality: Quality) -> dict[str, Any]:
    """Of what was followed: the mean of the newest versions, a point of the metric in them, and all windows in all."""
    made = store.value.made if store.value else ()
    costs: dict[int, float] = {}
    for one in made:
        inputs = [(i.region, i.partition, i.sequence) for i in one.manifest.inputs]
        if (cost := version_cost(recent, inputs)) is not None:
            costs[one.version] = cost
    regions = [sums[0] for sums in recent.cost_by_region.values()]
    return {
        "per_version": round(sum(costs.values()) / len(costs), 9) if costs else None,
        "versions": len(costs),
        "currency": recent.currency,
        "total": round(sum(regions), 9) if regions else None,
        "per_point": cost_per_point(quality, costs),
    }


def _series(recent: Recent, now_ms: int) -> dict[str, Any]:
    rows = [bins.series(now_ms) for bins in recent.bins.values()]
    return {
        "seconds": SERIES_SECONDS,
        "step_seconds": SERIES_STEP_SECONDS,
        "accepted": [round(sum(values), 3) for values in zip(*(row[0] for row in rows), strict=True)],
        "refused": [round(sum(values), 3) for values in zip(*(row[1] for row in rows), strict=True)],
        "end_ms": rows[0][2] if rows else now_ms,
    }


def region_slots(known: Known, region: str) -> dict[Slot, Reached]:
    """How far the partitions of a region are; empty before Kafka has answered."""
    return {slot: reached for slot, reached in known.now.items() if slot[0] == region}


def slot_lag_seconds(known: Known, slot: Slot) -> float | None:
    """How long a partition's oldest record without a verdict waits; 0.0 when none does."""
    reached = known.now.get(slot)
    if reached is None or reached.folded_to < 0 or known.kafka.value is None:
        return None
    since_ms = known.kafka.value.waiting_since_ms.get(slot)
    if since_ms is None or not reached.lag_records:
        return 0.0
    seconds = (known.at_ms - since_ms) / 1000
    return 0.0 if seconds < LOOK_S / 2 else round(seconds, 1)


def region_lag(known: Known, region: str) -> tuple[int | None, float | None, str]:
    """(records, seconds, trend) of a region: of its worst partition what is in seconds."""
    slots = region_slots(known, region)
    judged = [reached.lag_records for reached in slots.values() if reached.folded_to >= 0]
    if not judged:
        return None, None, "none"
    seconds = [found for slot in slots if (found := slot_lag_seconds(known, slot)) is not None]
    way = trend(
        known.samples,
        lambda sample: sum(one.lag_records for slot, one in sample.slots.items() if slot[0] == region),
    )
    return sum(judged), max(seconds, default=None), way


def _region(known: Known, recent: Recent, region: str) -> dict[str, Any]:
    records, seconds, way = region_lag(known, region)
    accepted, refused = recent.bins[region].sums(known.at_ms, RATE_SECONDS)
    facts = [one for slot, one in recent.slots.items() if slot[0] == region]
    since = [found for one in facts if (found := one.open_since_ms()) is not None]
    genesis = known.genesis
    verdicts = {
        outcome: count for (name, outcome), count in sorted(recent.outcomes.items()) if name == region
    }
    followed = judged_of(verdicts)
    return {
        "region": region,
        "updates_per_second": round((accepted + refused) / RATE_SECONDS, 3),
        "verdicts": verdicts,
        "accepted": followed.accepted,
        "refused": followed.refused,
        "canaries": recent.canaries[region],
        "window": {
            "records": sum(one.open_records for one in facts),
            "oldest_seconds": max(0.0, round((known.at_ms - min(since)) / 1000, 1)) if since else None,
            "updates_max": genesis.first_policy.window.updates_max * len(facts) if genesis else None,
        },
        "lag_records": records,
        "lag_seconds": seconds,
        "trend": way,
    }


def facts_of(known: Known, recent: Recent | None) -> Facts:
    """What health judges."""
    processes = known.processes.value or ()
    differs = disproved(list(known.audits))
    if recent is None:
        accepted = refused = 0
        age = interval = None
        arrive, metric, evaluated = False, "", None
    else:
        with recent.lock:
            accepted, refused = rates(recent, known.at_ms)
            age, interval = age_seconds(known, recent), interval_seconds(recent)
            arrive = _enough_arrived(known, recent, age)
            quality = quality_seen(known.genesis, recent)
            value = quality.value(known.head or 0)
            metric = "" if value is None or quality.metric is None else in_words(quality.metric, value)
            evaluated = evaluated_of(dict(recent.evaluations.items()))
    return Facts(
        kafka_problem=known.kafka.problem(known.at_ms),
        store_problem=known.store.problem(known.at_ms),
        kafka_asked=known.kafka.reason != NOT_ASKED,
        store_asked=known.store.reason != NOT_ASKED,
        head=known.head,
        age_seconds=age,
        interval_seconds=interval,
        updates_arrive=arrive,
        updates_judged=accepted + refused,
        accept_ratio=ratio(accepted, refused),
        task=known.task,
        gone=[(one.role, one.name) for one in processes if one.state == "gone"],
        disproved=None if differs is None else (differs.version, differs.findings_total, differs.ended_ms),
        at_ms=known.at_ms,
        merger_states=[one.state for one in processes if one.role == "merger"],
        evaluator_states=[one.state for one in processes if one.role == "evaluator"],
        metric=metric,
        evaluated=evaluated,
        regions=[
            _region_facts(known, region) for region in (known.genesis.partitions if known.genesis else ())
        ],
    )


def _enough_arrived(known: Known, recent: Recent, age: float | None) -> bool:
    """Whether updates go on arriving, and since the head as many count as usually make a version."""
    made = known.store.value.made if known.store.value else ()
    if age is None or not made:
        return False
    arriving = sum(sum(one.sums(known.at_ms, ARRIVING_SECONDS)) for one in recent.bins.values())
    usual = statistics.median(one.manifest.accepted for one in made)
    span = min(SERIES_SECONDS, int(age))
    return arriving > 0 and sum(one.sums(known.at_ms, span)[0] for one in recent.bins.values()) >= usual


def _region_facts(known: Known, region: str) -> RegionFacts:
    records, seconds, way = region_lag(known, region)
    groups = known.kafka.value.groups if known.kafka.value else ()
    members = [len(group.members) for group in groups if group.name == f"fluvial-{known.task}-{region}"]
    workers = [one for one in known.processes.value or () if one.role == "worker" and one.region == region]
    return RegionFacts(
        region,
        [one.state for one in workers],
        members[0] if members else None,
        records,
        seconds,
        way,
        gone=[one.name for one in workers if one.state == "gone"],
        stopped=[one.reason for one in workers if " stopped: " in one.reason],
    )
