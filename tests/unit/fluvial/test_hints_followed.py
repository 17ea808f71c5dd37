"""Hints are followed to the letter: a table of situations, each made, its hint's command typed, and the situation gone.

An id whose hints name a command stands in one of three tables: followed here, followed by another test, or with the
reason why no test can follow it.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fluvial import cli
from fluvial.local import files

ROOT = Path(__file__).parents[3]
PACKAGES = ("aggregation", "schemas", "backends", "learning", "producers", "stream_apps", "fluvial")
COMMAND = re.compile(r"`(fluvial [^`]+)`|^(fluvial [^,\n]+)", re.MULTILINE)


@dataclass(frozen=True)
class Situation:
    """``type_it`` ends with the error ``error_id``. The hint's command ends with ``ends``; then ``type_it`` is well.

    ``then`` replaces ``type_it`` after the hint: where the hint says to type it differently.
    """

    error_id: str
    type_it: str
    prepare: Callable[[], object] = lambda: None
    then: str = ""
    mends: bool = True
    ends: int = 0


def write(name: str, text: str) -> Callable[[], object]:
    return lambda: Path(name).write_text(text, encoding="utf-8")


FOLLOWED = [
    Situation("FLV-6001", "versions --nope", then="versions --help"),
    Situation("FLV-2211", "new digits", then="run my-digits.py --simulate --versions 1 --devices 2"),
    Situation("FLV-2210", "new mine", lambda: cli.main(["new", "mine"]), then="new mine-3"),
    Situation("FLV-2201", "new A/Task", then="new mine"),
    Situation(
        "FLV-2200", "run nothing --simulate", then="run nothing.py --simulate --versions 1 --devices 2"
    ),
    Situation("FLV-2203", "run mine.py --simulate", write("mine.py", "x = 1\n"), mends=False),
]

ELSEWHERE = {
    "FLV-1001": "tests/integration/test_stack.py::test_a_whole_life",
    "FLV-1002": "tests/unit/backends/test_settings.py::test_the_hint_of_a_wrong_value_mends_it",
    "FLV-1003": "tests/integration/test_hints_on_a_stack.py::test_a_damaged_description_is_written_anew",
    "FLV-1024": "tests/integration/test_hints_on_a_stack.py::test_the_doctors_command_mends_a_topic",
    "FLV-1010": "tests/integration/test_stack.py::test_a_whole_life",
    "FLV-2302": "tests/integration/test_hints_on_a_stack.py::test_its_command_mends_it",
    "FLV-2401": "tests/integration/test_hints_on_a_stack.py::test_its_command_mends_it",
    "FLV-2404": "tests/unit/fluvial/local/test_update_size.py::test_following_the_hint_to_the_letter_is_enough",
    "FLV-5010": "tests/integration/test_hints_on_a_stack.py::test_its_command_mends_it",
    "FLV-5011": "tests/integration/test_hints_on_a_stack.py::test_its_command_mends_it",
    "FLV-5012": "tests/integration/test_hints_on_a_stack.py::test_its_command_mends_it",
    "FLV-6205": "tests/integration/test_hints_on_a_stack.py::test_its_command_mends_it",
    "FLV-7071": "tests/integration/test_canary.py::test_once_without_a_worker_is_a_timeout_and_its_hint_mends_it",
}

CANNOT = {
    "a log or an object has to be damaged first; the command only shows what is wrong": [
        *(
            "FLV-4110",
            "FLV-3001",
            "FLV-3002",
            "FLV-3003",
            "FLV-3101",
            "FLV-3302",
            "FLV-4001",
            "FLV-4103",
            "FLV-5003",
        ),
        *("FLV-5006", "FLV-6206", "FLV-7070"),
    ],
    "an outage has to last; what the command shows is in the tests of outages and of the doctor": [
        *("FLV-3100", "FLV-3102", "FLV-4002", "FLV-4003", "FLV-4006", "FLV-4007", "FLV-6301", "FLV-6303"),
        *("FLV-6502", "FLV-7003"),
    ],
    "a service has to fail to start; the test of each does so, and starts it again": [
        *("FLV-1007", "FLV-1008", "FLV-1009", "FLV-1011"),
    ],
    "it needs a defect": ["FLV-5014", "FLV-9000"],
    "a run of minutes would have to break a promise, or find nothing to break": [
        *("FLV-6304", "FLV-6310", "FLV-6311", "FLV-6401", "FLV-6402", "FLV-6403", "FLV-6404", "FLV-6405"),
        *("FLV-6406", "FLV-6407", "FLV-6408", "FLV-6409"),
    ],
    "the command goes on for ever, or on another machine": [
        *(
            "FLV-6324",
            "FLV-6325",
            "FLV-2502",
            "FLV-2503",
            "FLV-2506",
            "FLV-3203",
            "FLV-3210",
            "FLV-3211",
            "FLV-7042",
        ),
    ],
    "its test in test_park.py needs a parked record": ["FLV-6430", "FLV-6431", "FLV-6432"],
    "its test in test_suspects.py needs a device in quarantine": ["FLV-6434", "FLV-6435", "FLV-6436"],
    "the console prints it for a browser": ["FLV-6504", "FLV-6508", "FLV-6509"],
    "it names a value and shows it": [
        "FLV-2219",
        "FLV-2505",
        "FLV-2507",
        "FLV-6322",
        "FLV-6326",
        "FLV-3103",
        "FLV-3105",
        "FLV-7051",
    ],
}


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said_by(text: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    code = cli.main(shlex.split(text))
    out, err = capsys.readouterr()
    return code, out + err


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("one", FOLLOWED, ids=lambda one: one.error_id)
def test_its_command_mends_it(one: Situation, capsys: pytest.CaptureFixture[str]) -> None:
    one.prepare()
    code, said = said_by(one.type_it, capsys)
    assert code != 0 and f"error[{one.error_id}]" in said
    hint = said.rpartition("hint: ")[2]
    commands = [quoted or plain for quoted, plain in COMMAND.findall(hint)]
    assert commands, f"no command in: {hint}"
    for command in commands:
        code, said = said_by(command.removeprefix("fluvial "), capsys)
        assert code == one.ends, said
    if one.mends:
        code, said = said_by(one.then or one.type_it, capsys)
        assert code == 0, said


@pytest.mark.usefixtures("alone")
def test_a_confirmation_is_given_in_advance(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files.prepare_home(home)
    code, said = said_by(f"--home {home} down --delete-data", capsys)
    assert code != 0 and "repeat the command with `--yes`" in said
    assert said_by(f"--home {home} down --delete-data --yes", capsys)[0] == 0


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("name", ["a home", "Zoë"])
def test_a_hint_names_the_home_that_the_command_was_given(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without it ``fluvial up`` would start another home's stack, and the error would stay."""
    code, said = said_by(f"--home {shlex.quote(name)} versions", capsys)
    assert code == 2 and "FLV-1001" in said
    (command,) = {quoted or plain for quoted, plain in COMMAND.findall(said.rpartition("hint: ")[2])}
    assert shlex.split(command) == ["fluvial", "--home", name, "up"]


