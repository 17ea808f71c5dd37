"""The page of the fleet: who takes part and how evenly, and one device's timeline, read back a page a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aggregation.partitioning import partition_of
from fluvial.console.devices import Sort, page, participation
from fluvial.console.limits import PAGE_RECORDS, ROWS_MAX, TEXT_CHARACTERS_MAX
from fluvial.console.quality import metric_document, quality_seen
from fluvial.console.queries import Query, number, text_of, word
from fluvial.console.records import packed, unpacked
from fluvial.console.refusals import record_document, require_region
from fluvial.reading.verdicts import finite
from schemas.avro import CodecError
from schemas.topics import verdicts_topic
from schemas.verdicts import decode_verdict

if TYPE_CHECKING:
    from fluvial.console.paging import Page

_SORTS: Final[tuple[Sort, ...]] = ("recent", "refused", "accepted")


def fleet_page(asked: Page, query: Query) -> dict[str, Any]:
    """Devices by ``sort``, ``after`` a place, with what the newest evaluation says of cohorts. Reads nothing."""
    sort: Sort = next(one for one in _SORTS if one == word(query, "sort", _SORTS, "recent"))
    limit = number(query, "limit", ROWS_MAX, low=1, high=ROWS_MAX) or ROWS_MAX
    text = text_of(query, "after")
    place = unpacked("after", text, 3) if text is not None else None
    after = (int(place[0]), place[1], place[2]) if place is not None else None
    recent = asked.recent
    with recent.lock:
        devices, forgotten, since_ms = recent.devices.rows(), recent.devices.forgotten, recent.since_ms
        evaluated = {version: one for version, one in recent.evaluations.items() if version > 0}
        costs = {region: list(sums) for region, sums in recent.cost_by_region.items()}
        by_cohort = {cohort: list(sums) for cohort, sums in recent.cost_by_cohort.items()}
        quality, currency = quality_seen(asked.genesis, recent), recent.currency
    newest = max(evaluated, default=None)
    evaluation = evaluated[newest] if newest is not None else {}
    rows, more = page(devices, sort, after, limit)
    return {
        "since_ms": since_ms,
        "devices_seen": len(devices) + forgotten,
        "forgotten": forgotten,
        "participation": participation([one.accepted for one in devices]),
        "metric": metric_document(quality),
        "currency": currency,
        "cohorts": _cohorts(evaluation, by_cohort, quality.name),
        "cohorts_version": newest,
        "fairness": {
            "gap": finite(evaluation.get("fairness_gap")),
            "worst_decile": finite(evaluation.get(f"{quality.name}_worst_decile")),
        },
        "cost_by_region": [
            {
                "region": region,
                "cost": sums[0],
                "bytes_up": sums[1],
                "device_seconds": sums[2],
                "accepted": sums[3],
            }
            for region, sums in sorted(costs.items())
        ],
        "devices": [one.document() for one in rows],
        "shown": len(rows),
        "of": len(devices),
        "next": packed(*rows[-1].key(sort)) if rows and more else None,
    }


def _cohorts(evaluation: dict[str, Any], costs: dict[str, list[float]], metric: str) -> list[dict[str, Any]]:
    """Cohorts by number: the metric on held-out data, and what devices that say they are of one brought and cost."""
    prefix = f"{metric}_cohort_"
    found = {
        name.removeprefix(prefix): value for name, value in evaluation.items() if name.startswith(prefix)
    }
    names = sorted(found.keys() | costs.keys(), key=lambda name: (len(name), name))[:ROWS_MAX]
    return [
        {
            "cohort": name[:TEXT_CHARACTERS_MAX],
            "metric": finite(found.get(name)),
            "cost": costs[name][0] if name in costs else None,
            "accepted": costs[name][3] if name in costs else None,
        }
        for name in names
    ]


def device_page(asked: Page, device_id: str, query: Query) -> dict[str, Any]:
    """What became of one device's records, newest first: of one page of its partition's verdicts below ``before``."""
    region = text_of(query, "region") or _region_of(asked, device_id)
    before = number(query, "before", None)
    require_region(asked, region)
    partition = partition_of(device_id, asked.genesis.partitions[region])
    topic = verdicts_topic(asked.task, region)
    low, high = asked.log.bounds(topic, partition)
    end = high if before is None else min(high, before)
    first = max(low, end - PAGE_RECORDS)
    found: dict[int, dict[str, Any]] = {}
    for record in asked.log.read(topic, partition, first, end):
        try:
            verdict = decode_verdict(record.value or b"")
        except (CodecError, TypeError):
            continue
        if verdict.device_id == device_id and verdict.offset <= record.offset:
            document = record_document(asked, (region, partition), verdict, record.timestamp_ms)
            found.setdefault(verdict.offset, document)
    rows = [found[offset] for offset in sorted(found, reverse=True)]
    return {
        "device_id": device_id,
        "region": region,
        "partition": partition,
        "records": rows,
        "shown": len(rows),
        "of": None,
        "next": first if first > low else None,
        "searched": {"first": first, "end": end},
        "command": asked.say(f"verdicts --region {region} --partition {partition}"),
    }


def _region_of(asked: Page, device_id: str) -> str:
    """The region in which a device was seen, or the first: an id says nothing of it."""
    with asked.recent.lock:
        regions = {one.region for one in asked.recent.devices.rows() if one.device_id == device_id}
    return min(regions) if regions else next(iter(asked.genesis.partitions))
