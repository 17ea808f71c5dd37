"""Windows and announcements out of the bytes of a record: what they say, or why they are none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from aggregation.server.aggregates import Aggregate
from schemas import avro
from schemas.certificates import CONTROL, Role
from schemas.envelope import ENVELOPE, open_envelope
from schemas.objects import sha256_hex
from schemas.records import Announcement, Flaw, Unverified, aggregate_in, announcement_in
from tests import factories
from tests.factories import NOW_MS, TASK, sha, signer

if TYPE_CHECKING:
    from collections.abc import Callable

    from schemas.envelope import Signer

SLOT = ("eu", 1)
TRUST = factories.trust("eu", "us")
WORKER, MERGER = factories.worker_signer(), factories.merger_signer()


def window(by: Signer = WORKER, **changed: Any) -> bytes:
    record = {
        "task": TASK,
        "region": "eu",
        "partition": 1,
        "sequence": 4,
        "first_offset": 10,
        "next_offset": 13,
        "version": 2,
        "policy_sha256": sha("policy"),
        "counts": {"accepted": 3},
        "accepted": 3,
        "weight_total": 3 << 16,
        "staleness_total": 0,
        "staleness_max": 0,
        "update_bytes": 99,
        "sum_sha256": sha("sum"),
        "state_sha256": sha("state"),
        "contributors_sha256": sha("contributors"),
        "previous_sha256": sha("previous"),
    }
    return by.sign("RegionalAggregate", record | changed)


def announcement(by: Signer = MERGER, **changed: Any) -> bytes:
    record = {
        "task": TASK,
        "region": "eu",
        "version": 2,
        "manifest_sha256": sha("manifest"),
        "model_sha256": sha("model"),
        "policy_sha256": sha("policy"),
    }
    return by.sign("ModelAnnouncement", record | changed)


def reenveloped(value: bytes, **changed: Any) -> bytes:
    """The same envelope with other fields, its signature as it was."""
    return avro.encode(ENVELOPE, avro.decode(value)[1] | changed)


def test_a_window_is_what_its_worker_signed_named_by_the_hash_of_its_payload() -> None:
    found = aggregate_in(window(), NOW_MS, TRUST, TASK, SLOT)
    assert isinstance(found, Aggregate)
    assert (found.slot, found.sequence, found.accepted, found.next_offset) == (SLOT, 4, 3, 13)
    assert found.sha256 == sha256_hex(open_envelope(window()).payload)


def test_an_announcement_is_what_its_merger_signed() -> None:
    found = announcement_in(announcement(), NOW_MS, TRUST)
    assert found == Announcement(TASK, "eu", 2, sha("manifest"), sha("model"), sha("policy"))


OLD = {"not_after": factories.NOT_BEFORE}
EXPIRED_WORKER = signer("eu", Role.WORKER, "w-1", **OLD)

WINDOWS: dict[str, tuple[Callable[[], bytes | None], Flaw, str]] = {
    "no value": (lambda: None, Flaw.UNDECODABLE, "cannot be decoded: "),
    "junk": (lambda: b"junk", Flaw.UNDECODABLE, "cannot be decoded: "),
    "cut": (lambda: window()[:-9], Flaw.UNDECODABLE, "cannot be decoded: "),
    "a payload that its worker signed and nobody can read": (
        lambda: WORKER.sign_payload("RegionalAggregate", open_envelope(window()).payload[:-5]),
        Flaw.UNDECODABLE,
        "cannot be decoded: ",
    ),
    "another kind": (announcement, Flaw.WRONG_KIND, "is a ModelAnnouncement"),
    "a device's": (
        lambda: window(factories.device_signer("d-1")),
        Flaw.FORGED,
        "forged RegionalAggregate: a device may not sign a RegionalAggregate",
    ),
    "a merger's": (
        lambda: window(MERGER),
        Flaw.FORGED,
        "forged RegionalAggregate: a merger may not sign a RegionalAggregate",
    ),
    "of a worker whose certificate has expired": (
        lambda: window(EXPIRED_WORKER),
        Flaw.FORGED,
        "forged RegionalAggregate: certificate ",
    ),
    "a signature over something else": (
        lambda: reenveloped(window(), signature=avro.decode(window(sequence=5))[1]["signature"]),
        Flaw.FORGED,
        "forged RegionalAggregate: the signature is not w-1's over this payload",
    ),
    "another region's worker": (
        lambda: window(factories.worker_signer("w-1", "us")),
        Flaw.WRONG_REGION,
        "is signed by a worker of us, not of eu",
    ),
    "another partition's": (
        lambda: window(partition=0),
        Flaw.WRONG_PLACE,
        f"belongs to eu[0] of task {TASK}, not here",
    ),
    "another task's": (
        lambda: window(task="another"),
        Flaw.WRONG_PLACE,
        "belongs to eu[1] of task another, not here",
    ),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_what_is_no_window_of_this_partition_says_why(name: str) -> None:
    value, flaw, reason = WINDOWS[name]
    found = aggregate_in(value(), NOW_MS, TRUST, TASK, SLOT)
    assert isinstance(found, Unverified)
    assert found.flaw is flaw
    assert found.reason.startswith(reason)


ANNOUNCEMENTS: dict[str, tuple[Callable[[], bytes | None], Flaw, str]] = {
    "no value": (lambda: None, Flaw.UNDECODABLE, "cannot be decoded: "),
    "another kind": (window, Flaw.WRONG_KIND, "is a RegionalAggregate"),
    "a worker's": (
        lambda: announcement(WORKER),
        Flaw.FORGED,
        "forged ModelAnnouncement: a worker may not sign a ModelAnnouncement",
    ),
    "a merger's of a CA that the task does not have": (
        lambda: announcement(signer(CONTROL, Role.MERGER, "m-1", secret="another")),
        Flaw.FORGED,
        "forged ModelAnnouncement: ",
    ),
    "another payload under a merger's signature": (
        lambda: reenveloped(announcement(), payload=open_envelope(announcement(version=9)).payload),
        Flaw.FORGED,
        "forged ModelAnnouncement: the signature is not m-1's over this payload",
    ),
}


@pytest.mark.parametrize("name", ANNOUNCEMENTS)
def test_what_is_no_announcement_says_why(name: str) -> None:
    value, flaw, reason = ANNOUNCEMENTS[name]
    found = announcement_in(value(), NOW_MS, TRUST)
    assert isinstance(found, Unverified)
    assert found.flaw is flaw
    assert found.reason.startswith(reason)


@pytest.mark.parametrize(
    ("task", "region", "expected"),
    [(TASK, "eu", [True]), ("another", "eu", [False]), (TASK, "mars", [False])],
)
def test_an_announcement_belongs_to_its_task_and_one_of_its_regions(
    task: str, region: str, expected: list[bool]
) -> None:
    found = announcement_in(announcement(task=task, region=region), NOW_MS, TRUST)
    assert isinstance(found, Announcement)
    assert [found.belongs_to(TASK, {"eu": 2, "us": 1})] == expected
