"""Make a small recorded federation of the newest format, ``federation.v5``: one that is there is never written again.

Run ``python -m tests.golden.make_federation``; commit what it adds. Workers and merger run in memory with keys of
their own, on a clock that begins now: keys, signatures and times are of that one run.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from aggregation.fold.rejections import REJECTIONS
from aggregation.partitioning import partition_of
from backends import keys
from backends.memory.log import MemoryReader
from backends.tasks import TaskFile
from fluvial.reading.verdicts import verdict_document
from schemas.certificates import CONTROL, Role
from schemas.manifests import NEWEST_GENESIS
from schemas.objects import manifest_key, sha256_hex
from schemas.signing import FIRST_DOMAIN
from schemas.topics import updates_topic, verdicts_topic
from schemas.verdicts import decode_verdict
from tests.golden.making import OTHER_OPERATOR, PARTITIONS, Making, devices
from tests.golden.old_federation import audited
from tests.golden.recorded import HERE, TASK, Recording
from tests.strangers.recording import write

if TYPE_CHECKING:
    from aggregation.server.aggregates import Slot

EXPIRED_DAYS: Final = -1 / 1440


async def run(making: Making) -> None:  # noqa: C901 - one history, in its order
    """Four versions, every outcome that a record can have, and windows at the end that no version holds."""
    slots = making.genesis.slots
    eu, other, us = slots
    await making.running.start()

    for slot in slots:
        for n, name in enumerate(devices(slot)):
            making.update(slot, name, codec=("int8", "float32", "int4")[n % 3])
    undecodable(making, eu)
    not_authentic(making, us)
    await making.version()

    for slot in slots:
        making.update(slot, devices(slot, 7)[6], late=1)
        for name in devices(slot):
            making.update(slot, name)
    misplaced(making, eu, other)
    out_of_bounds(making, us)
    await making.version()

    victim = devices(other)[0]
    for partition in range(PARTITIONS["eu"]):
        revoke = {"device_id": victim, "certificate_serial": "", "reason": "stolen"}
        making.control("Revoke", ("eu", partition), revoke)
    making.update(other, victim)
    for slot in slots:
        for name in devices(slot)[1:]:
            making.update(slot, name, codec="float32")
    making.update(us, devices(us)[0], size=-0.3)
    park(making, eu, devices(eu)[0])
    await making.version()

    barred(making, slots)
    making.update(eu, devices(eu, 5)[4], late=3)
    for slot in slots:
        making.update(slot, devices(slot, 7)[6], late=1)
        for name in devices(slot)[1:]:
            making.update(slot, name)
    await making.version()

    for name in devices(us):
        making.update(us, name)
    making.update(eu, devices(eu)[1])
    await making.settle()


def undecodable(making: Making, slot: Slot) -> None:
    """What nobody can read, what no worker knows, what is too large, and the same update twice."""
    name = devices(slot, 5)[4]
    value = making.update(slot, name)
    for spoiled in (
        value,
        value[:-9],
        b"not a record",
        None,
        b"\xc3\x01" + bytes(8) + value[10:],
        bytes(3001),
    ):
        making.append(*slot, spoiled)


def not_authentic(making: Making, slot: Slot) -> None:
    """What another task, another CA's device, an expired certificate and a device that plays merger have signed."""
    *_, first, second = devices(slot, 6)
    making.update(slot, first, sign=lambda signer: signer.of_task(FIRST_DOMAIN))
    making.update(slot, first, key_pair=making.key_pair(slot[0], Role.DEVICE, first, folder=making.strange))
    making.update(slot, second, key_pair=making.key_pair(slot[0], Role.DEVICE, second, days=EXPIRED_DAYS))
    barrier = {
        "region": slot[0],
        "version": 99,
        "manifest_sha256": sha256_hex(b""),
        "model_sha256": sha256_hex(b""),
        "reference_sha256": "",
        "policy_sha256": making.policy.sha256,
        "floor": 0,
        "reason": "version",
    }
    making.control("Barrier", slot, barrier, (slot[0], Role.DEVICE, first))


def misplaced(making: Making, slot: Slot, other: Slot) -> None:
    """Updates that stand where they do not belong, or name what there is not."""
    name = devices(slot, 5)[4]
    assert partition_of(name, PARTITIONS[other[0]]) != other[1]
    making.update(other, name)
    changes: list[dict[str, Any]] = [
        {"task": "another"},
        {"region": "us"},
        {"base_sha256": sha256_hex(b"")},
        {"base_version": 99},
    ]
    for changed in changes:
        making.update(slot, name, change=lambda record, changed=changed: record.update(changed))  # type: ignore[misc]


