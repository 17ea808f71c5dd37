"""The page of one version: what went into it, whether verdicts and manifest agree, and its contributors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from aggregation.errors import UsageProblem
from aggregation.fold.events import Verdict
from aggregation.fold.rejections import ACCEPTED
from aggregation.weights.divisors import divisor_of
from aggregation.weights.fixed_point import weight_after
from aggregation.weights.staleness import WEIGHT_ONE
from fluvial.console.limits import ROWS_MAX
from fluvial.console.now import staleness_counts, version_cost
from fluvial.console.quality import change_of, metric_document, quality_seen
from fluvial.console.queries import Query, cursor, number
from fluvial.reading.verdicts import finite, verdict_document
from schemas.avro import CodecError
from schemas.manifests import Input, Manifest, decode_manifest
from schemas.objects import sha256_hex
from schemas.refusals import Standing, judged_of, standing_of, updates_in
from schemas.topics import verdicts_topic
from schemas.verdicts import decode_verdict

if TYPE_CHECKING:
    from aggregation.server.aggregates import Slot
    from backends.log import LogRecord
    from fluvial.console.paging import Page

_CHUNK: Final = 100
_NEAR: Final = 64
"""Verdicts stand at most so much later than their offset before their place is searched and not read up to."""


def version_page(page: Page, version: int, query: Query) -> dict[str, Any]:
    """One version. Its verdicts are read as far as one page reaches: ``staleness_of`` says how far that was."""
    del query
    require_version(page, version)
    if version == 0:
        return _genesis(page)
    data = page.objects.manifest_bytes(version)
    manifest = decode_manifest(data)
    problems: list[str] = []
    counts: Counter[int] = Counter()
    regions = {region: [0, 0, 0] for region in sorted({one.region for one in manifest.inputs})}
    read, below = 0, False
    for named in _ordered(manifest):
        found, whole = _tile(page, named)
        read += len(found)
        accepted = [verdict for verdict in found if verdict.outcome == ACCEPTED]
        updates = sum(map(updates_in, found))
        below = below or updates != len(accepted)
        counts.update(verdict.staleness for verdict in accepted)
        sums = regions[named.region]
        sums[0] += updates
        sums[1] += sum(
            standing_of(one.outcome, named.region, one.device_id) is Standing.REFUSED for one in found
        )
        weight = weight_after(sum(verdict.weight for verdict in accepted), named.weight)
        sums[2] += weight
        if whole and updates != named.accepted:
            place = f"{named.region}[{named.partition}]@{named.first_offset}..{named.next_offset}"
            problems.append(
                f"{place}: verdicts on {updates} accepted updates, the manifest says {named.accepted}"
            )
    of = sum(one.next_offset - one.first_offset for one in manifest.inputs)
    weighs = sum(sums[2] for sums in regions.values())
    if read >= of and weighs != manifest.weight_total and not (problems or below):
        problems.append("the updates' weights are not the manifest's weight in all")
    return _document(page, manifest, sha256_hex(data)) | {
        "staleness": {
            "mean": manifest.staleness_total / manifest.accepted if manifest.accepted else None,
            "max": manifest.staleness_max,
            "counts": staleness_counts(counts) if counts else None,
        },
        "staleness_of": {"shown": min(read, of), "of": of},
        "regions": _regions(regions, whole=read >= of),
        "consistent": not problems if read >= of or problems else None,
        "problems": problems,
    }


def require_version(page: Page, version: int) -> None:
    """UsageProblem FLV-6205 where there is no such version."""
    if version > page.head:
        raise UsageProblem(
            "FLV-6205",
            f"task {page.task} has no version {version}: the newest is {page.head}",
            hint="see them with `fluvial versions`",
        )


def _regions(regions: dict[str, list[int]], *, whole: bool) -> list[dict[str, Any]]:
    """Of all records of each region, or null where one page did not reach."""
    return [
        {
            "region": region,
            "accepted": sums[0] if whole else None,
            "refused": sums[1] if whole else None,
            "weight_total": sums[2] / WEIGHT_ONE if whole else None,
        }
        for region, sums in regions.items()
    ]


def _document(page: Page, manifest: Manifest, sha256: str) -> dict[str, Any]:
    version, recent = manifest.version, page.recent
    with recent.lock:
        created = recent.committed_ms.get(version)
        evaluation = recent.evaluations.get(version)
        canaries = recent.version_canaries.get(version) or 0
        cost = version_cost(recent, [(one.region, one.partition, one.sequence) for one in manifest.inputs])
        judged = _judged(page, version)
    if created is None:
        created = page.objects.created_at_ms(version)
    first = next(iter(_ordered(manifest)), None)
    return {
        "version": version,
        "manifest_sha256": sha256,
        "parent_sha256": manifest.parent_sha256,
        "model_sha256": manifest.model_sha256,
        "policy_sha256": manifest.policy_sha256,
        "reason": manifest.reason,
        "created_at_ms": created,
        "accepted": manifest.accepted,
        "dropped": manifest.dropped,
        "refused": judged_of(manifest.counts, canaries).refused,
        "canaries": canaries,
        "counts": dict(manifest.counts),
        "weight_total": manifest.weight_total / WEIGHT_ONE,
        "cost": cost,
        **judged,
        "tiles": [
            {
                "region": one.region,
                "partition": one.partition,
                "sequence": one.sequence,
                "first_offset": one.first_offset,
                "next_offset": one.next_offset,
                "accepted": one.accepted,
                "late_versions": manifest.late_versions(one),
                "lateness_weight": one.weight / WEIGHT_ONE,
                "dropped": one.is_dropped,
                "sha256": one.sha256,
            }
            for one in _ordered(manifest)
        ],
        "evaluation": evaluation,
        "commands": commands(page, version)
        | {
            "inspect": page.say(f"inspect {first.region} {first.partition} {first.first_offset}")
            if first
            else None
        },
        "audit": None,
    }


def _judged(page: Page, version: int) -> dict[str, Any]:
    """The version in the task's own numbers; under ``recent.lock``."""
    quality = quality_seen(page.genesis, page.recent)
    return {
        "metric": metric_document(quality),
        "metrics": dict(quality.values.get(version, {})),
        "change": change_of(quality, version),
        "currency": page.recent.currency,
    }


