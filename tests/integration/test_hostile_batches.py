"""Batches by which two readers could be told apart, beside honest updates: nobody is silenced, and all see one log.

Every shape that the broker takes goes into the updates and the aggregates topic of a running federation; once into
topics as they were before they had a ``compression.type``, and once into those of today.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import psutil
import pytest

from aggregation.fold.events import Verdict
from aggregation.fold.rejections import ACCEPTED
from backends.kafka.configuration import connection
from fluvial.proof.audit import audit_task
from fluvial.proof.audit.strays import NO_RECORD
from fluvial.proof.checker import CheckRequest, StoreAddress, check
from schemas.topics import aggregates_topic, updates_topic, verdicts_topic
from tests import factories
from tests.factories import verdict_bytes
from tests.integration.pipeline import Federation
from tests.odd_batches import READABLE, REGULAR, TOO_LARGE, Odd
from tests.raw_batches import NAMES, ZSTD, RawProducer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backends.settings import Settings

SLOT = ("eu", 0)
POLICY: Final = factories.policy(
    window={"updates_max": 500, "seconds_max": 3600.0}, buffer={"updates": 4, "seconds_max": 3600.0}
)
SHAPES: Final = [odd for odd in READABLE if odd.kind != TOO_LARGE or NAMES[ZSTD] in odd.name]
"""One bomb: `test_fuzz.py` has others, and unpacking them takes its time."""
GROWN_BYTES_MAX: Final = 300 << 20


@pytest.fixture
def federation(stack: Settings, tmp_path: Path) -> Iterator[Federation]:
    federation = Federation(stack, tmp_path, {"eu": 1}, POLICY)
    yield federation
    federation.end()


def outcomes_of(odd: Odd) -> list[str]:
    return [{REGULAR: ACCEPTED, TOO_LARGE: "too_large"}.get(odd.kind, "undecodable")] * odd.offsets


@pytest.mark.parametrize("rewritten", [False, True], ids=["as written", "rewritten by the broker"])
def test_no_batch_silences_an_honest_update_or_tells_readers_apart(
    federation: Federation, *, rewritten: bool
) -> None:
    if not rewritten:
        federation.keep_what_producers_write()
    worker, merger = federation.start("worker"), federation.start("merger")
    expected = {federation.append(SLOT, federation.update("first")): ACCEPTED}
    federation.await_verdicts(SLOT, 0)
    before = psutil.Process(worker.process.pid).memory_info().rss
    surprises = {}
    with RawProducer(federation.settings.bootstrap_servers) as producer:
        for number, odd in enumerate(SHAPES):
            values = (federation.update(f"a-{number}"), federation.update(f"b-{number}"))
            error, base = producer.produce(updates_topic(federation.task, "eu"), 0, odd.build(values))
            if not rewritten:
                if (error == 0) != odd.stored:
                    surprises[str(odd)] = error
                expected |= dict(enumerate(outcomes_of(odd), base)) if error == 0 else {}
            if odd.kind != TOO_LARGE:
                producer.produce(aggregates_topic(federation.task, "eu"), 0, odd.build(values))
            expected[federation.append(SLOT, federation.update(f"honest-{number}"))] = ACCEPTED
    assert surprises == {}
    verdicts = federation.await_verdicts(SLOT, max(expected))
    assert psutil.Process(worker.process.pid).memory_info().rss - before < GROWN_BYTES_MAX
    assert {offset: verdicts[offset].outcome for offset in expected} == expected
    assert sorted(verdicts) == list(range(max(expected) + 1)), "one verdict for every offset, and no other"

    worker.kill()
    for ahead in (
        1,
        1,
        2,
        70,
    ):  # of the next offsets: whoever may write there can plant them, and stops nobody
        planted = verdict_bytes(Verdict(max(expected) + ahead, ACCEPTED))
        federation.writer.append_now(verdicts_topic(federation.task, "eu"), planted, partition=0)
    again = federation.start("worker")
    again.says("4 verdicts stand for offsets behind it for which no worker vouches")
    close_the_window(federation)
    federation.await_version(1)
    last = federation.append(SLOT, federation.update("last", base=0))
    assert federation.await_verdicts(SLOT, last)[last].outcome == ACCEPTED
    assert merger.process.poll() is None, merger.log
    report = audit_task(federation.settings, federation.task_file, jobs=1)
    assert [str(finding) for finding in report.findings] == []
    assert report.verdicts_vouched > len(expected), "workers' heads come through the broker and our reader"
    assert report.partitions[0].strays.kinds.keys() == {NO_RECORD}, "strangers' batches among the aggregates"
    assert the_checker_agrees(federation) == []


def close_the_window(federation: Federation) -> None:
    tick = {"task": federation.task, "region": SLOT[0], "partition": SLOT[1], "window_first_offset": 0}
    federation.append(SLOT, federation.worker_signer(SLOT[0]).sign("Tick", tick))


def the_checker_agrees(federation: Federation) -> list[str]:
    store = federation.settings.store
    address = StoreAddress(
        endpoint=store.endpoint,
        bucket=store.bucket,
        access_key=store.access_key,
        secret_key=store.secret_key,
        secure=store.secure,
        region=store.region,
    )
    request = CheckRequest(
        kafka=connection(federation.settings),
        store=address,
        task=federation.task,
        genesis_sha256=federation.task_file.genesis_sha256,
        drained=False,
    )
    return [violation.message for violation in check(request).violations]
