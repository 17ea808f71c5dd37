"""The rooms of ``docs/architecture.md`` are those of the sources: who may import whom, and how large things may be.

The page has one row a room: what it is, and which rooms of its own package it uses. Between packages imports go down a
chain only. The graph is grimp's, so imports for types count as well, and so do those inside functions.
"""

from __future__ import annotations

import ast
import graphlib
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import grimp
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[3]
CHAIN: Final = (
    ("aggregation",),
    ("schemas",),
    ("backends", "learning"),
    ("stream_apps", "producers"),
    ("fluvial",),
)
"""Each may import those before it; those of one tuple may not import each other."""
PACKAGES: Final = tuple(package for level in CHAIN for package in level)

IMPURE_MODULES: Final = {
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
IMPURE_CALLS: Final = {"open", "print", "input", "exec", "eval"}
IMPURE_ATTRIBUTES: Final = {("np", "random"), ("numpy", "random")}
FILE_LINES_MAX: Final = 400
FUNCTION_LINES_MAX: Final = 69
METHODS_MAX: Final = 20
MANY_METHODS: Final = {
    "Observer": "one method an event: it is the list of all that can be observed",
    "Supervisor": "one method an order; the rules of its children stand in one place",
    "TaskStore": "a pair of methods, to read and to write, for each kind of object",
}
"""Classes with more methods than ``METHODS_MAX``, and why."""

FILES: Final = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
SOURCES: Final = [
    *FILES,
    *sorted((ROOT / "infra").rglob("*.py")),
    *sorted((ROOT / "benchmarks").rglob("*.py")),
]


class Room(NamedTuple):
    """A row of the page's table."""

    sentence: str
    uses: frozenset[str]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def rooms() -> dict[str, Room]:
    """The table of ``docs/architecture.md``: ``| `room/` | sentence | `uses`, ... |``."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| `([a-z_/]+)/` \| (.+?) \| (.*?) ?\|$", page, flags=re.MULTILINE)
    return {
        name: Room(sentence, frozenset(re.findall(r"`([a-z_]+)`", uses))) for name, sentence, uses in rows
    }


@cache
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES, cache_dir=None)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), name_of(path))


def room_of(module: str) -> str:
    """``fluvial.console.server`` stands in ``fluvial/console``, ``fluvial.cli`` in ``fluvial``."""
    first, *rest = module.split(".")
    return f"{first}/{rest[0]}" if rest and (ROOT / first / rest[0]).is_dir() else first


def imports() -> Iterator[tuple[str, str]]:
    """(importer, imported), of our own modules."""
    for module in sorted(graph().modules):
        for imported in sorted(graph().find_modules_directly_imported_by(module)):
            yield module, imported


def level_of(package: str) -> int:
    return next(number for number, level in enumerate(CHAIN) if package in level)


def test_imports_between_packages_go_down_only() -> None:
    wrong = [
        f"{importer} imports {imported}"
        for importer, imported in imports()
        if (one := importer.partition(".")[0]) != (other := imported.partition(".")[0])
        and level_of(other) >= level_of(one)
    ]
    assert wrong == []


def test_the_page_has_every_room_and_no_other() -> None:
    assert set(rooms()) == {room_of(module) for module in graph().modules}
    assert all(room.sentence.strip().endswith(".") for room in rooms().values())


def test_rooms_of_a_package_use_those_that_the_page_says() -> None:
    used: dict[str, set[str]] = {name: set() for name in rooms()}
    for importer, imported in imports():
        here, there = room_of(importer), room_of(imported)
        if here != there and here.partition("/")[0] == there.partition("/")[0] and "/" in there:
            used[here].add(there.partition("/")[2])
    assert used == {name: set(room.uses) for name, room in rooms().items()}


def test_neither_files_nor_rooms_go_round_in_circles() -> None:
    files: dict[str, set[str]] = {}
    between: dict[str, set[str]] = {}
    for importer, imported in imports():
        files.setdefault(importer, set()).add(imported)
        here, there = room_of(importer), room_of(imported)
        if here != there:
            between.setdefault(here, set()).add(there)
    graphlib.TopologicalSorter(files).prepare()  # CycleError names the circle
    rootless = {here: {one for one in those if "/" in one} for here, those in between.items() if "/" in here}
    graphlib.TopologicalSorter(rootless).prepare()


def importers_of(*outside: str) -> set[str]:
    """Files that import one of these packages of others, at any depth."""
    found = set()
    for path in FILES:
        for node in ast.walk(tree_of(path)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{name_of(path)}:{node.lineno}: relative import"
                names = [str(node.module)]
            if any(name.partition(".")[0] in outside for name in names):
                found.add(name_of(path))
    return found


def test_torch_lives_in_learning_and_nowhere_else() -> None:
    assert {name.partition("/")[0] for name in importers_of("torch")} == {"learning"}


def test_the_offline_checker_shares_no_code_with_what_it_checks() -> None:
    ours = "fluvial.proof.checker"
    modules = {ours} | graph().find_descendants(ours)
    beyond = {imported for importer, imported in imports() if importer in modules} - modules
    assert beyond == set()
    assert not {name for name in importers_of("numba") if name.startswith("fluvial/proof/checker/")}


@pytest.mark.parametrize("package", ["aggregation", "schemas"])
def test_the_pure_packages_know_no_clock_no_randomness_and_no_io(package: str) -> None:
    assert {name for name in importers_of(*IMPURE_MODULES) if name.startswith(f"{package}/")} == set()
    wrong = []
    for path in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(tree_of(path)):
            if not isinstance(node, ast.Call):
                continue
            if isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
                wrong.append(f"{name_of(path)}:{node.lineno}: {node.func.id}()")
            owner = node.func.value if isinstance(node.func, ast.Attribute) else None
            if isinstance(owner, ast.Attribute) and isinstance(owner.value, ast.Name):
                pair = (owner.value.id, owner.attr)
                wrong += [f"{name_of(path)}:{node.lineno}: {pair}"] if pair in IMPURE_ATTRIBUTES else []
    assert wrong == []


def test_files_functions_and_classes_stay_short() -> None:
    wrong = []
    for path in SOURCES:
        lines = len(path.read_text().splitlines())
        wrong += [f"{name_of(path)} has {lines} lines"] if lines > FILE_LINES_MAX else []
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                wrong += (
                    [f"{name_of(path)}:{node.lineno} {node.name} has {length} lines"]
                    if length > FUNCTION_LINES_MAX
                    else []
                )
            elif isinstance(node, ast.ClassDef) and node.name not in MANY_METHODS:
                methods = sum(isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) for one in node.body)
                wrong += (
                    [f"{name_of(path)}: {node.name} has {methods} methods"] if methods > METHODS_MAX else []
                )
    assert wrong == []


def test_one_place_makes_the_configuration_of_every_kafka_client() -> None:
    """So that no client can lack a setting that all must have, such as how one gets in."""
    makers = {
        name_of(path)
        for path in [*FILES, *(ROOT / "benchmarks").rglob("*.py")]
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Dict)
        and any(isinstance(key, ast.Constant) and key.value == "bootstrap.servers" for key in node.keys)
    }
    assert makers == {"backends/kafka/configuration.py"}
