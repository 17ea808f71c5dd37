"""Who may import whom, what the pure packages may not touch, and how large a file and a function may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]

MAY_IMPORT: dict[str, set[str]] = {
    "aggregation": set(),
    "schemas": {"aggregation"},
    "backends": {"schemas", "aggregation"},
    "learning": {"schemas", "aggregation"},
    "producers": {"backends", "learning", "schemas", "aggregation"},
    "stream_apps": {"backends", "learning", "schemas", "aggregation"},
    "fluvial": {"stream_apps", "producers", "backends", "learning", "schemas", "aggregation"},
}
"""fluvial -> stream_apps, producers -> backends, learning -> schemas -> aggregation; never sideways, never up."""

PURE = ("aggregation", "schemas")
IMPURE_MODULES = {
    "asyncio",
    "concurrent",
    "datetime",
    "glob",
    "http",
    "logging",
    "multiprocessing",
    "os",
    "pathlib",
    "random",
    "secrets",
    "select",
    "shutil",
    "signal",
    "socket",
    "ssl",
    "subprocess",
    "sys",
    "tempfile",
    "threading",
    "time",
    "urllib",
    "uuid",
    "zoneinfo",
    "aiokafka",
    "confluent_kafka",
    "faust",
    "minio",
    "requests",
}
IMPURE_CALLS = {"open", "print", "input", "exec", "eval"}
IMPURE_ATTRIBUTES = {("np", "random"), ("numpy", "random")}
FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
FILES = [path for package in MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py"))]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), name_of(path))


def imports_of(path: Path) -> Iterator[tuple[str, int]]:
    """Top-level names of everything that a file imports, at any depth, with the line."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.partition(".")[0], node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: relative import"
            yield str(node.module).partition(".")[0], node.lineno


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_down_only(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    wrong = [
        f"{name_of(path)}:{line} imports {name}"
        for name, line in imports_of(path)
        if name in MAY_IMPORT and name != package and name not in MAY_IMPORT[package]
    ]
    assert wrong == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_torch_lives_in_learning_and_nowhere_else(path: Path) -> None:
    if path.relative_to(ROOT).parts[0] != "learning":
        assert "torch" not in {name for name, _ in imports_of(path)}


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.relative_to(ROOT).parts[0] in PURE], ids=name_of
)
def test_the_pure_packages_know_no_clock_no_randomness_and_no_io(path: Path) -> None:
    wrong = [f"{line}: {name}" for name, line in imports_of(path) if name in IMPURE_MODULES]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
            wrong.append(f"{node.lineno}: {node.func.id}()")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            if isinstance(owner, ast.Attribute) and isinstance(owner.value, ast.Name):
                pair = (owner.value.id, owner.attr)
                wrong += [f"{node.lineno}: {pair}"] if pair in IMPURE_ATTRIBUTES else []
    assert wrong == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_stay_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) < FILE_LINES_MAX
    long = [
        f"{name_of(path)}:{node.lineno} {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 >= FUNCTION_LINES_MAX
    ]
    assert long == []


def test_the_import_linters_contracts_hold() -> None:
    # In a process of its own: it configures logging anew, which switches other tests' loggers off.
    lint = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", lint], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_every_package_is_there(package: str) -> None:
    assert (ROOT / package / "__init__.py").is_file()
