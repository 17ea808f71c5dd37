"""Ordinary machines that lack something, one broken thing a case: what still works, and what the doctor says."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from backends.environment import cache_dir
from tests.machines import (
    FLUVIAL,
    NAMELESS,
    NO_SHARED_MEMORY,
    NO_TEMPORARY,
    NOBODY,
    READ_ONLY_INSTALL,
    ROOT,
    Machine,
    require_namespaces,
    run,
)

CACHE = {"FLUVIAL_CACHE": str(cache_dir())}


@pytest.fixture(autouse=True)
def _namespaces() -> None:
    require_namespaces()


@dataclass(frozen=True)
class Case:
    """``row`` of the doctor's table has ``status`` and, where that is no "ok", says how to mend it by ``mend``."""

    machine: Machine
    row: str
    status: str
    mend: str = ""


CASES = {
    "nothing is broken": Case(Machine(), "home", "ok"),
    "a user without rights, home and writable install": Case(
        Machine(READ_ONLY_INSTALL, user=NOBODY, without=("HOME",)), "compiled code", "ok"
    ),
    "a user whom no file knows": Case(
        Machine(READ_ONLY_INSTALL, user=NAMELESS, without=("HOME",)), "compiled code", "ok"
    ),
    "no place for compiled code": Case(
        Machine(
            f"{READ_ONLY_INSTALL}; mount -t tmpfs tmpfs /tmp; chmod 1777 /tmp; mkdir /tmp/fluvial-{NAMELESS}",
            user=NAMELESS,
            variables={"HOME": "/nowhere", "FLUVIAL_HOME": "/tmp/home"},
        ),
        "compiled code",
        "note",
        "FLUVIAL_CACHE",
    ),
    "no temporary folder": Case(
        Machine(
            f"mount -t tmpfs tmpfs /mnt; chmod 777 /mnt; {NO_TEMPORARY}",
            user=NOBODY,
            variables={**CACHE, "FLUVIAL_HOME": "/mnt/home"},
        ),
        "temporary files",
        "problem",
        "TMPDIR",
    ),
    "a full temporary folder": Case(
        Machine(
            "mount -t tmpfs -o size=1m tmpfs /tmp",
            variables={**CACHE, "FLUVIAL_HOME": "/var/tmp/fluvial-home"},
        ),
        "temporary files",
        "problem",
        "TMPDIR",
    ),
    "TMPDIR does not exist": Case(
        Machine(variables={**CACHE, "TMPDIR": "/nowhere"}), "temporary files", "ok"
    ),
    "no shared memory": Case(Machine(NO_SHARED_MEMORY), "semaphores", "note", "/dev/shm"),
    "few open files": Case(Machine(limits="ulimit -n 64"), "open files", "problem", "ulimit -n"),
    "no loopback": Case(Machine(flags=("--net",)), "loopback", "problem", "ip link set lo up"),
    "only ASCII": Case(Machine(variables={"PYTHONIOENCODING": "ascii"}), "letters", "note", "LC_ALL"),
    "no locale": Case(
        Machine(variables={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
        "letters",
        "note",
        "LC_ALL",
    ),
    "a time zone that is none": Case(Machine(variables={"TZ": "No/Where"}), "calendar", "ok"),
    "a home that cannot be made": Case(
        Machine(user=NOBODY, variables={"FLUVIAL_HOME": "/etc/a/home"}), "home", "problem", "FLUVIAL_HOME"
    ),
    "a variable that nobody reads": Case(
        Machine(variables={"FLUVIAL_STORE_TOKEN": "x"}), "variables", "note", "unset FLUVIAL_STORE_TOKEN"
    ),
    "no folders beside a script": Case(Machine(variables={"PYTHONSAFEPATH": "1"}), "home", "ok"),
    "no assertions and no docstrings": Case(Machine(variables={"PYTHONOPTIMIZE": "2"}), "home", "ok"),
    "a mask for files": Case(Machine(limits="umask 077"), "home", "ok"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_doctor_sees_it(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    tmp_path.chmod(0o777)
    hidden = "tmpfs /tmp" in case.machine.setup
    done = run(case.machine, [*FLUVIAL, "doctor", "--json"], Path("/") if hidden else tmp_path)
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks[case.row]["status"] == case.status, done.stdout
    assert case.mend in checks[case.row]["mend"]
    # One thing is broken, and only what hangs on it is a problem.
    others = {name for name, check in checks.items() if check["status"] == "problem"} - {case.row}
    assert not others, done.stdout
    assert done.returncode == (1 if case.status == "problem" else 0)


def test_a_user_whom_no_file_knows_trains_with_a_read_only_install(tmp_path: Path) -> None:
    machine = Machine(
        READ_ONLY_INSTALL, limits="umask 077", user=NAMELESS, without=("HOME",), variables={"LC_ALL": "C"}
    )
    command = [*FLUVIAL, "run", "digits", "--simulate", "--versions", "2", "--devices", "3"]
    done = run(machine, command, tmp_path)
    assert (done.returncode, "version 2/2" in done.stderr) == (0, True), done.stderr
    assert list(tmp_path.iterdir()) == []


AUDIT = """
import sys
from pathlib import Path
from fluvial.terminal.output import Output
from tests.golden.test_old_federation import audited, objects
report = audited(Path(sys.argv[1]), objects(), 1, 8, jobs=2, output=Output())
print(report.identical, report.jobs)
"""


def test_an_audit_without_shared_memory_is_made_in_one_process_and_says_so(tmp_path: Path) -> None:
    done = run(Machine(NO_SHARED_MEMORY), [sys.executable, "-c", AUDIT, str(tmp_path)], ROOT)
    assert done.stdout == "True 1\n", done.stderr
    assert "no processes beside this one: this machine has no semaphores" in done.stderr
    assert "with 1 process" in done.stderr


def test_without_a_temporary_folder_a_simulation_is_refused_by_name(tmp_path: Path) -> None:
    done = run(
        Machine(NO_TEMPORARY, user=NOBODY, variables=CACHE),
        [*FLUVIAL, "run", "digits", "--simulate", "--versions", "1", "--devices", "2"],
        Path("/"),
    )
    assert (done.returncode, "error[FLV-1019]" in done.stderr) == (2, True), done.stderr


def test_without_a_loopback_nothing_is_started(tmp_path: Path) -> None:
    done = run(Machine(flags=("--net",)), [*FLUVIAL, "up"], tmp_path)
    assert (done.returncode, "error[FLV-1023]" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_problem(tmp_path: Path, closed: str) -> None:
    machine = Machine(limits=f"exec {closed}")
    assert run(machine, [*FLUVIAL, "down"], tmp_path).returncode == 0