def model_command(page: Page, version: int) -> str:
    """What writes a version's model to a file."""
    return page.say(f"model get --version {version}")


def commands(page: Page, version: int) -> dict[str, str | None]:
    """What shows the same on the command line."""
    return {
        "lineage": page.say(f"lineage {version}") if version else None,
        "refold": page.say(f"lineage {version} --refold") if version else None,
        "audit": page.say(f"audit --to {version}") if version else page.say("audit"),
        "model": model_command(page, version),
        "inspect": None,
    }


def _genesis(page: Page) -> dict[str, Any]:
    genesis = page.genesis
    with page.recent.lock:
        evaluation, judged = page.recent.evaluations.get(0), _judged(page, 0)
    return {
        "version": 0,
        "manifest_sha256": page.watch.file.genesis_sha256,
        "parent_sha256": "",
        "model_sha256": genesis.model_sha256,
        "policy_sha256": genesis.first_policy.sha256,
        "reason": "genesis",
        "created_at_ms": None,
        "accepted": 0,
        "dropped": 0,
        "refused": 0,
        "canaries": 0,
        "counts": {},
        "weight_total": 0.0,
        "cost": None,
        **judged,
        "staleness": {"mean": None, "max": 0, "counts": None},
        "staleness_of": {"shown": 0, "of": 0},
        "regions": [],
        "tiles": [],
        "consistent": True,
        "problems": [],
        "evaluation": evaluation,
        "commands": commands(page, 0),
        "audit": None,
    }


def _ordered(manifest: Manifest) -> list[Input]:
    return sorted(manifest.inputs, key=lambda one: (one.region, one.partition, one.sequence))


def _tile(page: Page, named: Input) -> tuple[list[Verdict], bool]:
    """(verdicts of one window as far as the budget reaches, whether these are all)."""
    found: dict[int, Verdict] = {}
    for verdict in judged(page, (named.region, named.partition), named.first_offset, named.next_offset):
        found.setdefault(verdict.offset, verdict)
    return list(found.values()), len(found) == named.next_offset - named.first_offset


