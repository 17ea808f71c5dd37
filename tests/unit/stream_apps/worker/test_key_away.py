"""A worker whose token goes away, at whatever signature, ends; the next one makes the very same of the log."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from aggregation.errors import AccessProblem
from schemas.verdicts import decode_verdict
from stream_apps.worker.partition import PartitionWorker
from tests import factories
from tests.failing_key import FailingKey, failing
from tests.unit.stream_apps.worker.worker_site import (
    AGGREGATES,
    REGION,
    UPDATES,
    VERDICTS,
    WorkerSite,
)

if TYPE_CHECKING:
    from pathlib import Path

MANY = 1 << 20
UPDATES_SENT = 8


def worker_of(site: WorkerSite, good: int) -> tuple[PartitionWorker, FailingKey]:
    key_pair, key = failing(factories.worker_signer(), good)
    signer = key_pair.of_task(site.context.genesis.domain)
    return PartitionWorker(replace(site.context, signer=signer), REGION, 0), key


async def fold(one: PartitionWorker, site: WorkerSite) -> None:
    """All of the log, a window that is closed by its age, and everything that comes of them."""
    await one.resume()
    for record in site.broker.records[UPDATES][one.state.next_offset :]:
        await one.process(record)
    site.clock.now_s += 60
    await one.tick()
    site.broker.flush()
    await one.process_all(site.broker.records[UPDATES][one.state.next_offset :])
    await one.resume()


def made(site: WorkerSite) -> tuple[dict[int, bytes], list[bytes]]:
    """Verdicts by offset, and windows in their order, each once; who writes again writes the same."""
    verdicts: dict[int, bytes] = {}
    for value in site.written(VERDICTS):
        assert verdicts.setdefault(decode_verdict(value).offset, value) == value
    return verdicts, list(dict.fromkeys(site.written(AGGREGATES)))


def sent(site: WorkerSite) -> WorkerSite:
    for number in range(UPDATES_SENT):
        site.update(number)
        site.junk()
    return site


def test_at_whatever_signature_a_token_goes_away_nothing_is_lost(tmp_path: Path) -> None:
    undisturbed = sent(WorkerSite(tmp_path / "undisturbed"))
    one, key = worker_of(undisturbed, MANY)
    asyncio.run(fold(one, undisturbed))
    expected, signatures = made(undisturbed), MANY - key.left
    assert len(expected[1]) == 3 and signatures > 5
    for good in range(signatures):
        site = sent(WorkerSite(tmp_path / f"{good}"))
        one, _ = worker_of(site, good)
        with pytest.raises(AccessProblem) as caught:
            asyncio.run(fold(one, site))
        assert caught.value.error_id == "FLV-2318"
        site.broker.pending.clear()  # its process has ended
        another, _ = worker_of(site, MANY)
        asyncio.run(fold(another, site))
        assert another.stopped is None
        assert made(site) == expected, f"after {good} signatures"
