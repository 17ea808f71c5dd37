"""A log, a store and a task folder from before formats: audited, checked, resumed and replayed as they were."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from aggregation.policy import policy_from_canonical
from aggregation.server.aggregates import Aggregate, Slot
from aggregation.weights.staleness import WEIGHT_ONE
from backends.memory.log import MemoryReader
from backends.settings import Settings, StoreSettings
from backends.tasks import read_task_file
from fluvial.proof.checker import check_logs
from fluvial.reading.lineage import lineage_of
from fluvial.reading.task_view import TaskView
from fluvial.reading.verdicts import verdict_document
from producers.sdk.bases import Base
from producers.sdk.updates import Author, Contribution, honest_record, seal_update
from schemas.certificates import Role
from schemas.objects import sha256_hex
from schemas.records import aggregate_in
from schemas.topics import aggregates_topic, verdicts_topic
from schemas.verdicts import decode_verdict
from tests.golden.old_federation import (
    ORDER,
    audited,
    clock,
    federation,
    log_with,
    signer,
    signers,
    slot_of,
)
from tests.golden.recorded import EXPECTED, FOLDER, TASK, genesis, objects, partitions, records, store_of
from tests.recorded_order import RecordedOrder, made_again

if TYPE_CHECKING:
    from backends.kafka.reading import LogReader

RANGES = [EXPECTED["audit"], *EXPECTED["audits_of_a_part"]]


@pytest.mark.parametrize("expected", RANGES, ids=lambda one: f"{one['from']} to {one['to']}")
def test_it_is_audited_to_the_same_digest(tmp_path: Path, expected: dict[str, Any]) -> None:
    document = audited(tmp_path, objects(), expected["from"], expected["to"]).document()
    timing = {"seconds", "jobs"}
    assert {name: document[name] for name in document.keys() - timing} == {
        name: expected[name] for name in expected.keys() - timing
    }


def test_a_flipped_bit_in_it_is_found(tmp_path: Path) -> None:
    kept = objects()
    key = f"{TASK}/versions/3/model.safetensors"
    kept[key] = kept[key][:-1] + bytes([kept[key][-1] ^ 1])
    report = audited(tmp_path, kept, 1, 8)
    assert not report.identical
    assert any(key in str(one) for one in report.document()["findings"])


def test_the_independent_checker_finds_nothing_wrong() -> None:
    logs = {
        (topic, p): [(one.offset, one.timestamp_ms, one.key, one.value) for one in records(topic, p)]
        for topic, count in partitions()
        for p in range(count)
    }
    report = check_logs(logs, objects(), TASK, EXPECTED["genesis_sha256"], drained=False)
    assert list(report.violations) == []


def test_its_documents_keep_their_bytes_and_hashes() -> None:
    kept, task = objects(), genesis()
    assert sha256_hex(task.canonical()) == EXPECTED["genesis_sha256"]
    policy = task.first_policy
    assert policy.format == "fluvial/policy/v1"
    stored = kept[f"{TASK}/objects/{policy.sha256[:2]}/{policy.sha256}"]
    assert policy == policy_from_canonical(stored)
    for number, one in enumerate(EXPECTED["versions"]):
        manifest = kept[f"{TASK}/versions/{one.get('version', number)}/manifest.json"]
        assert sha256_hex(manifest) == one["manifest_sha256"]


def test_its_verdicts_read_as_they_did() -> None:
    for one in EXPECTED["partitions"]:
        slot = (one["region"], one["partition"])
        read = [
            decode_verdict(record.value or b"") for record in records(verdicts_topic(TASK, slot[0]), slot[1])
        ]
        documents = [verdict_document(slot, verdict) for verdict in {v.offset: v for v in read}.values()]
        bare = [{k: v for k, v in doc.items() if k not in {"region", "partition"}} for doc in documents]
        # What a verdict of today says besides, those of then do not.
        later = {(doc.pop("reason"), len(doc.pop("values")), doc.pop("forged")) for doc in bare}
        assert later <= {(None, 0, None), ("nothing", 0, None)}
        assert sorted(bare, key=lambda doc: doc["offset"]) == one["verdicts"]


def ends_of_windows(slot: Slot) -> list[int]:
    """One past the last offset of each published window."""
    read = [
        aggregate_in(one.value, one.timestamp_ms, genesis().trust, TASK, slot)
        for one in records(aggregates_topic(TASK, slot[0]), slot[1])
    ]
    return sorted(one.next_offset for one in read if isinstance(one, Aggregate))


def test_workers_and_merger_go_on_where_it_ended() -> None:
    """They resume from old snapshots and the old head, and make the next version of new updates.

    Workers fold the last windows of others again: they begin at the end of an earlier one, from its snapshot.
    """
    at = clock()
    log, store = log_with(at=at), store_of(objects())
    running = federation(log, store, at)

    async def run() -> None:
        for slot, at_offset in (await running.resume_workers()).items():
            assert at_offset in ends_of_windows(slot)[:-1]
        await running.start()
        assert running.merger.head.number == 8
        head = store.manifest(8)
        task = genesis()
        data = store.model_bytes(8, head.model_sha256)
        assert sha256_hex(data) == EXPECTED["versions"][-1]["model_sha256"]
        for number in range(12):
            name, region = f"d-{number:04d}", sorted(task.regions)[number % 2]
            path = FOLDER / "task" / "keys" / region / "device" / f"{name}.pem"
            if path.exists():
                author = Author(task, region, name, signer(region, Role.DEVICE, name).of_task(task.domain))
                base = Base(8, head.model_sha256, running.merger.head.checkpoint.model, task.first_policy)
                outcome = Contribution(base.parameters * 0 + 0.001, 10, 0.5)
                layout = task.tensor_layout
                record = honest_record(author, base, layout, codec="int8", outcome=outcome, created_at_ms=0)
                what = author.publication(seal_update(author, record), record["update_id"])
                log.append(what.topic, what.partition, what.key, what.value, ())
        for _ in range(100):
            at.advance_to(at.now_s + 1.0)
            await running.fold()
            await running.tick()
            await running.settle()
            if running.merger.head.number > 8:
                return

    asyncio.run(run())
    assert running.merger.head.number == 9
    assert store.manifest(9).accepted > 0
    assert store.manifest(9).parent_sha256 == EXPECTED["versions"][-1]["manifest_sha256"]


@pytest.mark.parametrize("refold", [False, True], ids=["by verdicts", "folded again"])
def test_its_lineage_reads_as_it_did(tmp_path: Path, *, refold: bool) -> None:
    reader = cast("LogReader", MemoryReader(log_with(at=clock())))
    shutil.copytree(FOLDER / "task", tmp_path / "tasks" / TASK)
    view = TaskView(
        Settings(home=tmp_path, bootstrap_servers="", store=StoreSettings(kind="file", path=tmp_path)),
        read_task_file(tmp_path, TASK),
        store_of(objects()),
        genesis(),
        reader,
    )
    for version in ORDER["versions"]:
        found = lineage_of(view, version["version"], refold=refold)
        assert found.problems == ()
        read = {
            (*tile.slot, tile.named.sequence): [
                (
                    one.device_id,
                    one.offset,
                    one.staleness,
                    one.weight / WEIGHT_ONE,
                    one.clip,
                    found.share(tile, one),
                )
                for one in tile.contributors
            ]
            for tile in found.tiles
        }
        names = ("device", "offset", "staleness", "weight", "clip", "share")
        assert read == {
            (*slot_of(window), window["sequence"]): [
                tuple(one[name] for name in names) for one in window["updates"]
            ]
            for window in version["windows"]
        }


def test_the_recorded_order_of_arrivals_gives_the_recorded_versions() -> None:
    """What `--simulate` runs on, fed as the real stack was: the same windows, every version's manifest and model."""
    recorded = RecordedOrder(genesis(), store_of(objects()), records)
    made = made_again(recorded, **signers())
    assert made == recorded.manifests
    assert [one.model_sha256 for one in made] == [
        one["model_sha256"] for one in EXPECTED["versions"] if one["version"]
    ]
