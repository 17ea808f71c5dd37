"""A new task from a version of another: the very model, a parent in its genesis, and an audit that holds it to that."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from aggregation.errors import UsageProblem
from aggregation.layout import Layout
from aggregation.policy import policy_from_toml
from backends.memory.store import MemoryStore
from backends.settings import Settings, StoreSettings
from backends.store.factory import open_object_store
from backends.store.task_store import TaskStore
from fluvial.local.create import first_version, make_keys
from fluvial.local.origin import Origin, parse_origin, read_origin, require_same_layout
from fluvial.proof.audit.findings import Findings
from fluvial.proof.audit.parents import check_parent
from learning.task import load_task
from schemas.checkpoints import decode_model
from schemas.manifests import Genesis, StoredObject
from schemas.objects import sha256_hex

if TYPE_CHECKING:
    from fluvial.local.create import FirstVersion

POLICY = policy_from_toml("")
REGIONS = {"eu": 1}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    make_keys(folder, REGIONS)
    return folder


def made(keys: Path, name: str, *, seed: int = 0, origin: Origin | None = None) -> FirstVersion:
    return first_version(
        name,
        load_task("digits"),
        regions=REGIONS,
        policy=POLICY,
        folder=keys,
        seed=seed,
        nonce="0" * 64,
        origin=origin,
    )


def settings_with(tmp_path: Path, first: FirstVersion) -> Settings:
    settings = Settings(
        home=tmp_path,
        bootstrap_servers="127.0.0.1:1",
        store=StoreSettings(kind="file", path=tmp_path / "objects"),
    )
    store = TaskStore(open_object_store(settings.store), first.genesis.task)
    store.commit(0, first.genesis.canonical())
    store.write_checkpoint(0, first.model, first.optimizer)
    return settings


@pytest.mark.parametrize(
    ("text", "found"), [("mine@20", ("mine", 20)), ("mine", ("mine", None)), ("a-2@0", ("a-2", 0))]
)
def test_a_version_is_named_by_task_and_number(text: str, found: tuple[str, int | None]) -> None:
    assert parse_origin(text) == found


@pytest.mark.parametrize("text", ["", "@3", "mine@", "mine@-1", "mine@last", "mine@1.5"])
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        parse_origin(text)
    assert caught.value.error_id == "FLV-6327"


def test_a_task_from_a_version_has_its_model_and_names_it(tmp_path: Path, keys: Path) -> None:
    parent = made(keys, "mine", seed=7)
    settings = settings_with(tmp_path, parent)
    origin = read_origin(settings, "mine@0")
    child = made(keys, "tuned", seed=1, origin=origin)
    assert child.model == parent.model and child.genesis.model_sha256 == parent.genesis.model_sha256
    sha256 = sha256_hex(parent.genesis.canonical())
    assert child.genesis.parent is not None
    assert msgspec.structs.asdict(child.genesis.parent) == {
        "task": "mine", "genesis_sha256": sha256, "version": 0, "manifest_sha256": sha256,
    }  # fmt: skip
    assert made(keys, "tuned", seed=1, origin=read_origin(settings, "mine")).genesis == child.genesis
    assert made(keys, "tuned", seed=1).model != child.model


@pytest.mark.parametrize("text", ["mine@1", "nobody@0"])
def test_a_version_that_is_not_there_is_refused(tmp_path: Path, keys: Path, text: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        read_origin(settings_with(tmp_path, made(keys, "mine")), text)
    assert caught.value.error_id == "FLV-6327"


def test_another_layout_is_refused_by_its_tensors(tmp_path: Path, keys: Path) -> None:
    origin = read_origin(settings_with(tmp_path, made(keys, "mine")), "mine")
    layout = origin.genesis.tensor_layout
    require_same_layout(origin, layout)
    entries = [(spec.name, spec.shape, spec.section) for spec in layout.tensors]
    name, shape, section = entries[0]
    cases: list[tuple[list[Any], str]] = [
        ([(name, (3, *shape[1:]), section), *entries[1:]], f"{name} is {list(shape)} there and"),
        (entries[1:], f"{name} is not in the model"),
        ([*entries, ("more", (1,), section)], "more is new"),
        ([entries[1], entries[0], *entries[2:]], "another order"),
    ]
    for changed, told in cases:
        with pytest.raises(UsageProblem) as caught:
            require_same_layout(origin, Layout.of(changed))
        assert caught.value.error_id == "FLV-6328" and told in caught.value.message
    with pytest.raises(UsageProblem, match="frozen"):
        require_same_layout(origin, layout, StoredObject("aa", 1))


def stored(*firsts: FirstVersion) -> MemoryStore:
    objects = MemoryStore()
    for first in firsts:
        TaskStore(objects, first.genesis.task).commit(0, first.genesis.canonical())
    return objects


def audited(objects: MemoryStore, genesis: Genesis) -> tuple[str, Findings]:
    findings = Findings()
    return check_parent(TaskStore(objects, genesis.task), genesis, findings), findings


def test_an_audit_says_whether_the_first_model_is_the_parents(tmp_path: Path, keys: Path) -> None:
    parent = made(keys, "mine", seed=7)
    child = made(keys, "tuned", origin=read_origin(settings_with(tmp_path, parent), "mine"))
    told, findings = audited(stored(parent, child), child.genesis)
    assert told == "the first model is the model of mine@0" and findings.total == 0
    assert audited(stored(parent), parent.genesis)[0] == ""

    for objects in (stored(child), stored(made(keys, "mine", seed=8), child)):
        told, findings = audited(objects, child.genesis)
        assert told.startswith("not checked") and findings.total == 0

    forged = msgspec.structs.replace(child.genesis, model_sha256="0" * 64)
    told, findings = audited(stored(parent, child), forged)
    assert "not the model of mine@0" in told
    assert [one.error_id for one in findings] == ["FLV-6329"]
    assert child.genesis.parent is not None
    moved = msgspec.structs.replace(child.genesis.parent, manifest_sha256="1" * 64)
    _, findings = audited(stored(parent, child), msgspec.structs.replace(child.genesis, parent=moved))
    assert [one.error_id for one in findings] == ["FLV-6329"]


def test_the_model_of_an_origin_is_the_files(tmp_path: Path, keys: Path) -> None:
    parent = made(keys, "mine", seed=3)
    origin = read_origin(settings_with(tmp_path, parent), "mine@0")
    assert np.array_equal(origin.parameters, decode_model(parent.model, parent.genesis.tensor_layout))
