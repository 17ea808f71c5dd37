"""The page of the defence: which devices are suspected, why and since when, and what it cost those who are not.

Devices stand as the newest followed window of each partition says: nothing is decided here. Counts are of the refusals
that were followed, reasons of the newest verdicts. Who is honest nobody knows: what a rule refused of devices that are
not suspected is what it may have cost them.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from aggregation.defences import SCORES_REMEMBERED, SHARE_VERSIONS
from aggregation.defences.usual import COSINE_STEPS
from aggregation.fold.rejections import ACCEPTED, RejectionReason
from fluvial.console.limits import DEFENCE_PARTITIONS_MAX, ROWS_MAX
from fluvial.console.pages import runbook
from fluvial.console.queries import Query, number, text_of
from fluvial.console.refusals import explanation, require_region
from fluvial.reading.devices import PartitionDevices, Refusal, Told, partition_devices
from schemas.manifest_inputs import usual_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aggregation.server.aggregates import Aggregate, Slot
    from fluvial.console.paging import Page
    from fluvial.console.recent import Placed
    from fluvial.reading.devices import DeviceStanding

RULES: Final = tuple(
    reason.outcome
    for reason in (RejectionReason.ANOMALOUS, RejectionReason.QUARANTINED, RejectionReason.OVER_SHARE)
)
"""Outcomes of updates that the defence and the shares refuse."""


def defence_page(asked: Page, query: Query) -> dict[str, Any]:
    """The suspected devices of ``region`` (or everywhere), the most suspected first, and what the rules refused.

    Reads the newest state of at most ``DEFENCE_PARTITIONS_MAX`` partitions.
    """
    region = text_of(query, "region")
    limit = number(query, "limit", ROWS_MAX, low=1, high=ROWS_MAX) or ROWS_MAX
    if region is not None:
        require_region(asked, region)
    slots = [slot for slot in asked.genesis.slots if region in {None, slot[0]}]
    windows, refusals, counts, since_ms = _followed(asked, region)
    read = slots[:DEFENCE_PARTITIONS_MAX]
    partitions = [_partition(asked, slot, windows.get(slot), refusals) for slot in read]
    suspected = [
        one
        for found in partitions
        for one in found.devices
        if one.quarantined or one.anomalous or one.revoked
    ]
    suspected.sort(key=lambda one: one.by_suspicion)
    policy = asked.genesis.first_policy
    return {
        "kind": policy.defence.kind,
        "parameters": msgspec.to_builtins(policy.defence),
        "keeps_shares": bool(policy.counts_shares and policy.shares.per_version),
        "shares": msgspec.to_builtins(policy.shares),
        "accepted_in_versions": SHARE_VERSIONS,
        "scored_max": SCORES_REMEMBERED,
        **_usual(asked),
        "since_ms": since_ms,
        "rules": [{"reason": outcome, "count": counts[outcome], **explanation(outcome)} for outcome in RULES],
        "accepted": counts[ACCEPTED],
        "unsuspected": _unsuspected(suspected, refusals),
        "devices": [_document(one) for one in suspected[:limit]],
        "shown": len(suspected[:limit]),
        "of": len(suspected) if len(read) == len(slots) else None,
        "quarantined": sum(one.quarantined for one in suspected),
        "known_devices": sum(len(one.devices) for one in partitions),
        "partitions": [one.document() for one in partitions],
        "partitions_of": len(slots),
        "runbook": runbook("poisoning"),
        "command": asked.say("devices"),
        "pardon": asked.say("pardon DEVICE --region REGION --reason TEXT") if policy.knows_pardons else None,
    }


def _followed(
    asked: Page, region: str | None
) -> tuple[dict[Slot, Aggregate], list[Placed], Counter[str], int]:
    """The newest windows, the refusals by a rule that are remembered, counts by outcome, and since when."""
    recent = asked.recent
    kafka = asked.known.kafka.value
    ends: Mapping[Slot, int] = kafka.ends if kafka is not None else {}
    with recent.lock:
        windows = {slot: facts.newest for slot, facts in recent.slots.items() if facts.newest is not None}
        refusals = [
            one for one in recent.refusals if one.verdict.outcome in RULES and region in {None, one.slot[0]}
        ]
        counts: Counter[str] = Counter()
        for (name, outcome), count in recent.outcomes.items():
            if region in {None, name}:
                counts[outcome] += count
        since_ms = recent.since_ms
    # A window beyond its log's end is the lie of a stolen key.
    honest = {
        slot: one for slot, one in windows.items() if one.next_offset <= ends.get(slot, one.next_offset)
    }
    return honest, refusals, counts, since_ms


def _partition(asked: Page, slot: Slot, window: Aggregate | None, refusals: list[Placed]) -> PartitionDevices:
    if window is None:
        return PartitionDevices(slot, None, None, ())

    def newest() -> Told:
        anomalous = (one for one in refusals if one.slot == slot and one.verdict.outcome == RULES[0])
        return Told({one.verdict.device_id: Refusal(one.verdict, one.timestamp_ms) for one in anomalous})

    return partition_devices(asked.objects, window, asked.head, newest)


def _usual(asked: Page) -> dict[str, Any]:
    """What the newest version's barriers say is usual, and which guide it names; None where it says nothing."""
    store = asked.known.store.value
    manifest = store.manifest if store is not None else None
    if manifest is None or not manifest.says_lateness:
        return {"usual": None, "guide_sha256": None, "version": asked.head}
    usual = usual_of(manifest)
    return {
        "usual": {
            "norm": usual.norm or None,
            "cosine": usual.cosine / COSINE_STEPS or None,
            "share": usual.share or None,
        },
        "guide_sha256": manifest.guide_sha256 or None,
        "version": manifest.version,
    }


def _unsuspected(suspected: list[DeviceStanding], refusals: list[Placed]) -> dict[str, int]:
    """How many of the remembered refusals by a rule were of devices that are not suspected, and of how many devices."""
    names = {(one.slot, one.device_id) for one in suspected}
    others = [one for one in refusals if (one.slot, one.verdict.device_id) not in names]
    return {
        "refused": len(others),
        "of": len(refusals),
        "devices": len({(one.slot, one.verdict.device_id) for one in others}),
    }


def _document(one: DeviceStanding) -> dict[str, Any]:
    return one.document() | (_meaning(one.refusal) if one.refusal is not None else {"meaning": None})


def _meaning(refusal: Refusal) -> dict[str, Any]:
    return {"meaning": explanation(refusal.verdict.outcome, refusal.verdict.detail)["explanation"]}
