"""`fluvial logs`: several processes' lines in the order of time, whole ones only, and what comes later."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from aggregation.errors import UsageProblem
from backends.tasks import TaskFile, write_task_file
from fluvial import cli
from fluvial.reading.logs import LogTail, log_files

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    write_task_file(tmp_path, TaskFile(task="mine", genesis_sha256="aa", reference="digits", regions=("eu",)))
    folder = tmp_path / "logs" / "mine"
    folder.mkdir(parents=True)
    (folder / "merger.log").write_text(
        "2026-11-29 07:24:01,000 I one\nTraceback\n  its line\n2026-11-29 07:24:03,000 I three\n"
        "2026-11-29 07:24:09,000 half"
    )
    (folder / "worker-eu-0.log").write_text(
        '2026-11-29 07:24:02,000 I two\n{"timestamp": "2026-11-29T07:24:04.000Z", "message": "four"}\n'
    )
    return tmp_path


def texts(home: Path, lines: int) -> list[str]:
    return [line.text for line in LogTail(log_files(home, "mine", ())).last(lines)]


def test_lines_are_merged_by_time_and_what_has_none_stays_with_its_own(home: Path) -> None:
    found = texts(home, 100)
    assert [text.split()[-1].strip('"}') for text in found] == [
        "one",
        "Traceback",
        "line",
        "two",
        "three",
        "four",
    ]
    assert texts(home, 2) == found[-2:]


def test_what_comes_is_followed_from_where_the_end_was(home: Path) -> None:
    tail = LogTail(log_files(home, "mine", ("merger",)))
    assert len(tail.last(1)) == 1
    following = tail.follow()
    assert next(following) is None
    log = home / "logs" / "mine" / "merger.log"
    with log.open("a") as file:
        file.write(" is whole\nnext\nand")
    assert [getattr(next(following), "text", None) for _ in range(2)] == [
        "2026-11-29 07:24:09,000 half is whole",
        "next",
    ]
    log.write_text("begun anew\n")
    assert next(line for line in following if line is not None).text == "begun anew"


@pytest.mark.parametrize(("task", "process"), [("mine", ("nope",)), ("other", ())])
def test_a_log_that_is_not_there_is_named(home: Path, task: str, process: tuple[str, ...]) -> None:
    with pytest.raises(UsageProblem) as caught:
        log_files(home, task, process)
    assert caught.value.error_id == "FLV-6326"


def test_the_command_prints_a_document_a_line_and_a_last_one(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["--home", str(home), "logs", "--lines", "2", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.get("process") for line in lines] == ["merger", "worker-eu-0", None]
    assert lines[-1] == {"task": "mine", "lines": 2, "terminal": True}
    assert cli.main(["--home", str(home), "logs", "--process", "merger", "--lines", "1"]) == 0
    assert capsys.readouterr().out == "merger  2026-11-29 07:24:03,000 I three\n"
