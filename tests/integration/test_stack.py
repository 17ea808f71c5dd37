"""The local stack against everything that goes wrong on real machines: each failure is made, not imagined."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import psutil
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from aggregation.errors import ConnectionProblem, FluvialError
from backends.environment import cache_dir, load_settings, read_stack_file
from backends.kafka.admin import admin_client
from backends.settings import StackFile, credentials_path, stack_path
from backends.store.factory import open_object_store
from fluvial import cli
from fluvial.local import downloads, ports
from fluvial.local.process import Daemon, PidFile
from fluvial.local.stack import LocalStack
from fluvial.terminal.output import Output
from tests import machines
from tests.requirements import require, require_minio
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
Only = Callable[..., None]


@pytest.fixture
def file_stack(home: Path) -> Iterator[LocalStack]:
    """A stack of the test's own; with the file store, which starts at once."""
    stack = LocalStack(home, store="file", reporter=Output(), secured=False)
    yield stack
    stack.down()


def pids(stack: LocalStack) -> dict[str, int]:
    return {status.name: status.pid for status in stack.status() if status.pid is not None}


def make_topic(servers: str, name: str) -> None:
    admin = AdminClient({"bootstrap.servers": servers})
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(20)


def topics(servers: str) -> set[str]:
    return set(AdminClient({"bootstrap.servers": servers}).list_topics(timeout=60).topics)


def test_up_twice_leaves_the_running_services_alone(local_stack: LocalStack) -> None:
    before = pids(local_stack)
    settings = local_stack.up()
    assert pids(local_stack) == before
    assert settings == load_settings(local_stack.home, environ={})


def test_the_broker_has_the_limits_of_the_one_setting_and_the_doctor_agrees(
    local_stack: LocalStack, capfd: pytest.CaptureFixture[str]
) -> None:
    local_stack.up()
    capfd.readouterr()
    assert cli.main(["--home", str(local_stack.home), "doctor", "--json"]) == 0
    checks = {check["name"]: check for check in json.loads(capfd.readouterr().out)["checks"]}
    assert checks["message limits"]["status"] == "ok"
    assert checks["conditional writes"]["found"].endswith("one winner")
    assert {check["status"] for check in checks.values()} <= {"ok", "note"}


def test_keys_are_private(local_stack: LocalStack) -> None:
    local_stack.up()
    state = read_stack_file(local_stack.home)
    assert state is not None
    if state.store_kind == "minio":
        assert credentials_path(local_stack.home).stat().st_mode & 0o777 == 0o600


def test_the_store_comes_back_with_its_objects_after_a_kill(local_stack: LocalStack) -> None:
    settings = local_stack.up()
    require_minio(settings)
    store = open_object_store(settings.store)
    store.put("survivor", b"x")
    local_stack.kill("minio")
    with pytest.raises(ConnectionProblem):
        store.get("survivor")
    local_stack.start("minio")
    assert store.get("survivor") == b"x"


