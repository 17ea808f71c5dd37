"""A device reads the verdict on its own update, and no other, from a topic into which others write as well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from aggregation.errors import TimeoutProblem
from aggregation.fold.events import Verdict
from producers.sdk.bases import Bases
from producers.sdk.device import Device, Receipt
from producers.sdk.updates import Author
from schemas.topics import updates_topic, verdicts_topic
from tests import factories
from tests.factories import verdict_bytes
from tests.small_federation import SmallFederation, on_mock_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[SmallFederation]:
    with on_mock_cluster(tmp_path) as settings:
        yield SmallFederation(settings, partitions={"eu": 1})


def device(federation: SmallFederation) -> Device:
    author = Author(federation.genesis, "eu", "d-0001", federation.signer(factories.device_signer("d-0001")))
    return Device(
        federation.settings,
        author,
        bases=Bases(federation.objects, federation.genesis),
        writer=federation.writer,
        announcements=cast("Any", None),  # nothing is fetched here
    )


def judge(federation: SmallFederation, *values: bytes) -> None:
    for value in values:
        federation.writer.append_now(verdicts_topic(federation.task, "eu"), value, partition=0)


def receipt(federation: SmallFederation, offset: int) -> Receipt:
    return Receipt(updates_topic(federation.task, "eu"), 0, offset, "u-1")


def test_the_verdict_of_another_offset_is_not_ours(federation: SmallFederation) -> None:
    verdicts = [
        Verdict(offset, outcome) for offset, outcome in enumerate(("accepted", "duplicate", "anomalous"))
    ]
    zero, one, ours = map(verdict_bytes, verdicts)
    # Copies of earlier ones, from a worker that had lost its partition, and junk stand where ours would.
    judge(federation, zero, one, zero, b"junk", one, ours)
    assert device(federation).verdict(receipt(federation, 2), timeout_s=30) == verdicts[2]


def test_without_its_own_verdict_a_device_waits_and_then_says_so(federation: SmallFederation) -> None:
    judge(federation, *[verdict_bytes(Verdict(offset, "accepted")) for offset in (0, 1, 3, 4)])
    with pytest.raises(TimeoutProblem, match="FLV-2503"):
        device(federation).verdict(receipt(federation, 2), timeout_s=0.2)