def ids_with_commands() -> set[str]:
    """Ids of errors in whose hints a `fluvial` command stands, by the sources."""
    found = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call) or not node.args:
                    continue
                first = node.args[0]
                hints = [ast.unparse(word.value) for word in node.keywords if word.arg == "hint"]
                is_error = isinstance(first, ast.Constant) and re.fullmatch(r"FLV-\d{4}", str(first.value))
                if is_error and any(re.search(r"`fluvial |^f?['\"]fluvial ", hint) for hint in hints):
                    found.add(str(first.value))  # type: ignore[attr-defined]
    return found


def ids_in_tests() -> set[str]:
    here = Path(__file__)
    paths = [path for path in (ROOT / "tests").rglob("*.py") if path != here]
    return {error_id for path in paths for error_id in re.findall(r"FLV-\d{4}", path.read_text())}


def test_every_hint_with_a_command_is_followed_or_it_is_said_why_not() -> None:
    """Or another test makes its situation: that its command exists, ``tests/unit/house/test_hints.py`` sees of all."""
    cannot = {error_id for ids in CANNOT.values() for error_id in ids}
    known = {one.error_id for one in FOLLOWED} | set(ELSEWHERE) | cannot
    assert ids_with_commands() - known - ids_in_tests() == set()
    assert not cannot & ({one.error_id for one in FOLLOWED} | set(ELSEWHERE))


def test_the_tests_that_follow_hints_elsewhere_exist() -> None:
    for place in ELSEWHERE.values():
        path, _, name = place.partition("::")
        assert f"def {name}(" in (ROOT / path).read_text(), place
