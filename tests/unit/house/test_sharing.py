"""What the tests' sharing out takes for granted of their files."""

from __future__ import annotations

from pathlib import Path

from tests import sharing

FOLDER = Path(__file__).parents[2] / "integration"
SOURCES = {path.name: path.read_text() for path in FOLDER.rglob("test_*.py")}


def test_files_whose_tests_go_one_by_one_have_no_fixture_of_their_module() -> None:
    assert sorted(sharing.ALONE - SOURCES.keys()) == []
    assert [name for name in sorted(sharing.ALONE) if 'scope="module"' in SOURCES[name]] == []


def test_all_that_breaks_a_stack_runs_in_one_process() -> None:
    assert {name for name, text in SOURCES.items() if "breakable_stack" in text} == sharing.BREAKING
    scopes = {sharing.scope(f"tests/integration/{name}::test_x[a@b]") for name in sharing.BREAKING}
    assert scopes == {"breaking"}


def test_a_file_is_one_scope_unless_its_tests_share_nothing() -> None:
    assert sharing.scope("tests/unit/x/test_demo.py::test_a") == "tests/unit/x/test_demo.py"
    assert sharing.scope("tests/integration/test_faults.py::test_a[b]") == "tests/integration/test_faults.py"
    alone = "tests/integration/test_chaos.py::test_a"
    assert sharing.scope(alone) == alone


def test_what_is_long_comes_first() -> None:
    chaos, unit = "tests/integration/test_chaos.py::test_a", "tests/unit/x/test_chaos.py::test_a"
    assert sharing.rank(chaos) == 0 < sharing.rank("tests/contract/test_log.py::test_a") < sharing.rank(unit)
