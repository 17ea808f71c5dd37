"""One record: what it says, what became of it, and in which window and version it counts."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final

from aggregation.fold.events import Verdict
from fluvial.console.problems import nothing_there, wrong_query
from fluvial.console.queries import Query, number, text_of
from fluvial.console.refusals import explanation, inspect_command, record_document, require_region
from fluvial.console.version import judged
from fluvial.reading.inspection import content_of
from fluvial.reading.merged import Merged
from fluvial.reading.replay import authentic_aggregate
from fluvial.reading.verdicts import finite
from schemas.avro import CodecError
from schemas.topics import aggregates_topic, updates_topic, verdicts_topic
from schemas.verdicts import decode_verdict

if TYPE_CHECKING:
    from aggregation.server.aggregates import Slot
    from fluvial.console.paging import Page

_SMALL_BYTES: Final = 256
_DEPTH_MAX: Final = 8
_ENTRIES_MAX: Final = 200


def record_page(page: Page, query: Query) -> dict[str, Any]:
    """By place (``region``, ``partition``, ``offset``) or by ``update_id``."""
    update_id = text_of(query, "update_id")
    slot, offset = _by_id(page, update_id) if update_id is not None else _by_place(page, query)
    topic = updates_topic(page.task, slot[0])
    records = page.log.read(topic, slot[1], offset, offset + 1)
    if not records or records[0].offset != offset:
        low, high = page.log.bounds(topic, slot[1])
        raise nothing_there(
            f"{slot[0]}[{slot[1]}] has no offset {offset}: it holds {low} to {high - 1}",
            f"see the newest with `{page.say('verdicts')}`",
        )
    record = records[0]
    verdict = next(judged(page, slot, offset, offset + 1), None)
    content = content_of(record, record.value or b"", page.genesis.trust, page.genesis.tensor_layout)
    sequence = _window(page, slot, offset)
    version = None if sequence is None else _version(page, slot, sequence)
    known = verdict or Verdict(offset, "", base_version=-1)
    document = record_document(page, slot, known, record.timestamp_ms)
    if verdict is None:
        document |= {"outcome": None, "detail": explanation_of_none()}
    return {
        "record": document | {"bytes": len(record.value or b""), **explanation(known.outcome, known.detail)}
        if verdict
        else document,
        "update": printable(content),
        "version": version,
        "merged": None if version is None else _merged(page, slot, sequence, version),
        "window": sequence,
        "commands": {"inspect": inspect_command(page, slot, offset)},
    }


def _merged(page: Page, slot: Slot, sequence: int | None, version: int) -> dict[str, Any] | None:
    """What is left of a window in the version that holds it."""
    manifest = page.objects.manifest(version)
    found = [one for one in manifest.inputs if (one.region, one.partition, one.sequence) == (*slot, sequence)]
    return Merged(manifest, found[0]).document() if found else None


def explanation_of_none() -> str:
    """Why a record has no outcome."""
    return "no worker has folded this offset yet"


def _by_place(page: Page, query: Query) -> tuple[Slot, int]:
    region = text_of(query, "region")
    partition, offset = number(query, "partition", None), number(query, "offset", None)
    if region is None or partition is None or offset is None:
        raise wrong_query("record", "", "region, partition and offset, or update_id")
    require_region(page, region)
    if partition >= page.genesis.partitions[region]:
        raise wrong_query(
            "partition", str(partition), f"0 to {page.genesis.partitions[region] - 1} in {region}"
        )
    return (region, partition), offset


def _by_id(page: Page, update_id: str) -> tuple[Slot, int]:
    """Where an update is: in what was followed, or in the newest page of every partition."""
    with page.recent.lock:
        known = page.recent.updates.get(update_id)
    if known is not None:
        return known
    slots = page.genesis.slots
    each = max(1, (page.budget.records_left - len(slots)) // (2 * len(slots)))
    searched = 0
    for slot in slots:
        topic = verdicts_topic(page.task, slot[0])
        _, high = page.log.bounds(topic, slot[1])
        for record in page.log.read(topic, slot[1], max(0, high - each), high):
            searched += 1
            try:
                verdict = decode_verdict(record.value or b"")
            except (CodecError, TypeError):
                continue
            if verdict.update_id == update_id and verdict.offset <= record.offset:
                return slot, verdict.offset
    raise nothing_there(
        f"no update {update_id[:80]!r} among {len(page.recent.updates)} followed and the newest {searched} verdicts",
        f"search all with `{page.say('verdicts --from @start --limit 1000000 --json')}`",
    )


def _window(page: Page, slot: Slot, offset: int) -> int | None:
    """The sequence of the window that holds an offset, by halving; None where it is in none yet."""
    topic, trust = aggregates_topic(page.task, slot[0]), page.genesis.trust
    low, high = page.log.bounds(topic, slot[1])
    found: int | None = None
    while low < high and page.budget.records_left > 0:
        middle = (low + high) // 2
        record = page.log.read(topic, slot[1], middle, middle + 1)[0]
        aggregate = authentic_aggregate(record, trust, page.task, slot).aggregate
        if aggregate is None or aggregate.next_offset <= offset:
            low = middle + 1
        else:
            found = aggregate.sequence if aggregate.first_offset <= offset else found
            high = middle
    return found


def _version(page: Page, slot: Slot, sequence: int) -> int | None:
    """The version that holds a window, by halving over the manifests' cursors; None where none does yet."""
    low, high = 1, page.head + 1
    while low < high and page.budget.objects_left > 0:
        middle = (low + high) // 2
        if page.objects.manifest(middle).slot_cursors[slot] > sequence:
            high = middle
        else:
            low = middle + 1
    return low if low == high and low <= page.head else None


def printable(value: Any, depth: int = 0) -> Any:
    """What of a decoded record JSON can hold: bytes as hex or as their number, numbers that exist, bounded depth."""
    if depth > _DEPTH_MAX:
        return "…"
    if isinstance(value, bytes | bytearray):
        return bytes(value).hex() if len(value) <= _SMALL_BYTES else f"{len(value)} bytes"
    if isinstance(value, dict):
        entries = list(value.items())[:_ENTRIES_MAX]
        return {str(name): printable(one, depth + 1) for name, one in entries}
    if isinstance(value, list | tuple):
        return [printable(one, depth + 1) for one in value[:_ENTRIES_MAX]]
    if isinstance(value, float):
        return finite(value)
    return value if value is None or isinstance(value, str | int | bool) else str(value)


def packed(*parts: int | str) -> str:
    """A place in a list, as one word for an address."""
    return base64.urlsafe_b64encode("\x1f".join(str(part) for part in parts).encode()).decode().rstrip("=")


def unpacked(name: str, text: str, parts: int) -> list[str]:
    """The inverse of ``packed``; UsageProblem FLV-6505."""
    try:
        words = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode().split("\x1f")
    except ValueError as error:
        raise wrong_query(name, text, "a place that an answer gave as `next`") from error
    if len(words) != parts or not words[0].isdigit():
        raise wrong_query(name, text, "a place that an answer gave as `next`")
    return words