def test_a_whole_life(file_stack: LocalStack, capfd: pytest.CaptureFixture[str]) -> None:
    """One broker through kill -9, a taken port, a new limit, down and up again: its topics stay."""
    settings = file_stack.up()
    make_topic(settings.bootstrap_servers, "kept")

    file_stack.kill("kafka")
    assert [status.state for status in file_stack.status()] == ["dead", "running"]
    again = file_stack.up()
    assert again.bootstrap_servers == settings.bootstrap_servers
    assert "kept" in topics(again.bootstrap_servers)

    assert file_stack.down() == ["Kafka"]
    assert file_stack.down() == []
    with pytest.raises(ConnectionProblem, match="is down"):
        load_settings(file_stack.home, environ={})

    port = int(settings.bootstrap_servers.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        moved = LocalStack(file_stack.home, reporter=Output(), update_bytes_max=1 << 20).up()
        assert moved.bootstrap_servers != settings.bootstrap_servers
        assert f"port {port} is taken by another program" in capfd.readouterr().err
    assert moved.update_bytes_max == 1 << 20
    assert "kept" in topics(moved.bootstrap_servers)

    before = pids(file_stack)
    raised = LocalStack(file_stack.home, reporter=Output(), update_bytes_max=2 << 20).up()
    assert pids(file_stack) != before
    assert (raised.update_bytes_max, raised.bootstrap_servers) == (2 << 20, moved.bootstrap_servers)

    with pytest.raises(FluvialError) as caught:
        LocalStack(file_stack.home, store="minio").up()
    assert caught.value.error_id == "FLV-1010"

    assert cli.main(["--home", str(file_stack.home), "down", "--delete-data", "--yes"]) == 0
    assert not (file_stack.home / "data").exists()
    assert file_stack.status()[0].state == "stopped"


ODD_NAME = "Zoë, a \"q' ${env:X} %p {1...4} [ab]* \\ 日本:😀 "


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that every user may come to: pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_home_may_have_any_letters_and_nothing_is_written_outside_it(open_folder: Path) -> None:
    """In the locale C, where Java would take every letter but ASCII for a question mark; by a user without a home.

    MinIO does not start for a user whom no file knows, unless it is told where his home would be.
    """
    machines.require_namespaces()
    odd = open_folder / "people" / ODD_NAME
    (odd / "work").mkdir(parents=True)
    for folder in (odd, odd / "work"):
        folder.chmod(0o777)
    stack = LocalStack(odd / ".fluvial")
    variables = {"LC_ALL": "C", "PYTHONPATH": str(ROOT), "FLUVIAL_CACHE": str(cache_dir())}
    machine = machines.Machine(user=machines.NAMELESS, without=("HOME",), variables=variables)
    command = [*machines.FLUVIAL, "--home", str(stack.home), "up"]
    try:
        for expected in ("is up", "runs already"):
            done = machines.run(machine, command, odd / "work")
            assert done.returncode == 0, done.stderr
            assert expected in done.stderr
        settings = load_settings(stack.home, environ={}, role="admin")
        assert settings.kafka.has_tls, "a new home is secured"
        admin = admin_client(settings)
        admin.create_topics([NewTopic("t", 1, 1)])["t"].result(20)
        until((stack.home / "data" / "kafka" / "t-0").is_dir, "the topic's folder")
        open_object_store(settings.store).put("a", b"x")
        assert (stack.home / "logs" / "kafka.log").is_file()
    finally:
        assert "Kafka" in stack.down()
    assert [path.name for path in (open_folder / "people").iterdir()] == [ODD_NAME]
    assert sorted(path.name for path in odd.iterdir()) == [".fluvial", "work"]
    assert list((odd / "work").iterdir()) == []


def test_half_a_format_is_formatted_again(file_stack: LocalStack, capfd: pytest.CaptureFixture[str]) -> None:
    data = file_stack.home / "data" / "kafka"
    data.mkdir(parents=True)
    (data / "bootstrap.checkpoint").write_bytes(b"half")
    file_stack.up()
    assert "half-written" in capfd.readouterr().err
    assert (data / "meta.properties").is_file()


def test_topics_without_their_meta_properties_are_never_overwritten(file_stack: LocalStack) -> None:
    log = file_stack.home / "data" / "kafka" / "fl.digits.updates.eu-0" / "00000000000000000000.log"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"records")
    with pytest.raises(FluvialError) as caught:
        file_stack.up()
    assert caught.value.error_id == "FLV-1011"
    assert log.read_bytes() == b"records"


def test_a_recycled_pid_is_never_stopped(file_stack: LocalStack) -> None:
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        started_at = psutil.Process(bystander.pid).create_time()
        run = file_stack.home / "run"
        run.mkdir(parents=True)
        for moment in (started_at, started_at - 3600):
            (run / "kafka.json").write_bytes(
                msgspec.json.encode(PidFile(pid=bystander.pid, started_at=moment))
            )
            assert file_stack.down() == []
            assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_damaged_pid_file_counts_as_none(tmp_path: Path) -> None:
    daemon = Daemon("X", tmp_path / "x.json", tmp_path / "x.log", "marker")
    daemon.pid_path.write_text("12")
    assert daemon.process() is None


def test_a_broker_that_cannot_start_is_explained_from_its_log(file_stack: LocalStack) -> None:
    file_stack.up()
    file_stack.down()
    meta = file_stack.home / "data" / "kafka" / "meta.properties"
    meta.write_text(meta.read_text().replace("node.id=1", "node.id=7"))
    with pytest.raises(FluvialError) as caught:
        file_stack.up()
    assert caught.value.error_id == "FLV-1008"
    assert "7" in caught.value.where
    assert pids(file_stack) == {}


