"""The README's commands, run as they are printed: what a stranger would type has to work."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fluvial.local.stack import LocalStack
from fluvial.terminal.output import Output
from tests import warming
from tests.integration.pipeline import run_command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backends.settings import Settings

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
MARK = "<!-- test: run -->"
BLOCK_LIMIT_S = 480.0
BLOCK = re.compile(r"(?P<mark><!-- test: run -->\n)?```bash\n(?P<text>.*?)```", re.DOTALL)

NOT_RUN = {
    "make demo\n": "acceptance runs it: it takes minutes and builds what it needs",
    "make test\n": "it would run this test",
    "watching": "its commands go on until they are stopped; tests of their own run them",
    "several machines": "it names brokers and stores that are not ours; its commands have to exist",
}


@dataclass(frozen=True)
class Block:
    """One bash block of the README."""

    text: str
    runs: bool

    @property
    def commands(self) -> list[str]:
        """Its commands, without comments and empty lines."""
        lines = [line.partition("  #")[0].strip() for line in self.text.splitlines()]
        return [line for line in lines if line and not line.startswith("#")]


def blocks() -> list[Block]:
    return [Block(found["text"], bool(found["mark"])) for found in BLOCK.finditer(README.read_text())]


def reason_not_to_run(block: Block) -> str | None:
    for sign, key in (
        ("kafka-1.example", "several machines"),
        ("--every 600", "watching"),
        ("fluvial canary", "watching"),
    ):
        if sign in block.text:
            return NOT_RUN[key]
    return NOT_RUN.get(block.text)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Settings]:
    """What a stranger's first `fluvial up` makes: it is secured."""
    warming.archive_classes(tmp_path / "archive")
    stack = LocalStack(tmp_path / "home", reporter=Output())
    yield stack.up()
    stack.end()


def environment(stack: Settings, folder: Path) -> dict[str, str]:
    """As a user's shell: the `fluvial` command in the path, the running stack's home, and nothing else of ours."""
    command = folder / "bin" / "fluvial"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m fluvial.cli "$@"\n')
    command.chmod(0o755)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("FLUVIAL_") or k == "FLUVIAL_CACHE"}  # noqa: TID251
    path = f"{command.parent}{os.pathsep}{kept['PATH']}"
    return kept | {"PATH": path, "PYTHONPATH": str(ROOT), "FLUVIAL_HOME": str(stack.home)}


def test_every_block_is_run_or_has_a_reason_not_to_be() -> None:
    found = blocks()
    assert len(found) == README.read_text().count("```bash")
    assert sum(block.runs for block in found) == README.read_text().count(MARK) >= 3
    for block in found:
        assert block.runs != bool(reason_not_to_run(block)), block.text


@pytest.mark.timeout(2 * BLOCK_LIMIT_S)
def test_the_blocks_run_as_they_are_printed(stack: Settings, tmp_path: Path) -> None:
    assert stack.kafka.has_tls and (stack.store.secure or stack.store.kind == "file")
    variables = environment(stack, tmp_path)
    folder = tmp_path / "a stranger's"
    folder.mkdir()
    for block in blocks():
        if not block.runs:
            continue
        for command in block.commands:
            done = subprocess.run(
                ["/bin/bash", "-euo", "pipefail", "-c", command],
                cwd=folder,
                env=variables,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=BLOCK_LIMIT_S,
                check=False,
            )
            said = f"$ {command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            assert done.returncode == 0, said
            assert done.stdout or done.stderr, f"silence: {said}"


@pytest.mark.parametrize("name", sorted(re.findall(r"(?m)^`{0,3}(?:make) ([a-z]+)", README.read_text())))
def test_the_make_targets_exist(name: str) -> None:
    done = subprocess.run(
        ["make", "-n", name], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "command",
    [
        command.partition(" --")[0]
        for block in blocks()
        if not block.runs
        for command in block.commands
        if command.startswith("fluvial ")
    ],
)
def test_the_commands_of_other_blocks_exist(tmp_path: Path, command: str) -> None:
    done = run_command(tmp_path, *command.split()[1:], "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout
