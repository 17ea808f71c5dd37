"""No request of the console reads more than one page, with 10,000 versions and a million records and devices."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from aggregation.errors import ConnectionProblem, UsageProblem
from aggregation.fold.rejections import ACCEPTED
from fluvial.console import devices_page, records, refusals, version, versions
from fluvial.console.budget import Budget, PagedLog, PagedStore, ReadOnlyError
from fluvial.console.limits import DEVICES_MAX, HEAD_PROBES_MAX, PAGE_OBJECTS, PAGE_RECORDS
from fluvial.console.looks import StoreLook
from schemas.objects import sha256_hex
from tests.unit.fluvial.console.console_home import (
    RECORDS,
    TASK,
    VERSIONS,
    LongLog,
    fill_store,
    genesis,
    page_on,
    verdict_value,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from backends.log import LogRecord
    from backends.store.file import FileStore
    from fluvial.console.paging import Page

HUGE = 5000


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FileStore:
    return fill_store(tmp_path_factory.mktemp("many"), VERSIONS, HUGE)


@pytest.fixture
def log() -> LongLog:
    return LongLog()


@pytest.fixture
def page(store: FileStore, log: LongLog, tmp_path: Path) -> Page:
    return page_on(store, log, tmp_path)


def answers(page: Page, build: Callable[[Page], dict[str, Any]], log: LongLog) -> dict[str, Any]:
    """What a request gets; the log has then given no more than one page, and the store neither."""
    answer = build(page)
    assert log.read <= PAGE_RECORDS
    assert page.budget.records <= PAGE_RECORDS
    assert page.budget.objects <= PAGE_OBJECTS
    return answer


@pytest.mark.parametrize("before", ["10001", "5000", "1"])
def test_a_page_of_versions_reads_one_page_of_objects(page: Page, log: LongLog, before: str) -> None:
    answer = answers(page, lambda page: versions.versions_page(page, {"before": before}), log)
    newest = int(before) - 1
    assert [row["version"] for row in answer["versions"]][:2] == [newest, newest - 1][: newest + 1]
    assert (answer["head"], answer["of"]) == (VERSIONS, VERSIONS + 1)


def test_all_versions_are_reached_by_following_next(page: Page, store: FileStore, tmp_path: Path) -> None:
    del page
    seen, before = 0, str(VERSIONS + 1)
    while before:
        answer = versions.versions_page(page_on(store, LongLog(), tmp_path), {"before": before})
        seen, before = seen + answer["shown"], str(answer["next"] or "")
    assert seen == VERSIONS + 1


def test_a_version_of_a_million_records_says_how_far_it_was_read(page: Page, log: LongLog) -> None:
    answer = answers(page, lambda page: version.version_page(page, HUGE, {}), log)
    assert answer["staleness_of"] == {"shown": PAGE_RECORDS, "of": RECORDS}
    assert answer["staleness"]["counts"] == [{"staleness": 0, "count": PAGE_RECORDS}]
    assert answer["consistent"] is None  # neither yes nor no: most was not read


def test_contributors_go_on_where_the_page_before_ended(
    store: FileStore, log: LongLog, tmp_path: Path
) -> None:
    offsets: list[int] = []
    after: dict[str, str] = {}
    for _ in range(3):
        log.read = 0
        page = page_on(store, log, tmp_path)
        answer = answers(page, partial(version.contributors_page, version=HUGE, query=after), log)
        offsets += [row["offset"] for row in answer["contributors"]]
        after = {"after": answer["next"]}
    assert offsets == list(range(300))


def test_one_devices_timeline_reads_one_page_of_its_partition(page: Page, log: LongLog) -> None:
    answer = answers(page, lambda page: devices_page.device_page(page, "d-7", {"region": "eu"}), log)
    assert [row["offset"] for row in answer["records"]] == [999_907, 999_807, 999_707, 999_607, 999_507]
    assert answer["next"] == RECORDS - PAGE_RECORDS


@pytest.mark.parametrize("first", [0, 500, 995, 1000, 5000])
def test_verdicts_behind_many_that_came_twice_are_found_within_the_budget(
    store: FileStore, tmp_path: Path, first: int
) -> None:
    page = page_on(store, RepeatedLog(), tmp_path)
    page.recent.slots["eu", 0].duplicates = RepeatedLog.REPEATED
    found = {one.offset for one in version.judged(page, ("eu", 0), first, first + 10)}
    assert found == set(range(first, first + 10))
    assert page.budget.records <= PAGE_RECORDS


class RepeatedLog(LongLog):
    """Its first thousand verdicts were published twice, by a worker that came back."""

    REPEATED = 1000

    def follow(
        self, starts: Mapping[tuple[str, int], int], *, timeout_s: float | None = None
    ) -> Iterator[LogRecord | None]:
        for record in super().follow(starts, timeout_s=timeout_s):
            assert record is not None
            offset = record.offset
            yield replace(
                record, value=verdict_value(offset - self.REPEATED if offset >= self.REPEATED else offset)
            )


def test_an_unknown_update_is_searched_in_the_newest_page_and_no_further(page: Page, log: LongLog) -> None:
    with pytest.raises(UsageProblem, match="newest 249 verdicts") as raised:
        records.record_page(page, {"update_id": "u-3"})
    assert (raised.value.error_id, log.read) == ("FLV-6503", 249)


def test_the_head_of_ten_thousand_versions_is_found_in_few_questions(store: FileStore) -> None:
    counted = Counted(store)
    look = StoreLook(counted, TASK, sha256_hex(genesis().canonical()))  # type: ignore[arg-type]
    assert look().head == VERSIONS
    assert counted.asked <= HEAD_PROBES_MAX
    counted.asked = 0
    look()
    assert counted.asked == 1, "a look at a store without news is one question"


class Counted:
    """A store that counts what is asked of it."""

    def __init__(self, store: FileStore) -> None:
        self._store = store
        self.asked = 0

    def get(self, key: str, *, bytes_max: int | None = None) -> bytes:
        self.asked += 1
        return self._store.get(key, bytes_max=bytes_max)

    def exists(self, key: str) -> bool:
        self.asked += 1
        return self._store.exists(key)


def test_a_log_raises_before_it_gives_more_than_its_budget() -> None:
    log = LongLog()
    paged = PagedLog(log, Budget())
    with pytest.raises(ConnectionProblem, match="500 records") as raised:
        paged.read("t", 0, 0, PAGE_RECORDS + 1)
    assert (raised.value.error_id, log.read) == ("FLV-6509", 0)
    assert len(paged.read("t", 0, 0, PAGE_RECORDS)) == PAGE_RECORDS


def test_a_store_raises_before_it_gives_more_than_its_budget(store: FileStore) -> None:
    counted = Counted(store)
    paged = PagedStore(counted, Budget())  # type: ignore[arg-type]
    for _ in range(PAGE_OBJECTS):
        paged.exists("a/b")
    with pytest.raises(ConnectionProblem, match="50 objects"):
        paged.get("a/b")
    assert counted.asked == PAGE_OBJECTS


def test_a_paged_store_writes_and_lists_nothing(store: FileStore) -> None:
    paged = PagedStore(store, Budget())
    for act in (lambda: paged.put("a", b""), lambda: paged.create("a", b""), lambda: paged.list("a")):
        with pytest.raises(ReadOnlyError):
            act()


def test_a_million_devices_are_counted_within_bounds(page: Page, log: LongLog) -> None:
    recent = page.recent
    for number in range(1_000_000):
        recent.devices.add("eu", f"d-{number}", number, ACCEPTED if number % 3 else "too_stale")
    answer = answers(page, lambda page: devices_page.fleet_page(page, {"sort": "refused"}), log)
    assert (answer["devices_seen"], answer["of"]) == (1_000_000, DEVICES_MAX)
    assert answer["forgotten"] == 1_000_000 - DEVICES_MAX
    following = devices_page.fleet_page(page, {"sort": "refused", "after": answer["next"]})
    seen = [one["device_id"] for one in answer["devices"] + following["devices"]]
    assert len(set(seen)) == len(seen) == 200


def test_refusals_are_paged_from_what_was_followed(page: Page, log: LongLog) -> None:
    from aggregation.fold.events import Verdict

    for offset in range(250):
        refused = Verdict(offset, "too_stale", device_id="d-1", update_id=f"u-{offset}")
        page.recent.add_verdict(("eu", 0), offset, refused, 5000 + offset)
    offsets: list[int] = []
    query: dict[str, str] = {}
    while True:
        answer = answers(page, partial(refusals.refused_page, query=query), log)
        offsets += [row["offset"] for row in answer["records"]]
        if answer["next"] is None:
            break
        query = {"before": answer["next"]}
    assert offsets == list(range(249, -1, -1))
    assert answer["reasons"][0]["count"] == answer["of"] == 250
