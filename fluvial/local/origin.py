"""``--from TASK@VERSION``: a new task that begins with the model of a version of another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aggregation.errors import UsageProblem
from backends.store.factory import open_object_store
from backends.store.task_store import TaskStore
from backends.tasks import read_task_file, task_names
from schemas.checkpoints import decode_model
from schemas.manifests import Parent
from schemas.objects import sha256_hex

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from aggregation.layout import Layout
    from backends.settings import Settings
    from schemas.manifests import Genesis, StoredObject

_SHOWN: Final = 3


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """A version to begin with: how a genesis names it, its task's genesis, and its model float32[P] in that layout."""

    parent: Parent
    genesis: Genesis
    parameters: npt.NDArray[np.float32]


def parse_origin(text: str) -> tuple[str, int | None]:
    """``mine@20`` as (task, version); ``mine`` alone is its newest version. UsageProblem FLV-6327."""
    task, at, version = text.partition("@")
    if not task or (at and not version.isdecimal()):
        raise UsageProblem(
            "FLV-6327",
            f"--from {text!r}: expected TASK@VERSION",
            hint="for example `--from mine@20`; `fluvial versions --task mine` lists them",
        )
    return task, int(version) if at else None


def read_origin(settings: Settings, text: str) -> Origin:
    """The version that ``text`` names, from the store, checked against its hashes.

    UsageProblem FLV-6327: it is not there. IntegrityProblem: it is not what its manifest says.
    """
    task, number = parse_origin(text)
    known = read_task_file(settings.home, task).genesis_sha256 if task in task_names(settings.home) else None
    store = TaskStore(open_object_store(settings.store), task)
    head = store.head()
    if head is None or (number is not None and number > head.version):
        there = "the store has no such task" if head is None else f"its newest version is {head.version}"
        raise UsageProblem(
            "FLV-6327",
            f"there is no {text} to begin with: {there}",
            where=store.store.describe(),
            hint="`fluvial task list` shows tasks, `fluvial versions --task TASK` their versions",
        )
    version = head.version if number is None else number
    genesis = store.genesis(known)
    model_sha256 = (
        store.signed_manifest(version, genesis.trust).model_sha256 if version else genesis.model_sha256
    )
    parameters = decode_model(store.model_bytes(version, model_sha256), genesis.tensor_layout)
    parent = Parent(task, sha256_hex(genesis.canonical()), version, sha256_hex(store.manifest_bytes(version)))
    return Origin(parent, genesis, parameters)


def require_same_layout(origin: Origin, layout: Layout, frozen: StoredObject | None = None) -> None:
    """UsageProblem FLV-6328, naming the tensors, unless the new task's model has the layout of the origin's.

    ``frozen``: the tensors outside of it, which have to be the same bytes.
    """
    old = {tensor.name: tensor for tensor in origin.genesis.tensor_layout.tensors}
    new = {tensor.name: tensor for tensor in layout.tensors}
    told = [f"{name} is not in the model of the task file" for name in old if name not in new]
    told += [f"{name} is new" for name in new if name not in old]
    told += [
        f"{name} is {list(old[name].shape)} there and {list(new[name].shape)} here"
        for name in new
        if name in old and old[name].shape != new[name].shape
    ]
    if not told and origin.genesis.tensor_layout != layout:
        told = ["its tensors stand in another order, or in other sections"]
    if not told and layout.control.tensors:
        told = ["it has control variates, and a new task's begin with 0"]
    if not told and origin.genesis.model.frozen != frozen:
        told = ["its frozen tensors have other values, and the version was trained around those"]
    if told:
        more = f"; {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
        of = f"{origin.parent.task}@{origin.parent.version}"
        raise UsageProblem(
            "FLV-6328",
            f"{of} cannot be the first model of this task: {'; '.join(told[:_SHOWN])}{more}",
            hint="let model() make the tensors that the version has; `load_model` and `load_state_dict` in model() "
            "take over some of them",
        )