@pytest.mark.parametrize("moment", ["run/kafka.json", "config/server.properties"])
def test_ctrl_c_during_up_ends_what_it_had_started(home: Path, moment: str) -> None:
    program = "import sys; from fluvial.cli import main; sys.exit(main())"
    up = subprocess.Popen(
        [sys.executable, "-c", program, "--home", str(home), "up", "--store", "file"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (home / moment).exists():
        assert time.monotonic() < deadline and up.poll() is None
        time.sleep(0.02)
    up.send_signal(signal.SIGINT)
    _, err = up.communicate(timeout=60)
    assert up.returncode == 130, err
    assert "interrupted" in err
    assert LocalStack(home).status()[0].pid is None
    assert not [
        p.pid for p in psutil.process_iter() if f"-Dfluvial.home={home}" in " ".join(_command_line(p))
    ]


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


@pytest.fixture
def only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Only:
    """Leave only the named programs on the path."""

    def restrict(*names: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        for name in names:
            program = shutil.which(name)
            assert program is not None
            (folder / name).symlink_to(program)
        monkeypatch.setenv("PATH", str(folder))
        monkeypatch.delenv("JAVA_HOME", raising=False)

    return restrict


@pytest.mark.parametrize(("present", "error_id"), [((), "FLV-1004"), (("java",), "FLV-1005")])
def test_a_missing_program_is_named_with_the_command_that_installs_it(
    only: Only,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    present: tuple[str, ...],
    error_id: str,
) -> None:
    only(*present)
    monkeypatch.setenv("FLUVIAL_CACHE", str(tmp_path / "empty"))
    with pytest.raises(FluvialError) as caught:
        LocalStack(home, store="file").up()
    assert caught.value.error_id == error_id
    assert "apt install" in caught.value.hint


def test_without_go_minio_is_refused_and_auto_takes_files_and_says_so(
    only: Only, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    jars = downloads.kafka_jars(Output())
    only("java")
    monkeypatch.setenv("FLUVIAL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / jars.name).symlink_to(jars)
    with pytest.raises(FluvialError) as caught:
        LocalStack(home, store="minio").up()
    assert caught.value.error_id == "FLV-1014"
    stack = LocalStack(home, reporter=Output())
    try:
        settings = stack.up()
    finally:
        stack.down()
    assert settings.store.kind == "file"
    assert open_object_store(settings.store).create("a", b"x") is True
    assert (
        "store: there is no `go` to build MinIO with; a file store takes its place" in capfd.readouterr().err
    )


def test_an_interrupted_download_is_not_taken_for_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUVIAL_CACHE", str(tmp_path))

    def interrupted_download() -> None:
        with downloads._new_folder(downloads.kafka_jars_path()) as folder:
            (folder / "kafka_2.13.jar").write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted_download()
    assert list(tmp_path.iterdir()) == []


def test_a_failed_build_shows_its_last_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUVIAL_CACHE", str(tmp_path))
    monkeypatch.setattr(downloads, "_minio_version", lambda: "not-a-version")
    monkeypatch.setenv("GOPROXY", "off")
    require("go")
    with pytest.raises(FluvialError) as caught:
        downloads.minio_binary(Output())
    assert caught.value.error_id == "FLV-1007"
    assert "not-a-version" in caught.value.where


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FluvialError) as caught:
        LocalStack(tmp_path / "file" / "home").up()
    assert caught.value.error_id == "FLV-1015"


def test_the_doctor_finds_what_was_broken(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    home.mkdir()
    stack_path(home).write_bytes(
        msgspec.json.encode(StackFile(store_kind="file", running=True, kafka_port=ports.choose()))
    )
    credentials_path(home).write_text("{}")
    credentials_path(home).chmod(0o644)
    assert cli.main(["--home", str(home), "doctor", "--json"]) == 1
    document = json.loads(capfd.readouterr().out)
    problems = {check["name"] for check in document["checks"] if check["status"] == "problem"}
    assert problems == {"credentials", "kafka", "kafka answers"}
    assert all(check["mend"] for check in document["checks"] if check["status"] == "problem")


def test_the_compose_file_has_the_same_limits() -> None:
    properties = dict(
        line.split("=", 1)
        for line in (ROOT / "infra/kafka/server.properties").read_text().splitlines()
        if "=" in line and not line.startswith("#")
    )
    compose = (ROOT / "docker-compose.yml").read_text()
    names = {"message_bytes_max": 8454144, "fetch_bytes_max": 57671680, "request_bytes_max": 104857600}
    own = {"process.roles", "node.id", "controller.quorum.voters", "log.dirs"}
    for name, value in properties.items():
        if name in own or "listener" in name:
            continue
        expected = next((str(limit) for key, limit in names.items() if value == f"${{{key}}}"), value)
        variable = "KAFKA_" + name.upper().replace(".", "_")
        assert f'{variable}: "{expected}"' in compose, name


def test_no_environment_is_needed_to_find_the_cache() -> None:
    assert downloads.kafka_jars_path().is_absolute()
