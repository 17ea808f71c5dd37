"""The way out of the command line: exit codes, error documents, and what is loaded for an overview."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from aggregation.errors import (
    ConnectionProblem,
    EnvironmentProblem,
    Finding,
    FluvialError,
    IntegrityProblem,
    TimeoutProblem,
    UsageProblem,
)
from fluvial import cli
from fluvial.terminal.invocation import Invocation, json_option, pass_invocation, program
from fluvial.terminal.output import Output

ROOT = Path(__file__).parents[3]
Raising = Callable[[BaseException], None]
DISCONNECTED = ["config", "show", "--json"]


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> Raising:
    """Make `fluvial config` raise what the test gives it, through the real frame."""

    def install(error: BaseException) -> None:
        @click.command()
        @json_option
        def command() -> None:
            raise error

        import fluvial.commands.stack as module

        monkeypatch.setattr(module, "config", command)

    return install


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (Finding, 1),
        (IntegrityProblem, 1),
        (ConnectionProblem, 2),
        (EnvironmentProblem, 2),
        (TimeoutProblem, 3),
        (UsageProblem, 4),
        (FluvialError, 5),
    ],
)
def test_the_kind_of_an_error_decides_the_exit_code(
    raising: Raising, capsys: pytest.CaptureFixture[str], kind: type[FluvialError], code: int
) -> None:
    raising(kind("FLV-1234", "expected this, got that", hint="try `fluvial up`", where="record 7"))
    assert cli.main(["config"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error[FLV-1234]: expected this, got that\n  record 7\nhint: try `fluvial up`\n"


def test_with_json_an_error_is_the_one_document(raising: Raising, capsys: pytest.CaptureFixture[str]) -> None:
    raising(ConnectionProblem("FLV-1001", "down", hint="up"))
    assert cli.main(["config", "--json"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out) == {"error": {"id": "FLV-1001", "message": "down", "hint": "up"}}
    assert err.startswith("error[FLV-1001]: down")


def test_a_defect_is_told_from_everything_else_and_leaves_its_traceback(
    raising: Raising, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    (home / "logs").mkdir(parents=True)
    raising(ZeroDivisionError("by zero"))
    assert cli.main(["--home", str(home), "config", "--json"]) == 5
    assert json.loads(capsys.readouterr().out)["error"]["id"] == "FLV-9000"
    (report,) = (home / "logs").glob("defect-*.txt")
    assert "ZeroDivisionError: by zero" in report.read_text()


def test_a_defect_is_shown_on_request(raising: Raising, capsys: pytest.CaptureFixture[str]) -> None:
    raising(ZeroDivisionError("by zero"))
    assert cli.main(["--traceback", "config"]) == 5
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interruption_is_130(raising: Raising, error: BaseException) -> None:
    raising(error)
    assert cli.main(["config"]) == 130


def test_a_command_may_end_with_a_code_of_its_own(raising: Raising) -> None:
    raising(click.exceptions.Exit(1))
    assert cli.main(["config"]) == 1


@pytest.mark.parametrize(
    "arguments", [["up", "--stoer"], ["down", "extra"], ["up", "--store", "tape"], ["nonsense"]]
)
def test_wrong_usage_is_4_with_an_id(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert cli.main([*arguments, "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["error"]["id"] == "FLV-6001"


def test_a_near_miss_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["staus"]) == 4
    assert "Did you mean status" in capsys.readouterr().err


def test_a_real_command_reports_that_the_stack_is_down(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    assert cli.main(["--home", str(home), *DISCONNECTED]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["id"] == "FLV-1001"


def test_deleting_without_a_terminal_needs_yes(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    assert cli.main(["--home", str(home), "down", "--delete-data"]) == 4
    assert "error[FLV-6002]" in capsys.readouterr().err


def test_the_overview_lists_every_command_and_loads_none() -> None:
    code = (
        "import sys; from fluvial import cli; cli.main(['--help']);"
        "slow = ('torch', 'confluent_kafka', 'minio', 'numba', 'fluvial.commands');"
        "sys.exit(any(name in sys.modules for name in slow))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    for name, entry in cli.COMMANDS.items():
        assert name in done.stdout and entry.summary.split(",")[0][:20] in done.stdout


@pytest.mark.parametrize(("alias", "name"), cli.ALIASES.items())
def test_an_earlier_name_of_a_command_works_and_is_listed_nowhere(
    alias: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([alias, "--help"]) == cli.main([name, "--help"]) == 0
    by_alias, by_name = capsys.readouterr().out.split(f"Usage: fluvial {name} ")
    assert by_alias == f"Usage: fluvial {alias} " + by_name
    assert cli.main(["--help"]) == 0
    assert f"\n  {alias} " not in capsys.readouterr().out
    assert alias not in cli.cli.list_commands(click.Context(cli.cli))


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_of_the_table_loads_and_explains_itself(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([name, "--help"]) == 0
    assert f"fluvial {name}" in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == 0
    assert "_FLUVIAL_COMPLETE" in capsys.readouterr().out


def test_a_reader_that_leaves_early_is_no_error() -> None:
    program = "import time; time.sleep(0.5); from fluvial.cli import main; raise SystemExit(main(['--help']))"
    command = f'{sys.executable} -c "{program}" | true; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.strip() == "0", done.stderr
    assert done.stderr == ""


def test_waiting_says_what_for_and_how_long(capsys: pytest.CaptureFixture[str]) -> None:
    with Output(every_s=0.05).waiting("workers to join group fluvial-eu") as waiting:
        waiting.note("0 of 2")
        time.sleep(0.3)
    assert "waiting for workers to join group fluvial-eu (0 of 2), 0 s" in capsys.readouterr().err


def test_off_a_terminal_nothing_is_coloured_or_folded(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    output.table(["name", "value"], [["x" * 60, "y" * 90]])
    output.say("z" * 300, style="red")
    out, err = capsys.readouterr()
    assert "x" * 60 in out and "y" * 90 in out and err == "z" * 300 + "\n"
    assert "\x1b" not in out + err


def test_with_json_only_documents_reach_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(json=True)
    output.print("text")
    output.table(["a"], [["b"]])
    output.line({"n": 1})
    output.line({"n": 2}, terminal=True)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [{"n": 1}, {"n": 2, "terminal": True}]


def test_the_invocation_reaches_commands(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    seen: list[Path] = []

    @click.command()
    @pass_invocation
    def command(invocation: Invocation) -> None:
        seen.append(invocation.home)

    import fluvial.commands.stack as module

    monkeypatch.setattr(module, "config", command)
    assert cli.main(["--home", str(home), "config"]) == 0
    assert seen == [home]


def test_a_command_of_another_environment_is_named_with_its_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "some where" / "bin" / "fluvial"
    script.parent.mkdir(parents=True)
    script.write_text("")
    script.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script)])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program() == "'some where/bin/fluvial'"
    monkeypatch.setenv("PATH", str(script.parent))
    assert program() == "fluvial"
    monkeypatch.setattr(sys, "argv", ["/usr/lib/cli.py"])
    assert program() == "fluvial"


def test_sigterm_ends_a_command_as_ctrl_c_does() -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert cli.main(["completion", "bash"]) == 0
    found = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, before)
    assert found is signal.default_int_handler


def test_an_error_of_the_parser_names_the_commands_own_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "x.py", "--devices"]) == 4
    assert "see `fluvial run --help`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--workers", "2"], "--workers"),
        (["--store", "file"], "--store"),
        (["--workers", "1", "--store", "auto"], "--workers and --store"),
    ],
)
def test_a_simulation_refuses_by_name_what_would_do_nothing_in_it(
    options: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", "digits", "--simulate", *options]) == 4
    err = capsys.readouterr().err
    assert "error[FLV-6320]" in err and f"nothing that {named} could do" in err


def test_wide_tables_off_a_terminal_are_whole(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table(["check", "found", "how to mend"], [["java", "y" * 150, "z" * 200]])
    out = capsys.readouterr().out
    assert "java" in out and "y" * 150 in out and "z" * 200 in out