def judged(page: Page, slot: Slot, first: int, end: int) -> Iterator[Verdict]:
    """Verdicts of the offsets ``first`` to ``end`` - 1 in the order of their topic, as far as the budget reaches.

    That of an offset stands at this position or later, by as many records as were published twice. Where those are
    many its place is searched by halving, which costs a record a step.
    """
    topic = verdicts_topic(page.task, slot[0])
    low, high = page.log.bounds(topic, slot[1])
    position = _place(page, slot, first, max(low, first), high)
    missing = set(range(first, end))
    size = len(
        missing
    )  # where nothing was published twice they are these, and the budget goes on to the next window
    while missing and position < high and page.budget.records_left > 0:
        size = min(size, page.budget.records_left, high - position)
        for record in page.log.read(topic, slot[1], position, position + size):
            verdict = _verdict(record)
            if verdict is not None and verdict.offset in missing:
                missing.discard(verdict.offset)
                yield verdict
        position += size
        size = max(_CHUNK, len(missing))


def _place(page: Page, slot: Slot, offset: int, low: int, high: int) -> int:
    """A position at or before which nothing of ``offset`` and later is missed."""
    with page.recent.lock:
        shift = page.recent.slots[slot].duplicates
    if shift <= _NEAR:
        return low
    topic, last = verdicts_topic(page.task, slot[0]), min(high, offset + shift + 1)
    while last - low > 1 and page.budget.records_left > 1:
        middle = (low + last) // 2
        verdict = _verdict(page.log.read(topic, slot[1], middle, middle + 1)[0])
        if verdict is None or verdict.offset > offset:
            last = middle
        else:
            low = middle
    return low


def _verdict(record: LogRecord) -> Verdict | None:
    """The verdict in a record; None for a stranger's."""
    try:
        found = decode_verdict(record.value or b"")
    except (CodecError, TypeError):
        return None
    return found if found.offset <= record.offset else None


def contributors_page(page: Page, version: int, query: Query) -> dict[str, Any]:
    """The updates that count in a version, in the order of its tiles, ``after`` a place (tile, offset)."""
    limit = number(query, "limit", ROWS_MAX, low=1, high=ROWS_MAX) or ROWS_MAX
    at = cursor(query, "after", 2)
    require_version(page, version)
    if version == 0:
        return {"contributors": [], "shown": 0, "of": 0, "next": None}
    manifest = page.objects.manifest(version)
    divisor = _divisor(page, manifest)
    tiles = _ordered(manifest)
    first_tile, after_offset = at if at is not None else (0, 0)
    rows: list[dict[str, Any]] = []
    following: str | None = None
    for index in range(first_tile, len(tiles)):
        named = tiles[index]
        slot = named.region, named.partition
        start = max(named.first_offset, after_offset if index == first_tile else 0)
        done = start
        for verdict in _in_order(page, slot, start, named.next_offset):
            if len(rows) == limit:
                break
            done = verdict.offset + 1
            if verdict.outcome == ACCEPTED:
                rows.append(_contributor(named, verdict, divisor))
        if done < named.next_offset and (len(rows) == limit or page.budget.records_left <= 0):
            following = f"{index}.{done}"
            break
    return {
        "contributors": rows,
        "shown": len(rows),
        "of": manifest.accepted + manifest.dropped,
        "next": following,
    }


def _in_order(page: Page, slot: Slot, first: int, end: int) -> list[Verdict]:
    found = {verdict.offset: verdict for verdict in judged(page, slot, first, end)}
    return [found[offset] for offset in sorted(found)]


def _contributor(tile: Input, verdict: Verdict, divisor: float) -> dict[str, Any]:
    document = verdict_document((tile.region, tile.partition), verdict)
    named = (
        "region",
        "partition",
        "offset",
        "device_id",
        "update_id",
        "base_version",
        "staleness",
        "weight",
        "clip",
    )
    left = tile.weight / WEIGHT_ONE
    share = verdict.weight / WEIGHT_ONE * verdict.clip * left / divisor if divisor else None
    return {name: document[name] for name in named} | {"share": finite(share)}


def _divisor(page: Page, manifest: Manifest) -> float:
    """What the version divides by, as the policy before it says; the same rule as ``fluvial lineage``."""
    first = page.genesis.first_policy
    before = (
        page.objects.manifest(manifest.version - 1).policy_sha256 if manifest.version > 1 else first.sha256
    )
    policy = first if before == first.sha256 else page.objects.policy(before)
    return divisor_of(policy.server.divide_by, updates=manifest.accepted, weight_total=manifest.weight_total)
