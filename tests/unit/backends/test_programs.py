"""A process finds a task's program wherever it runs: the user's file while it is the same, else the task's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from aggregation.errors import IntegrityProblem, UsageProblem
from backends.memory.store import MemoryStore
from backends.programs import find_program, keep_program
from backends.store.task_store import TaskStore
from backends.tasks import task_folder
from schemas.manifests import NEWEST_GENESIS, Code, Genesis
from schemas.objects import object_key, sha256_hex
from schemas.program_archive import encode_program
from tests import factories
from tests.small_federation import SmallFederation

FILES = {"lab/__init__.py": b"", "lab/mine.py": b"from .nets import x\n", "lab/nets.py": b"x = 1\n"}
ENTRY = "lab/mine.py"


class Place:
    """A machine's home, the user's folder on it, and a store that it shares with others."""

    def __init__(self, folder: Path, store: TaskStore, *, code: bool = True) -> None:
        self.home, self.work, self.store = folder / "home", folder / "work", store
        self.archive = encode_program(FILES)
        self.genesis: Genesis = SmallFederation().genesis
        if code:
            named = Code(sha256_hex(self.archive), len(self.archive), ENTRY)
            self.genesis = msgspec.structs.replace(
                self.genesis, code=named, nonce="0" * 64, format=NEWEST_GENESIS
            )
        self.told: list[str] = []

    def created(self) -> Place:
        self.store.put_object(self.archive)
        keep_program(self.home, self.genesis.task, self.archive)
        for name, data in FILES.items():
            path = self.work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return self

    @property
    def reference(self) -> str:
        return str(self.work / ENTRY)

    def find(self, reference: str | None = None) -> Path:
        wanted = self.reference if reference is None else reference
        return Path(
            find_program(self.home, self.genesis, self.store.get_object, wanted, say=self.told.append)
        )


@pytest.fixture
def store() -> TaskStore:
    return TaskStore(MemoryStore(), factories.TASK)


@pytest.fixture
def here(tmp_path: Path, store: TaskStore) -> Place:
    return Place(tmp_path, store).created()


def holds_all(entry: Path) -> bool:
    root = entry.parents[1]
    there = {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    return there == FILES and entry == root / ENTRY


def test_the_users_own_files_while_they_are_the_same(here: Place) -> None:
    (here.work / "data.csv").write_text("what the program reads beside itself")
    assert here.find() == Path(here.reference)
    assert here.told == []


@pytest.mark.parametrize("name", ["lab/mine.py", "lab/nets.py"])
def test_a_file_that_changed_is_said_and_the_program_is_as_it_was(here: Place, name: str) -> None:
    (here.work / name).write_text("changed = 1")
    found = here.find()
    assert holds_all(found)
    assert found.is_relative_to(here.home / "cache" / "programs")
    (told,) = here.told
    assert told.startswith(f"{name} changed since the task {here.genesis.task} was created")
    assert "as it was then is used" in told


def test_another_machine_needs_the_store_only(here: Place, tmp_path: Path, store: TaskStore) -> None:
    other = Place(tmp_path / "other", store)
    for reference in (here.reference.replace("work", "gone"), "", "/elsewhere/another_name.py"):
        assert holds_all(other.find(reference))
    assert other.told == []


def test_a_copy_of_the_tasks_folder_needs_no_object_of_the_store(here: Place, tmp_path: Path) -> None:
    other = Place(tmp_path / "other", TaskStore(MemoryStore(), factories.TASK))
    shutil.copytree(task_folder(here.home, here.genesis.task), task_folder(other.home, here.genesis.task))
    assert holds_all(other.find("/gone/lab/mine.py"))


def test_what_was_spoilt_in_the_folder_comes_from_the_store(here: Place) -> None:
    (path,) = (task_folder(here.home, here.genesis.task) / "code").iterdir()
    path.write_bytes(b"spoilt")
    assert holds_all(here.find(""))


def test_what_was_spoilt_in_the_store_is_refused(tmp_path: Path, store: TaskStore) -> None:
    there = Place(tmp_path, store)
    key = object_key(factories.TASK, sha256_hex(there.archive))
    there.store.store.put(key, there.archive.replace(b"x = 1", b"x = 2"))
    with pytest.raises(IntegrityProblem) as caught:
        there.find("")
    assert caught.value.error_id == "FLV-4103"


@pytest.mark.parametrize("spoilt", ["changed", "added", "linked", "gone"])
def test_what_was_changed_in_the_cache_is_put_right(here: Place, spoilt: str) -> None:
    entry = here.find("")
    if spoilt == "changed":
        (entry.parent / "nets.py").write_text("x = 'planted'")
    elif spoilt == "added":
        (entry.parents[1] / "torch.py").write_text("planted = 1")
    elif spoilt == "linked":
        (entry.parents[1] / "link.py").symlink_to("/etc/hostname")
    else:
        (entry.parent / "nets.py").unlink()
    assert here.find("") == entry
    assert holds_all(entry)
    assert [path.name for path in entry.parents[2].iterdir()] == [entry.parents[1].name], "nothing left over"


def test_a_shipped_task_is_its_name(tmp_path: Path, store: TaskStore) -> None:
    assert str(Place(tmp_path, store, code=False).find("digits")) == "digits"


def test_an_older_task_is_found_where_it_was_or_says_what_to_do(tmp_path: Path, store: TaskStore) -> None:
    old = Place(tmp_path, store, code=False).created()
    assert old.find() == Path(old.reference)
    shutil.rmtree(old.work)
    with pytest.raises(UsageProblem) as caught:
        old.find()
    assert caught.value.error_id == "FLV-2230"
    assert old.reference in caught.value.where
    task_file = task_folder(old.home, old.genesis.task) / "task.json"
    assert caught.value.hint.startswith("copy that file here")
    assert str(task_file) in caught.value.hint
    with pytest.raises(UsageProblem, match="not known here"):
        old.find("")
