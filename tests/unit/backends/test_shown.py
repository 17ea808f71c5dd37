"""What others wrote is shown and not obeyed: on a terminal, in a log, on a page, by one list."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from rich.text import Text

from aggregation.errors import UsageProblem
from aggregation.fold.events import Verdict
from aggregation.reasons import Reason, because
from backends.logging_setup import JsonFormatter, LineFormatter
from backends.shown import one_line, printable
from fluvial.reading.inspection_text import lines_of
from fluvial.reading.verdict_stream import line_of
from fluvial.terminal.output import Output

CLIPBOARD = "\x1b]52;c;cm0gLXJmIH4K\x1b\\"
OBEYED = {
    "the clipboard": CLIPBOARD,
    "the window's title": "\x1b]0;pwned\x07",
    "an erased screen": "\x1b[2J\x1bc",
    "hidden text": "\x1b[8m",
    "one byte instead of two": "\x9b31m\x9d0;t\x9c",
    "back to the line's beginning": "accepted\rREFUSED",
    "backwards": "\u202edetpecca",
    "an isolate": "\u2066x\u2069",
    "no width": "a\u200bb\ufeff",
    "half of a pair": "\ud83e",
    "a tag": "\U000e0041",
    "a line of its own": "x\u2028accepted",
}
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2028\u202e\u2066\u2069\ufeff\ud83e\U000e0041]")
FORMATTING = [
    one
    for one in map(chr, range(sys.maxunicode + 1))
    if unicodedata.category(one) in {"Cc", "Cf", "Zl", "Zp"}
]
"""What Unicode has for control and format, and not for show."""
PAGE = Path(__file__).parents[3] / "fluvial" / "console" / "static" / "dom.js"


@pytest.mark.parametrize("name", OBEYED)
def test_what_a_terminal_obeys_is_shown_once_and_for_all(name: str) -> None:
    shown = printable(OBEYED[name])
    assert not CONTROL.search(shown) and shown.isprintable()
    assert printable(shown) == shown == one_line(shown)


def test_every_character_of_control_and_format_is_shown() -> None:
    assert len(FORMATTING) > 200
    assert [hex(ord(one)) for one in FORMATTING if not one_line(one).isascii()] == []
    assert [one for one in FORMATTING if printable(one) == one] == ["\t", "\n"]


def test_ordinary_text_stays_and_lines_stay_lines() -> None:
    text = "device é 設備 🫨 − “q”\n\tindented"
    assert printable(text) == text
    assert one_line(text) == "device é 設備 🫨 − “q”\\n\\tindented"


@pytest.mark.parametrize("name", OBEYED)
def test_no_writer_of_ours_lets_it_through(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    evil = OBEYED[name]
    output = Output()
    stream = io.StringIO()
    for console in (output.out, output.err):
        monkeypatch.setattr(console, "file", stream)
    output.say(evil)
    output.print(evil)
    output.table([evil], [[evil], [Text(evil)]], title=evil)
    output.problem(UsageProblem("FLV-6505", evil, hint=evil, where=evil))
    record = logging.LogRecord("x", logging.WARNING, "x.py", 1, "said %s", (evil,), None)
    stream.write(LineFormatter().format(record) + "\n")
    stream.write(JsonFormatter().format(record) + "\n")
    assert not CONTROL.search(stream.getvalue().replace("\n", ""))


def test_what_a_device_wrote_makes_no_line_of_its_own() -> None:
    evil = "\n" + "eu[0]@1 accepted"
    verdict = Verdict(0, "unknown_base", because(Reason.ANOTHER_MODEL, 1, "ab", evil), update_id=evil)
    assert "\n" not in line_of(("eu", 0), verdict)
    found = {
        "region": "eu", "partition": 0, "offset": 0, "task": evil, "bytes": 1, "sha256": "ab" * 32, "key": evil,
        "appended_at": "now", "undecodable": evil, "raw_head": "", "verdict": None, "explanation": evil,
    }  # fmt: skip
    assert all("\n" not in line for line in lines_of(found))


@pytest.mark.needs("node")
def test_the_page_shows_what_the_terminal_shows(tmp_path: Path) -> None:
    script = tmp_path / "shown.mjs"
    source = PAGE.read_text()
    begin, end = source.index("const OBEYED"), source.index("/** Calls the handler")
    script.write_text(
        source[begin:end]
        + "\nprocess.stdout.write(JSON.stringify(JSON.parse(process.argv[2]).map(printable)));"
    )
    texts = [*OBEYED.values(), "ordinary é 🫨\n\t", "".join(FORMATTING)]
    done = subprocess.run(["node", str(script), json.dumps(texts)], capture_output=True, check=True)
    assert json.loads(done.stdout) == [printable(one) for one in texts]
