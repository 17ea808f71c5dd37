"""Files that people write may begin with a byte order mark, or be UTF-16: each is read, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from aggregation.errors import UsageProblem
from backends.environment import read_credentials_file, read_stack_file
from backends.keys import certificate_pem, create_authority
from backends.prices import load_prices
from backends.settings import CredentialsFile, StackFile
from backends.tasks import TaskFile, read_task_file, write_task_file
from backends.text_files import plain_utf8
from fluvial.console.security import read_or_make_token, token_path
from fluvial.local.policies import layered_policy, read_policy_file
from learning.task import load_task

TASK = TaskFile(task="mine", genesis_sha256="0" * 64, reference="digits", regions=("eu",))
STACK = StackFile(store_kind="file", kafka_port=20001)
KEYS = CredentialsFile(store_access_key="a", store_secret_key="b")
PRICES = (Path(__file__).parents[3] / "infra" / "prices.toml").read_text()
PROGRAM = (Path(__file__).parents[3] / "learning" / "tasks" / "digits.py").read_text()
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16"]

Case = tuple[str, str, Callable[[Path], object]]


def policy_of(home: Path) -> object:
    return layered_policy(explicit=read_policy_file(home / "policy.toml"), task={}).window.seconds_max


CASES: dict[str, Case] = {
    "stack.json": ("stack.json", msgspec.json.encode(STACK).decode(), read_stack_file),
    "credentials.json": ("credentials.json", msgspec.json.encode(KEYS).decode(), read_credentials_file),
    "task.json": (
        "tasks/mine/task.json",
        msgspec.json.encode(TASK).decode(),
        lambda home: read_task_file(home, None),
    ),
    "prices": ("prices.toml", PRICES, lambda home: load_prices(home / "prices.toml")),
    "policy": ("policy.toml", "[window]\nseconds_max = 7\n", policy_of),
    "console token": ("console-token", "secret-token\n", read_or_make_token),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("name", CASES)
def test_it_is_read_as_without_one(home: Path, name: str, encoding: str, newline: str) -> None:
    path, text, read = CASES[name]
    if name == "console token":
        if encoding == "utf-16":
            pytest.skip("a token is copied, not edited: UTF-8 only")
        path = token_path(home).relative_to(home).as_posix()
    (home / path).parent.mkdir(parents=True)
    (home / path).write_bytes(text.encode())
    (home / path).chmod(0o600)
    expected = read(home)
    (home / path).write_bytes(text.replace("\n", newline).encode(encoding))
    assert read(home) == expected


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_task_file_too(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "mine.py"
    path.write_bytes(PROGRAM.replace("\n", "\r\n").encode(encoding))
    assert load_task(str(path)).name == load_task("digits").name.replace("digits", "mine")


def test_a_certificate_too(tmp_path: Path) -> None:
    path = create_authority(tmp_path, "eu")
    expected = certificate_pem(path)
    path.write_bytes(path.read_text().encode("utf-16"))
    assert certificate_pem(path) == expected


def test_what_is_no_text_at_all_is_refused_by_name(home: Path) -> None:
    write_task_file(home, TASK)
    (home / "tasks/mine/task.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageProblem) as caught:
        read_task_file(home, None)
    assert caught.value.error_id == "FLV-2402"


def test_bytes_without_a_mark_are_left_alone() -> None:
    assert plain_utf8("a\ufeffb".encode()) == "a\ufeffb".encode()
    assert plain_utf8(b"\xff\xfd") == b"\xff\xfd"
