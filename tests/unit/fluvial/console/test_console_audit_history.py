"""Audits outlive the console that ran them, and what they proved, or did not, is on the first page."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from fluvial.console.audits import AuditRun, Audits
from fluvial.console.health import health_of
from fluvial.console.now import facts_of, now_document
from fluvial.reading.audit_history import (
    KEPT,
    AuditRecord,
    disproved,
    history_path,
    last_proven,
    read_history,
    record_of,
    remember,
)
from tests.unit.fluvial.console.console_home import TASK, LongLog, fill_store, page_on
from tests.unit.fluvial.console.test_console_server import answer, asked, console_in

if TYPE_CHECKING:
    from pathlib import Path

    from fluvial.console.paging import Page

REPORT: dict[str, Any] = {
    "task": TASK,
    "genesis_sha256": "g",
    "from": 1,
    "to": 7,
    "identical": False,
    "digest": "d" * 64,
    "records": 120,
    "findings_total": 30,
    "findings": [{"error_id": "FLV-5003", "where": "eu[0]@7", "expected": "a", "got": "b" * 900}] * 30,
    "seconds": 2.5,
}


@pytest.fixture
def page(tmp_path: Path) -> Page:
    return page_on(fill_store(tmp_path / "store", 3, 1), LongLog(), tmp_path, head=3)


def record(number: int, **fields: Any) -> AuditRecord:
    given: dict[str, Any] = {
        "genesis_sha256": "g",
        "version": number,
        "state": "identical",
        "started_ms": 1000 * number,
    }
    return AuditRecord(id=f"run-{number}", **(given | fields))


def test_what_is_kept_is_read_again_bounded_and_each_once(page: Page) -> None:
    home = page.watch.home
    for number in range(1, KEPT + 6):
        assert remember(home, TASK, record(number)) == ""
    remember(home, TASK, record(KEPT + 5, state="differs"))
    found = read_history(home, TASK, "g")
    assert [one.version for one in found] == list(range(6, KEPT + 6))
    assert (found[-1].state, read_history(home, TASK, "another genesis")) == ("differs", [])


def test_the_last_proof_is_kept_however_many_audits_fail_after_it(page: Page) -> None:
    home = page.watch.home
    remember(home, TASK, record(1))
    for number in range(2, 3 * KEPT):
        remember(home, TASK, record(number, state="failed"))
    found = read_history(home, TASK, "g")
    proof = last_proven(found)
    assert (len(found), proof is not None and proof.version) == (KEPT, 1)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 2, "runs": []}', '{"format": 1, "runs": [{}]}', "\x00" * 10]
)
def test_a_damaged_history_is_none_and_the_next_audit_begins_it_again(page: Page, text: str) -> None:
    home = page.watch.home
    history_path(home, TASK).write_text(text)
    assert read_history(home, TASK, "g") == []
    remember(home, TASK, record(4))
    assert [one.version for one in read_history(home, TASK, "g")] == [4]


def test_where_it_cannot_be_written_nothing_fails_and_the_reason_is_told(page: Page, tmp_path: Path) -> None:
    history_path(page.watch.home, TASK).mkdir()
    assert "cannot be written" in remember(page.watch.home, TASK, record(1))
    assert remember(tmp_path, "a task of another machine", record(1)) == ""


def test_two_that_end_together_are_both_kept(page: Page) -> None:
    threads = [
        threading.Thread(target=remember, args=(page.watch.home, TASK, record(number)))
        for number in range(1, 9)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_history(page.watch.home, TASK, "g")) == 8


def test_a_record_of_a_report_is_bounded_and_says_what_was_found() -> None:
    made = record_of(REPORT, run_id="r", command="fluvial audit")
    assert (made.state, made.version, made.first, made.findings_total) == ("differs", 7, 1, 30)
    assert len(made.findings) == 20 and all(len(text) <= 400 for text in made.findings)
    assert made.findings[0].startswith("error_id FLV-5003, where eu[0]@7, expected a")
    with pytest.raises(KeyError):
        record_of({"error": {}}, run_id="r", command="")


def test_what_proves_most_is_the_last_proof() -> None:
    partial = record(9, first=5)
    assert last_proven([record(3), record(2), partial, record(8, state="failed")]) == record(3)
    assert last_proven([partial]) is None


@pytest.mark.parametrize(
    ("runs", "found"),
    [
        ([record(1)], None),
        ([record(5, state="differs")], 5),
        ([record(5, state="differs"), record(6, state="failed")], 5),
        ([record(5, state="differs"), record(6)], None),
        ([record(5, state="differs"), record(3, started_ms=9000)], 5),
        ([record(3), record(5, state="differs")], 5),
        ([record(5, state="differs"), record(9, first=6)], 5),
    ],
)
def test_a_difference_stands_until_a_later_audit_proves_as_much(
    runs: list[AuditRecord], found: int | None
) -> None:
    one = disproved(runs)
    assert (one and one.version) == found


def test_now_says_what_was_proven_and_a_difference_is_the_health(page: Page) -> None:
    known = replace(page.known, audits=(record(3),))
    assert now_document(known, page.recent)["proven"] == {"version": 3, "at_ms": 3000}
    assert now_document(page.known, page.recent)["proven"] is None
    differs = replace(page.known, audits=(record(3), record(4, state="differs", findings_total=2)))
    part = health_of(facts_of(differs, page.recent), "fluvial --home h")["parts"][-1]
    assert (part["name"], part["level"], part["word"]) == ("audit", "bad", "differs")
    assert part["reason"].startswith("the audit of version 4 found 2 differences")
    assert part["mend"]["commands"] == [f"fluvial --home h audit --task {TASK} --to 4"]
    assert part["mend"]["runbook"]["page"] == "/docs/runbooks/audit-mismatch.md#what-to-do"


def test_a_console_that_starts_shows_the_audits_of_the_one_before(page: Page) -> None:
    home, genesis = page.watch.home, page.watch.file.genesis_sha256
    remember(home, TASK, record(2, genesis_sha256=genesis, started_ms=5000, command="fluvial audit --to 2"))
    remember(home, TASK, record(3, genesis_sha256="of the task before"))
    _, _, body = asked(console_in(home), lambda client: answer(client, f"/api/tasks/{TASK}/audits"))
    (run,) = json.loads(body)["runs"]
    assert (run["id"], run["version"], run["state"], run["started_ms"]) == ("run-2", 2, "identical", 5000)
    got, _, _ = asked(console_in(home), lambda client: answer(client, f"/api/tasks/{TASK}/audits/run-2"))
    assert got == 200
    got, _, _ = asked(console_in(home), lambda client: answer(client, f"/api/tasks/{TASK}/audits/run-3"))
    assert got == 404


def test_an_audit_that_could_not_be_finished_is_kept_too(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []

    async def scenario() -> None:
        audits = Audits(
            page.watch.home, "fluvial", lambda _task, document: told.append(document), lambda _: "g"
        )

        async def broken(self: Audits, run: AuditRun) -> None:
            del self
            run.take({"error": {"id": "FLV-3100", "message": "no broker answers"}})

        monkeypatch.setattr(Audits, "_replay", broken)
        await audits.start(TASK, 2)
        assert audits._running is not None
        await audits._running
        assert [run["id"] for run in audits.document(TASK)["runs"]] == [told[-1]["id"]]

    asyncio.run(scenario())
    (kept,) = read_history(page.watch.home, TASK, "g")
    assert (kept.state, kept.findings) == ("failed", ("FLV-3100: no broker answers",))