def out_of_bounds(making: Making, slot: Slot) -> None:
    """Updates of another layout, with a value that is no number, with a variance below 0, and one that is too long."""
    name = devices(slot, 5)[4]
    nan, below, large = (
        np.full(count, value, "<f4").tobytes() for count, value in ((1, np.nan), (3, -1), (7, 50))
    )
    for index, data in ((0, nan), (4, below), (2, large)):
        making.update(
            slot,
            name,
            codec="float32",
            change=lambda record, index=index, data=data: record["tensors"][index].update(data=data),  # type: ignore[misc]
        )
    making.update(slot, name, change=lambda record: record["tensors"].pop())


def park(making: Making, slot: Slot, name: str) -> None:
    """A record at which the fold raises, an operator's Skip of it, and a Skip of one that was folded."""
    making.update(slot, name)
    offset = making.log.end(updates_topic(TASK, slot[0]), slot[1]) - 1
    making.parked.add((slot, offset))
    for skipped in (offset, 0):
        said = {"offset": skipped, "reason": "the fold raises on it"}
        making.control("Skip", slot, {"region": slot[0], "partition": slot[1], **said})


def barred(making: Making, slots: tuple[Slot, ...]) -> None:
    """An operator's certificate is revoked; what it signs then counts no more."""
    path = keys.signer_path(making.folder, CONTROL, Role.OPERATOR, OTHER_OPERATOR)
    other = (CONTROL, Role.OPERATOR, OTHER_OPERATOR)
    for slot in slots:
        stolen = {"device_id": "", "certificate_serial": keys.certificate_serial(path), "reason": "stolen"}
        making.control("Revoke", slot, stolen)
        made_up = {"device_id": devices(slot)[1], "certificate_serial": "", "reason": "made up"}
        making.control("Revoke", slot, made_up, other)


def expected(of: Recording, folder: Path) -> dict[str, Any]:
    """What the recording comes to; ``folder`` may be written to."""
    kept, genesis = of.objects(), of.genesis()
    manifests = [kept[manifest_key(TASK, 0)]]
    while manifest_key(TASK, len(manifests)) in kept:
        manifests.append(kept[manifest_key(TASK, len(manifests))])

    def audit(first: int, last: int) -> dict[str, Any]:
        report = audited(folder, kept, first, last, of=of)
        report.require_identical()
        return {name: value for name, value in report.document().items() if name not in {"seconds", "jobs"}}

    last = len(manifests) - 1
    whole = audit(1, last)
    partitions = [verdicts(of, slot) for slot in genesis.slots]
    outcomes = Counter(one["outcome"] for partition in partitions for one in partition["verdicts"])
    return {
        "task": TASK,
        "genesis_sha256": genesis.sha256,
        "digest": whole["digest"],
        "audit": whole,
        "audits_of_a_part": [audit(2, last - 1), audit(last, last)],
        "outcomes": dict(sorted(outcomes.items())),
        "versions": [version(number, data) for number, data in enumerate(manifests)],
        "partitions": partitions,
    }


def version(number: int, manifest: bytes) -> dict[str, Any]:
    """A version's hashes."""
    said = json.loads(manifest)
    hashes = {name: said[name] for name in ("model_sha256", "optimizer_sha256")}
    return {"version": number, "manifest_sha256": sha256_hex(manifest), **hashes}


def verdicts(of: Recording, slot: Slot) -> dict[str, Any]:
    """A partition's verdicts, as they read."""
    read = [decode_verdict(one.value or b"") for one in of.records(verdicts_topic(TASK, slot[0]), slot[1])]
    documents = [verdict_document(slot, one) for one in read]
    place = {"region": slot[0], "partition": slot[1]}
    return place | {
        "verdicts": [{k: v for k, v in document.items() if k not in place} for document in documents]
    }


def make(folder: Path) -> dict[str, Any]:
    """Run a federation and record it in ``folder``; returns what it comes to."""
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        made = place / folder.name
        making = Making(made / "task" / "keys", place / "strange")
        asyncio.run(run(making))
        reader = MemoryReader(making.log)
        write(
            made,
            TASK,
            PARTITIONS,
            lambda topic, partition: reader.read(topic, partition, *reader.bounds(topic, partition)),
            making.store.store,
        )
        file = TaskFile(
            task=TASK,
            genesis_sha256=making.genesis.sha256,
            reference="nowhere.py",
            regions=tuple(sorted(PARTITIONS)),
        )
        (made / "task" / "task.json").write_bytes(msgspec.json.format(msgspec.json.encode(file), indent=2))
        found = expected(Recording(made), place / "audited")
        (made / "expected.json").write_text(json.dumps(found, indent=1) + "\n")
        shutil.copytree(made, folder)
    return found


def main() -> int:
    """Make the federation of the newest format; 1 if it is there."""
    folder = HERE / f"federation.{NEWEST_GENESIS.rpartition('/')[2]}"
    if folder.exists():
        sys.stderr.write(f"RELEASED: {folder.name} is left as it is\n")
        return 1
    found = make(folder)
    never = sorted(REJECTIONS.keys() - found["outcomes"].keys())
    sys.stdout.write(f"made {folder.name}: {found['outcomes']}, never {', '.join(never) or 'nothing'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
