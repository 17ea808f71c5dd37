"""The pages of versions: the list, the curve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backends.object_store import ObjectNotFound
from fluvial.console.limits import CURVE_POINTS, CURVE_POINTS_MAX, PAGE_OBJECTS
from fluvial.console.now import version_cost
from fluvial.console.quality import change_of, curve_points, metric_document, names_shown, quality_seen
from fluvial.console.queries import Query, number
from fluvial.console.version import model_command
from fluvial.reading.verdicts import finite
from fluvial.reading.versions import genesis_line, version_line
from schemas.task_metric import LOSS

if TYPE_CHECKING:
    from fluvial.console.paging import Page
    from fluvial.reading.quality import Quality
    from schemas.manifests import Manifest


def versions_page(page: Page, query: Query) -> dict[str, Any]:
    """The newest versions below ``before``, newest first; one object of the store each."""
    before = number(query, "before", None)
    limit = number(query, "limit", PAGE_OBJECTS, low=1, high=PAGE_OBJECTS) or PAGE_OBJECTS
    head = page.head
    newest = head if before is None else min(head, before - 1)
    oldest = max(0, newest - limit + 1)
    with page.recent.lock:
        quality = quality_seen(page.genesis, page.recent)
    rows = [_row(page, version, quality) for version in range(newest, oldest - 1, -1)]
    for row in rows:  # as far as the page's budget goes
        if row["created_at_ms"] is None and page.budget.objects_left > 0:
            row["created_at_ms"] = page.objects.created_at_ms(row["version"])
    best = quality.best()
    with page.recent.lock:
        currency = page.recent.currency
    return {
        "head": head,
        "metric": metric_document(quality),
        "metrics": names_shown(quality),
        "currency": currency,
        "commands": {"best": None if best is None else model_command(page, best[0])},
        "versions": rows,
        "shown": len(rows),
        "of": head + 1,
        "next": oldest if rows and oldest > 0 else None,
    }


def _row(page: Page, version: int, quality: Quality) -> dict[str, Any]:
    recent = page.recent
    manifest = _manifest(page, version) if version else None
    with recent.lock:
        evaluation = recent.evaluations.get(version) or {}
        created, seconds = recent.committed_ms.get(version), recent.version_seconds.get(version)
        inputs = [(one.region, one.partition, one.sequence) for one in manifest.inputs] if manifest else []
        cost, canaries = version_cost(recent, inputs), recent.version_canaries.get(version) or 0
    metrics = dict(quality.values.get(version, {}))
    line = (
        version_line(manifest, created, metrics, canaries)
        if manifest
        else genesis_line(page.genesis, created, metrics)
    )
    return line.document() | {
        "cost": cost,
        "seconds": seconds if seconds is not None else finite(evaluation.get("seconds")),
        "metric": quality.value(version),
        "change": change_of(quality, version),
        "loss": metrics.get(LOSS),
    }


def _manifest(page: Page, version: int) -> Manifest:
    store = page.known.store.value
    for made in store.made if store else ():
        if made.version == version:
            return made.manifest
    return page.objects.manifest(version)


def curve_page(page: Page, query: Query) -> dict[str, Any]:
    """Metric against version, from what was followed, thinned to at most ``points``."""
    points = number(query, "points", CURVE_POINTS, low=2, high=CURVE_POINTS_MAX) or CURVE_POINTS
    recent = page.recent
    with recent.lock:
        quality = quality_seen(page.known.genesis, recent)
        shown, of, every = curve_points(quality, quality.names, points)
    return {
        "metric": metric_document(quality),
        "metrics": quality.names,
        "points": shown,
        "shown": len(shown),
        "of": of,
        "every": every,
        "head": page.known.head,
    }


def manifest_bytes(page: Page, version: int) -> bytes:
    """A manifest as it stands; ObjectNotFound FLV-4001 where there is no such version."""
    if version > page.head:
        raise ObjectNotFound(f"version {version}", where=f"the newest version is {page.head}")
    return page.objects.manifest_bytes(version)
